"""A tree: what a selection of files holds, under one id, and what differs between two of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from cvl.remote.hashes import Entry, replace_file

KEPT = 48
"""How many files of each kind stay in the folder of known trees."""


class Tree:
    """Paths (bytes, relative, `/`-separated) and what lies there, sorted by path.

    Equal content gives an equal `id` (32 hex digits), wherever and whenever it was read.
    """

    def __init__(self, entries: Mapping[bytes, Entry]) -> None:
        self.entries: Mapping[bytes, Entry] = dict(sorted(entries.items()))

    @cached_property
    def id(self) -> str:
        """The blake2b-128 of all paths, kinds, executable bits and contents."""
        # Neither a path nor a link's target can hold a NUL.
        records = [
            b"%b\0%c%d%b\0" % (path, ord(kind), executable, content)
            for path, (kind, executable, _size, content) in self.entries.items()
        ]
        return blake2b(b"".join(records), digest_size=16).hexdigest()

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
    gone: tuple[bytes, ...]
    send: Mapping[bytes, Entry]

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
        gone=tuple(_topmost(gone, _folders(new.entries))) if gone else (),
        send=send,
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
            rows = json.loads(self._file(tree_id).read_bytes())
            tree = Tree({os.fsencode(path): _entry(*row) for path, row in rows.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return tree if tree.id == tree_id else None

    def keep(self, tree: Tree) -> None:
        """Remember `tree`, and forget those that were not used for the longest time."""
        file = self._file(tree.id)
        try:
            os.utime(file)
        except FileNotFoundError:
            rows = {os.fsdecode(path): _row(entry) for path, entry in tree.entries.items()}
            replace_file(file, json.dumps(rows, separators=(",", ":")).encode())
            prune(self._folder, "tree-*.json")

    def _file(self, tree_id: str) -> Path:
        return self._folder / f"tree-{tree_id}.json"


def prune(folder: Path, pattern: str, keep: int = KEPT) -> None:
    """Remove all but the `keep` youngest files that fit `pattern`; others may do so as well."""
    for file in sorted(folder.glob(pattern), key=_age)[keep:]:
        file.unlink(missing_ok=True)


def _age(file: Path) -> float:
    try:
        return -file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_id(text: str) -> bool:
    return len(text) == 32 and not set(text) - set("0123456789abcdef")  # noqa: PLR2004


def _row(entry: Entry) -> tuple[str, int, int, str]:
    return (entry.kind, int(entry.executable), entry.size, os.fsdecode(entry.content))


def _entry(kind: str, executable: int, size: int, content: str) -> Entry:
    return Entry(kind, bool(executable), size, os.fsencode(content))


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
