"""A tree: what a selection of files holds, under one id, and what differs between two of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from cvl.errors import CvlError
from cvl.remote.hashes import BLOCK, Entry, Hashes, Held, blocks, open_file, replace_file
from cvl.remote.listing import walk
from cvl.remote.tarstream import END, FOLDER, LINK, Member, header, padding
from cvl.values import dataclass

OLDEST = 315_532_800
"""1980, in epoch seconds: zip files know nothing before, and scripts make zip files."""
KEPT = 48
"""How many files of each kind stay in the folder of known trees."""


class Tree:
    """Paths (bytes, relative, `/`-separated) and what lies there, sorted by path.

    Equal content gives an equal `id` (32 hex digits), wherever and whenever it was read.
    `root` is the folder that the paths start from, if they were read here; `held` is what some
    of these files hold.
    """

    def __init__(
        self,
        entries: Mapping[bytes, Entry],
        root: Path | None = None,
        held: Mapping[bytes, Held] = MappingProxyType({}),
    ) -> None:
        self.entries: Mapping[bytes, Entry] = dict(sorted(entries.items()))
        self.root, self.held = root, held

    @cached_property
    def id(self) -> str:
        """The blake2b-128 of `record`."""
        return blake2b(self.record, digest_size=16).hexdigest()

    @cached_property
    def record(self) -> bytes:
        """All paths, kinds, executable bits, sizes and contents, NUL-separated."""
        return b"".join(
            b"%b\0%c%d %d %b\0" % (path, ord(kind), executable, size, content)
            for path, (kind, executable, size, content) in self.entries.items()
        )

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What makes the tree `base` ("-": nothing) into the tree `tree`.

    First everything in `gone` is removed, folders with all that is in them; then the entries of
    `send` are written.
    """

    base: str
    tree: str
    root: Path | None
    gone: tuple[bytes, ...]
    send: Mapping[bytes, Entry]
    held: Mapping[bytes, Held] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files that are sent."""
        return sum(entry.size for entry in self.send.values())


def delta(old: Tree | None, new: Tree) -> Delta:
    """Return what turns `old` (None: an empty folder) into `new`."""
    before: Mapping[bytes, Entry] = old.entries if old else {}
    send = {path: entry for path, entry in new.entries.items() if before.get(path) != entry}
    gone = [
        path
        for path, entry in before.items()
        if path not in new.entries or new.entries[path].kind != entry.kind
    ]
    return Delta(
        base=old.id if old else "-",
        tree=new.id,
        root=new.root,
        gone=tuple(_topmost(gone, _folders(new.entries))) if gone else (),
        send=send,
        held=new.held,
    )


class KnownTrees:
    """The trees that we have sent, by id, in a folder of ours; only the latest few dozen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, tree_id: str) -> Tree | None:
        """Return the tree of that id, or None if it is unknown or its file is damaged."""
        if not _is_id(tree_id):
            return None
        try:
            record = self._file(tree_id).read_bytes()
        except OSError:
            return None
        if blake2b(record, digest_size=16).hexdigest() != tree_id:
            return None
        fields = record.split(b"\0")
        return Tree(dict(zip(fields[0::2], map(_entry, fields[1::2]), strict=False)))

    def keep(self, tree: Tree) -> None:
        """Remember `tree`, and forget those that were not used for the longest time."""
        file = self._file(tree.id)
        try:
            os.utime(file)
        except FileNotFoundError:
            replace_file(file, tree.record)
            prune(self._folder, "tree-*")

    def _file(self, tree_id: str) -> Path:
        return self._folder / f"tree-{tree_id}"


def prune(folder: Path, pattern: str, keep: int = KEPT) -> None:
    """Remove all but the `keep` youngest files that fit `pattern`; others may do so as well."""
    for file in sorted(folder.glob(pattern), key=_age)[keep:]:
        file.unlink(missing_ok=True)


class Writable(Protocol):
    """What a payload is written to."""

    def write(self, data: bytes, /) -> object: ...


def write_payload(
    out: Writable, run_files: Mapping[str, bytes | Path], delta: Delta | None
) -> None:
    """Write the payload of the verb `start` (docs/far-side.md): one tar, in large pieces.

    Content given as bytes is ours alone (0600); a local file, or a folder with all that is in it,
    keeps its executable bits. An empty member `end` closes the tar: without it, a stream that
    broke off between two members would look whole. Raises `CvlError` if a file is not as the
    delta says any more; then the tar has no end.
    """
    pending: list[bytes] = []
    size = 0
    for piece in _pieces(run_files, delta):
        pending.append(piece)
        size += len(piece)
        if size >= BLOCK:
            out.write(b"".join(pending))
            pending, size = [], 0
    out.write(b"".join(pending))


