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
    """What makes another tree, or an empty folder, into the tree `new`.

    First everything in `gone` is removed, folders with all that is in them; then the entries of
    `send` are written.
    """

    new: Tree
    gone: tuple[bytes, ...]
    send: Mapping[bytes, Entry]


def delta(old: Tree | None, new: Tree) -> Delta:
    """Return what turns `old` (None: an empty folder) into `new`."""
    before: Mapping[bytes, Entry] = old.entries if old else {}
    if before is new.entries:
        return Delta(new=new, gone=(), send={})
    send = {path: entry for path, entry in new.entries.items() if before.get(path) != entry}
    gone = [
        path
        for path, entry in before.items()
        if path not in new.entries or new.entries[path].kind != entry.kind
    ]
    tops = tuple(_topmost(gone, _folders(new.entries))) if gone else ()
    return Delta(new=new, gone=tops, send=send)


def known(folder: Path, tree_id: str) -> Tree | None:
    """Return a tree that was kept in a folder of ours, None if it is unknown or damaged."""
    if not re.fullmatch(r"[0-9a-f]{32}", tree_id):
        return None
    try:
        record = (folder / f"tree-{tree_id}").read_bytes()
    except OSError:
        return None
    if blake2b(record, digest_size=16).hexdigest() != tree_id:
        return None
    fields = record.split(b"\0")
    return Tree(dict(zip(fields[0::2], map(_entry, fields[1::2]), strict=False)))


def keep(folder: Path, tree: Tree) -> None:
    """Keep `tree` in a folder of ours; those that were not used for the longest time go."""
    file = folder / f"tree-{tree.id}"
    try:
        os.utime(file)
    except FileNotFoundError:
        replace_file(private(folder) / file.name, tree.record)
        prune(folder, "tree-*")


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
