"""Keeps the pristine copy of an example on a machine up to date, sending only what differs."""

from __future__ import annotations

import os
from pathlib import Path

from cvl.core.digest import blake2b
from cvl.core.octets import octets
from cvl.core.paths import private, replace_file, state_dir
from cvl.core.spec import Source
from cvl.host.rpc import FarSide, Headers
from cvl.host.upload.selection import select
from cvl.host.upload.tree import Delta, Tree, delta, keep, known

MANY, MUCH = 300, 16 << 20
"""Files and bytes from which on the machine is asked to keep a spare copy for the next run."""
SPARE_LIMIT = 1 << 30


class TreeSync:
    """One selection of files here, and what we believe the machine's cache holds of it."""

    def __init__(self, far: FarSide, source: Source) -> None:
        """Read what travels. Raises `UsageError` and `CvlError` as `select` does."""
        self._folder = private(state_dir() / "trees")
        selection = select(source, self._folder)
        self.tree, self.warnings = selection.tree, selection.warnings
        self._key = _digest(os.uname().nodename, str(source.root), source.folder, *source.include)
        place = _digest(far.transport.where, far.base, self._key)
        self._note = self._folder / f"cache-{place}"
        self._base = self._tree(_text(self._note))

    def headers(self) -> Headers:
        """Return what the start request says of the tree (docs/far-side.md)."""
        base = self._base.id if self._base else "-"
        return [("cache", self._key), ("base", base), ("tree", self.tree.id)]

    def spare(self) -> Headers:
        """Return what asks for a spare copy, where it is worth it."""
        tree = self.tree  # is copying it worth not waiting for, and a second copy no burden?
        heavy = tree.size <= SPARE_LIMIT and (len(tree.entries) > MANY or tree.size > MUCH)
        return [("spare", str(tree.size >> 10))] if heavy else []

    def delta(self) -> Delta:
        """Return what has to be sent."""
        return delta(self._base, self.tree)

    def rebase(self, tree_id: str) -> None:
        """Go by what the machine says it holds; an unknown tree means sending everything."""
        self._base = self._tree(tree_id)

    def _tree(self, tree_id: str) -> Tree | None:
        return self.tree if tree_id == self.tree.id else known(self._folder, tree_id)

    def arrived(self) -> None:
        """Remember that the machine holds this tree now."""
        keep(self._folder, self.tree)
        if _text(self._note) != self.tree.id:
            replace_file(self._note, self.tree.id.encode())


def _digest(*words: str) -> str:
    joined = octets("\0".join(words))
    return blake2b(joined, digest_size=8).hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
