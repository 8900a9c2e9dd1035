"""What one start sends: the run's files and the part of a tree that is new, as one tar."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from cvl.core.digest import blake2b
from cvl.core.errors import CvlError
from cvl.core.safe_dir import Folders
from cvl.host.download.inert_names import active
from cvl.host.tarstream import END, FOLDER, LINK, Member, header, padding, whole
from cvl.host.upload.hashes import BLOCK, Entry, Hashes, blocks, stamp_of
from cvl.host.upload.repository_files import walk
from cvl.host.upload.tree import Delta, Tree

OLDEST = 315_532_800
"""1980, in epoch seconds: zip files know nothing before, and scripts make zip files."""

Placed = tuple[bytes, bytes, Entry]
"""A member's name, where it lies here below the tree's root, and what lies there."""


def payload(run_files: Mapping[str, bytes | Path], delta: Delta | None) -> Iterator[bytes]:
    """Yield the payload of the verb `start` (docs/far-side.md): one tar, in large pieces.

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
            yield b"".join(pending)
            pending, size = [], 0
    yield b"".join(pending)


def tree_pieces(tree: Tree, files: Iterable[Placed], mtime: int | None = None) -> Iterator[bytes]:
    """Yield the members of a tar for files of a tree that was read here, each as it was read.

    `mtime` is every file's time, if it is not to be its own. Raises `CvlError` if a file is not
    as it was any more; it is opened below the tree's root and through no link.
    """
    assert tree.root is not None, "this tree was not read here"
    with Folders(os.fsencode(tree.root.absolute())) as folders:
        for member, path, entry in files:
            if tree.hashes and (held := tree.hashes.held.get(path)):
                moment = _mtime(held.mtime, mtime)
                head = _member(member, entry.size, moment, executable=entry.executable)
                yield whole(head, held.content)
            elif entry.kind == "f":
                stamp = tree.hashes.stamp(path) if tree.hashes else b""
                try:
                    fd = folders.open(path)
                except OSError as error:
                    raise _changed(path, error.strerror) from error
                yield from _file(member, path, fd, entry, stamp, mtime)
            else:
                yield _bare(member, entry, mtime)


def _pieces(run_files: Mapping[str, bytes | Path], change: Delta | None) -> Iterator[bytes]:
    for name, content in run_files.items():
        member = os.fsencode(name)
        if isinstance(content, bytes):
            yield _ours(member, content)
        else:
            yield from _local(member, content)
    if change and change.gone:
        yield _ours(b"gone", b"\0".join([*change.gone, b""]))
    if change and change.send:
        local = change.new.local
        files = ((b"tree/" + p, local.get(p, p), entry) for p, entry in change.send.items())
        yield from tree_pieces(change.new, files)
    yield _ours(b"end", b"")
    yield END


def _ours(member: bytes, content: bytes) -> bytes:
    now = int(time.time())
    return whole(Member(name=member, size=len(content), mode=0o600, mtime=now), content)


def _local(member: bytes, path: Path) -> Iterator[bytes]:
    """Yield the members of a file or folder that the user names, through links as they are."""
    place = os.fsencode(path.absolute())
    if not path.is_dir():
        try:
            fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _changed(place, error.strerror) from error
        yield from _file(member, place, fd, None)
        return
    with closing(Hashes(path)) as reader:
        inners = walk(place, b"", everything=True)
        entries = ((inner, reader.entry(inner)) for inner in inners)
        files = ((member + b"/" + active(inner), inner, entry) for inner, entry in entries if entry)
        yield from tree_pieces(Tree({}, path, reader), files)


def _bare(member: bytes, entry: Entry, mtime: int | None) -> bytes:
    """Return the header of a link or a folder."""
    if entry.kind == "l":
        moment = 0 if mtime is None else mtime
        return header(Member(name=member, kind=LINK, mode=0o777, mtime=moment, link=entry.content))
    made = int(time.time()) if mtime is None else mtime
    return header(Member(name=member + b"/", kind=FOLDER, mode=0o755, mtime=made))


def _member(name: bytes, size: int, mtime: int, *, executable: bool) -> Member:
    return Member(name=name, size=size, mode=0o755 if executable else 0o644, mtime=mtime)


def _file(
    member: bytes,
    place: bytes,
    fd: int,
    entry: Entry | None,
    stamp: bytes = b"",
    mtime: int | None = None,
) -> Iterator[bytes]:
    """Yield an open file and close it; if `entry` is given, exactly the bytes that it names.

    That it still holds them is told by its `stamp`, before and after, or else by hashing it.
    """
    try:
        status = os.fstat(fd)
        size = entry.size if entry else status.st_size
        executable = entry.executable if entry else status.st_mode & 0o100 != 0
        moment = _mtime(status.st_mtime, mtime)
        head = header(_member(member, size, moment, executable=executable))
        digest, known = blake2b(digest_size=16), stamp_of(status) == stamp
        sent = 0
        for block in blocks(fd, size):
            if not known:
                digest.update(block)
            sent += len(block)
            if sent > size:
                break
            yield head + block
            head = b""
        if known:
            same = stamp_of(os.fstat(fd)) == stamp
        else:
            same = entry is None or entry.content == digest.hexdigest().encode()
        if sent != size or not same:
            raise _changed(place, "its content is new")
        yield head + padding(size)
    finally:
        os.close(fd)


def _mtime(seconds: float, fixed: int | None = None) -> int:
    """Return a file's time, within what every unpacking tool and zip format can hold."""
    if fixed is not None:
        return fixed
    return min(max(int(seconds), OLDEST), int(time.time()))


def _changed(place: bytes, why: str | None) -> CvlError:
    return CvlError(
        f"{os.fsdecode(place)} changed while it was sent: {why}",
        "run it again when nothing writes to it, or name it in .cvlignore",
    )
