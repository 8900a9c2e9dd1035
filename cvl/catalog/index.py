"""Reading many example.yaml files fast: what was read stays in a cache until its file changes."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cvl.catalog.example import Example, Problem, read_example
from cvl.catalog.root import FILE, walk
from cvl.core.paths import cache_dir, private, replace_file
from cvl.core.regular_file import start_of

_FORMAT = 1
LIMIT = 1 << 20
"""Bytes that an example.yaml may have; the largest in use has a few thousand."""
_STABLE = 2 * 10**9
"""Nanoseconds: a younger file may change again without a change of its time or size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Every example of a root, by path, and all that is wrong in their files."""

    root: Path
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What one file says, as of a time and size. `data` is None if it cannot be used."""

    mtime: int
    size: int
    data: Mapping[str, object] | None
    notes: tuple[tuple[int, str], ...] = ()


@dataclass(slots=True, kw_only=True)
class _Cache:
    """The entries of one root, and whether they differ from those on disk."""

    root: Path
    file: Path
    entries: dict[str, _Entry] = field(default_factory=dict)
    stale: bool = False


def load(root: Path) -> Catalog:
    """Read all examples of `root`. A file that cannot be used is a problem, never an error.

    The cache lies in our cache folder; where there can be none, it is done without.
    """
    files = dict(walk(root))
    cache = _open(root)
    read = [_read(cache, path, files[path]) for path in sorted(files)]
    if cache.stale or cache.entries.keys() - files.keys():
        _save(cache, files)
    return Catalog(
        root=root,
        examples=tuple(example for example, _ in read if example),
        problems=tuple(problem for _, problems in read for problem in problems),
    )


def load_one(root: Path, path: str) -> tuple[Example | None, tuple[Problem, ...]]:
    """Read one example only; None if its file cannot be used. Raises OSError without a file."""
    cache = _open(root)
    read = _read(cache, path, (root / path / FILE).stat())
    if cache.stale:
        _save(cache, cache.entries)
    return read


def _read(
    cache: _Cache, path: str, status: os.stat_result
) -> tuple[Example | None, tuple[Problem, ...]]:
    entry, file = cache.entries.get(path), cache.root / path / FILE
    if entry is None or (entry.mtime, entry.size) != (status.st_mtime_ns, status.st_size):
        cache.entries.pop(path, None)
        try:
            entry = _parse(cache.root, path, status)
        except OSError as error:
            return None, (Problem(path=file, line=1, text=f"cannot be read: {error.strerror}"),)
        if time.time_ns() - entry.mtime > _STABLE:
            cache.entries[path] = entry
            cache.stale = True
    problems = tuple(Problem(path=file, line=line, text=text) for line, text in entry.notes)
    if entry.data is None:
        return None, problems
    return read_example(cache.root, path, entry.data, lambda _keys, _said_before: None), problems


def _parse(root: Path, path: str, status: os.stat_result) -> _Entry:
    from cvl.core.yaml_document import parse

    raw = start_of(root / path / FILE, LIMIT + 1, links=True)
    if len(raw) > LIMIT:
        raise OSError(0, f"it is larger than {LIMIT >> 20} MiB")
    document = parse(raw)
    data, lines, notes = document.data, document.lines, list(document.notes)

    def say(keys: tuple[str, ...], text: str) -> None:
        places = (keys[:end] for end in range(len(keys), 0, -1))
        notes.append((next((lines[key] for key in places if key in lines), 1), text))

    if data is not None:
        read_example(root, path, data, say)
    return _Entry(mtime=status.st_mtime_ns, size=status.st_size, data=data, notes=tuple(notes))


def _open(root: Path) -> _Cache:
    """Read the cache of `root`. A broken one, or one that others can write, counts as empty."""
    name = f"catalog-{zlib.crc32(os.fsencode(root)):08x}.json"
    cache = _Cache(root=root, file=cache_dir() / name)
    try:
        with cache.file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_uid == os.getuid() and not status.st_mode & 0o022:
                stored = json.load(opened)
                if (stored["format"], stored["root"]) == (_FORMAT, str(root)):
                    entries = stored["files"].items()
                    cache.entries = {path: _entry(*fields) for path, fields in entries}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return cache


def _entry(mtime: int, size: int, data: object, notes: Iterable[tuple[int, str]]) -> _Entry:
    if not isinstance(data, dict | None):
        raise TypeError
    checked = tuple((int(line), str(text)) for line, text in notes)
    return _Entry(mtime=mtime, size=size, data=data, notes=checked)


def _save(cache: _Cache, paths: Iterable[str]) -> None:
    """Replace the cache on disk as a whole; where that is not possible, leave it."""
    files = {
        path: [entry.mtime, entry.size, entry.data, entry.notes]
        for path in paths
        if (entry := cache.entries.get(path))
    }
    text = json.dumps({"format": _FORMAT, "root": str(cache.root), "files": files})
    with contextlib.suppress(OSError):
        private(cache.file.parent)
        replace_file(cache.file, text.encode("ascii"))
