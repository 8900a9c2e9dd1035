"""A tree: what a selection of files holds, under one id, and what differs between two of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from cvl.core.digest import blake2b
from cvl.core.frozen import dataclass
from cvl.core.paths import private, replace_file
from cvl.core.safe_dir import parents
from cvl.host.upload.hashes import Entry, Hashes

AS_IT_LIES: Mapping[bytes, bytes] = MappingProxyType({})
KEPT = 48
"""How many files of each kind stay in the folder of known trees."""


class Tree:
    """Paths (bytes, relative, `/`-separated) and what lies there, sorted by path.

    Equal content gives an equal `id` (32 hex digits), wherever and whenever it was read.
    `root` is the folder that the paths start from, if they were read here; `hashes` is what
    read them. `own` says which of the entries travel under another path than they lie at here:
    results whose own name would act here.
    """

    def __init__(
        self,
        entries: Mapping[bytes, Entry],
        root: Path | None = None,
        hashes: Hashes | None = None,
        own: Mapping[bytes, bytes] = AS_IT_LIES,
    ) -> None:
        if own:
            entries = {own.get(path, path): entry for path, entry in entries.items()}
        self.entries: Mapping[bytes, Entry] = dict(sorted(entries.items()))
        self.root, self.hashes = root, hashes
        self.local: Mapping[bytes, bytes] = {path: here for here, path in own.items()}

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
    `send` are written. `local` says where an entry lies here, if not at its path.
    """

    base: str
    tree: str
    root: Path | None
    gone: tuple[bytes, ...]
    send: Mapping[bytes, Entry]
    hashes: Hashes | None = None
    local: Mapping[bytes, bytes] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files that are sent."""
        return sum(entry.size for entry in self.send.values())


def delta(old: Tree | None, new: Tree) -> Delta:
    """Return what turns `old` (None: an empty folder) into `new`."""
    before: Mapping[bytes, Entry] = old.entries if old else {}
    if before is new.entries:
        return Delta(base=new.id, tree=new.id, root=new.root, gone=(), send={})
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
        hashes=new.hashes,
        local=new.local,
    )


class KnownTrees:
    """The trees that we have sent, by id, in a folder of ours; only the latest few dozen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, tree_id: str) -> Tree | None:
        """Return the tree of that id, or None if it is unknown or its file is damaged."""
        if not re.fullmatch(r"[0-9a-f]{32}", tree_id):
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
            replace_file(private(self._folder) / file.name, tree.record)
            prune(self._folder, "tree-*")

    def _file(self, tree_id: str) -> Path:
        return self._folder / f"tree-{tree_id}"


def prune(folder: Path, pattern: str, keep: int = KEPT) -> None:
    """Remove all but the `keep` youngest files that fit `pattern`; others may do so as well."""
    for file in sorted(folder.glob(pattern), key=_age)[keep:]:
        file.unlink(missing_ok=True)


def _age(file: Path) -> float:
    try:
        return -file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _entry(record: bytes) -> Entry:
    kind, size, content = record.split(b" ", 2)
    return Entry(chr(kind[0]), kind[1:] == b"1", int(size), content)


def _folders(paths: Mapping[bytes, Entry]) -> set[bytes]:
    """Return every folder that these paths need, and the empty ones that they are."""
    folders = {path for path, entry in paths.items() if entry.kind == "d"}
    for path in paths:
        folders.update(parents(path))
    return folders


def _topmost(gone: list[bytes], folders: set[bytes]) -> list[bytes]:
    """Name, for each lost path, the outermost of its folders that no path needs any more."""
    tops: dict[bytes, None] = {}
    for path in gone:
        lost = [folder for folder in parents(path) if folder not in folders]
        tops[lost[-1] if lost else path] = None
    return list(tops)