def _age(file: Path) -> float:
    try:
        return -file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_id(text: str) -> bool:
    return len(text) == 32 and not set(text) - set("0123456789abcdef")  # noqa: PLR2004


def _entry(record: bytes) -> Entry:
    kind, size, content = record.split(b" ", 2)
    return Entry(chr(kind[0]), kind[1:] == b"1", int(size), content)


def _folders(paths: Mapping[bytes, Entry]) -> set[bytes]:
    """Return every folder that these paths need, and the empty ones that they are."""
    folders = {path for path, entry in paths.items() if entry.kind == "d"}
    for path in paths:
        folders.update(_parents(path))
    return folders


def _parents(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _topmost(gone: list[bytes], folders: set[bytes]) -> list[bytes]:
    """Name, for each lost path, the outermost of its folders that no path needs any more."""
    tops: dict[bytes, None] = {}
    for path in gone:
        lost = [folder for folder in _parents(path) if folder not in folders]
        tops[lost[-1] if lost else path] = None
    return list(tops)


def _pieces(run_files: Mapping[str, bytes | Path], change: Delta | None) -> Iterator[bytes]:
    for name, content in run_files.items():
        member = b"run/" + os.fsencode(name)
        if isinstance(content, bytes):
            yield from _ours(member, content)
        else:
            yield from _local(member, content)
    if change and change.gone:
        yield from _ours(b"gone", b"\0".join([*change.gone, b""]))
    if change and change.send:
        assert change.root is not None, "this tree was not read here"
        root = os.fsencode(change.root.absolute()) + b"/"
        for path, entry in change.send.items():
            if held := change.held.get(path):
                yield _whole(b"tree/" + path, entry, held)
            else:
                yield from _member(b"tree/" + path, root + path, entry)
    yield from _ours(b"end", b"")
    yield END


def _ours(member: bytes, content: bytes) -> Iterator[bytes]:
    now = int(time.time())
    head = header(Member(name=member, size=len(content), mode=0o600, mtime=now))
    yield head + content + padding(len(content))


def _local(member: bytes, path: Path) -> Iterator[bytes]:
    """Yield the members of a file or folder that the user names, through links as they are."""
    place = os.fsencode(path.absolute())
    if not path.is_dir():
        yield from _file(member, place, None)
        return
    reader = Hashes(path)
    for inner in walk(place, b"", everything=True):
        if entry := reader.entry(inner):
            yield from _member(member + b"/" + inner, place + b"/" + inner, entry)


def _member(member: bytes, place: bytes, entry: Entry) -> Iterator[bytes]:
    if entry.kind == "l":
        yield header(Member(name=member, kind=LINK, mode=0o777, link=entry.content))
    elif entry.kind == "d":
        yield header(Member(name=member + b"/", kind=FOLDER, mode=0o755, mtime=int(time.time())))
    else:
        yield from _file(member, place, entry)


def _whole(member: bytes, entry: Entry, held: Held) -> bytes:
    """Return a file that is held in memory, with its header, as it was when it was hashed."""
    mode = 0o755 if entry.executable else 0o644
    mtime = _mtime(held.mtime)
    head = header(Member(name=member, size=entry.size, mode=mode, mtime=mtime))
    return head + held.content + padding(entry.size)


def _file(member: bytes, place: bytes, entry: Entry | None) -> Iterator[bytes]:
    """Yield one file; if `entry` is given, exactly the bytes that it names, or raise."""
    try:
        fd = open_file(place) if entry else os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(place, error.strerror) from error
    try:
        found = os.fstat(fd)
        size = entry.size if entry else found.st_size
        mode = 0o755 if (entry.executable if entry else found.st_mode & 0o100) else 0o644
        head = header(Member(name=member, size=size, mode=mode, mtime=_mtime(found.st_mtime)))
        digest = blake2b(digest_size=16)
        sent = 0
        for block in blocks(fd, size):
            digest.update(block)
            sent += len(block)
            if sent > size:
                break
            yield head + block
            head = b""
        if sent != size or (entry and digest.hexdigest().encode() != entry.content):
            raise _changed(place, "its content is new")
        yield head + padding(size)
    finally:
        os.close(fd)


def _mtime(found: float) -> int:
    """Return a file's time, within what every unpacking tool and zip format can hold."""
    return min(max(int(found), OLDEST), int(time.time()))


def _changed(place: bytes, why: str | None) -> CvlError:
    return CvlError(
        f"{os.fsdecode(place)} changed while it was sent: {why}",
        "run it again when nothing writes to it, or name it in .cvlignore",
    )
