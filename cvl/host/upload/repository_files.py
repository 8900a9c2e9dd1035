"""Which files lie below a repository's root, before anybody chooses among them.

Paths are bytes, relative to the root, `/`-separated, as the file system has them. In a git
checkout git is asked, once; elsewhere the folders are walked with a short list of what to leave.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

from cvl.core.safe_dir import Folders
from cvl.host.upload.git import Question

NEVER = re.compile(
    rb"(?:^|/)(?:\.git|__pycache__|\.venv"
    rb"|\.(?:mypy|pytest|ruff)_cache|\.ipynb_checkpoints|\.DS_Store|cvl-runs)(?:/|$)"
)
"""What never travels, tracked or not: caches, virtual environments, earlier results."""

HINTS = (b".git", b"cache", b".venv", b".ipynb", b".DS_Store", b"cvl-runs")
"""What some path must hold for `NEVER` to find anything."""

UNTRACKED = frozenset(
    b".hg .svn .tox .nox .cache .hypothesis node_modules wandb mlruns lightning_logs".split()
    + b"outputs checkpoints".split()
)
"""What else is left where no git tells what belongs: products of earlier work, by name."""


class Listing:
    """The paths below a root, sorted. Folders appear only when empty or another repository."""

    def __init__(self, root: Path) -> None:
        """Start git, so that the caller can do something else until `paths` is asked for."""
        self.root = os.fsencode(root.absolute())
        self.warnings: list[str] = []
        self._git = Question(self.root)
        self._paths: list[bytes] | None = None
        self._walked: set[bytes] = set()

    def close(self) -> None:
        """Wait for git no longer."""
        self._git.close()

    @property
    def paths(self) -> list[bytes]:
        """All paths known so far, sorted."""
        if self._paths is None:
            self._paths = self._first()
        return self._paths

    def below(self, folder: bytes) -> list[bytes]:
        """Return the paths inside `folder`, at any depth; b"" is the root."""
        self._reach(folder)
        if not folder:
            return self.paths[:]
        start = bisect_left(self.paths, folder + b"/")
        return self.paths[start : bisect_left(self.paths, folder + b"0", start)]

    def has(self, path: bytes) -> bool:
        """Return whether exactly this path is listed."""
        self._reach(path)
        at = bisect_left(self.paths, path)
        return at < len(self.paths) and self.paths[at] == path

    def walk(self, folder: bytes) -> None:
        """Add what lies in `folder` on disk, ignored by git or not."""
        self._paths = _permitted({*self.paths, *walk(self.root, folder)})

    def _first(self) -> list[bytes]:
        output, complaint = self._git.answer() if self._git.checkout else (b"", "")
        if complaint:
            self.warnings.append(
                f"git cannot list {os.fsdecode(self.root)}, so what .gitignore names travels too: "
                f"{complaint}"
            )
        if not output:  # no checkout, or one that ignores all of the root
            with Folders(self.root) as folders:
                return _permitted(name for name, deeper in folders.names(b"") if not deeper)
        self._walked.add(b"")
        return _permitted({name.rstrip(b"/") for name in output.split(b"\0")} - {b""})

    def _reach(self, path: bytes) -> None:
        """Walk the top folder of `path`, once, where git did not list everything."""
        top = path.partition(b"/")[0]
        known = self.paths
        if b"" in self._walked or top in self._walked:
            return
        self._walked.add(top)
        whole = Path(os.fsdecode(self.root + b"/" + top))
        if whole.is_dir() and not whole.is_symlink():
            self._paths = _permitted({*known, *walk(self.root, top)})


def walk(root: bytes, folder: bytes, *, everything: bool = False) -> Iterator[bytes]:
    """Yield the files, links and empty folders in `folder`, never through a link below `root`.

    `everything` takes also what `UNTRACKED` names. A folder that cannot be read is yielded, so
    that whoever looks at it says so.
    """
    todo = [folder]
    with Folders(root) as folders:
        while todo:
            here = todo.pop()
            try:
                entries = folders.names(here)
            except OSError:
                yield here
                continue
            if not entries and here:
                yield here
            for name, deeper in entries:
                path = here + b"/" + name if here else name
                if NEVER.search(b"/" + name) or (name in UNTRACKED and not everything):
                    continue
                if deeper:
                    todo.append(path)
                else:
                    yield path


def _permitted(names: Iterable[bytes]) -> list[bytes]:
    """Return `names` sorted, without what never travels."""
    paths = sorted(names)
    # One look at all is much cheaper than one at each, and mostly finds nothing.
    joined = b"\0".join((b"", *paths))
    if any(hint in joined for hint in HINTS):
        paths = [path for path in paths if not NEVER.search(path)]
    if b".." in joined or b"//" in joined or b"\0/" in joined:  # a made-up index says anything
        paths = [path for path in paths if not {b"..", b""} & set(path.split(b"/"))]
    homes = tuple(p[: -len(b"pyvenv.cfg")] for p in paths if p.endswith(b"/pyvenv.cfg"))
    return [path for path in paths if not path.startswith(homes)] if homes else paths
