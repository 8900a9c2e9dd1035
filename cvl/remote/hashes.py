"""What each file holds, without reading again those that have not changed.

Like git's index: a file whose size, times and inode are those noted when it was read is not read
again, unless it was touched so shortly before that a later change might bear the same times.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from cvl.errors import CvlError

BLOCK = 1 << 20
TRIES = 5
SECOND_NS = 1_000_000_000
TICK_NS, COARSE_TICK_NS = 100_000_000, 2 * SECOND_NS
"""More than the longest tick of a file system's clock: of most, and of those that know only
seconds. A file touched less than that before it was read may change and keep its times."""

ROWS = 200_000
"""How many rows are kept, of this and former selections."""

TEXT_LIMIT = 256 * 1024
MENTION = re.compile(
    rb"(?<![\w.])((?:\.\./)+[\w.-]+(?:/[\w.-]+)*)"
    rb"|(?:\$\{?\w*(?:ROOT|REPO)\w*\}?\"?|/cvlization_repo)(/[\w.-]+(?:/[\w.-]+)*)"
)
"""How scripts name what lies outside their own folder: by climbing, or from the root."""

PROSE = (b".md", b".rst", b".lock", b".ipynb")
"""Names of files whose mentions are for people."""


class Entry(NamedTuple):
    """One path of a tree. A named tuple, for there are tens of thousands, made anew each time.

    `kind` is `f` (file), `l` (symbolic link) or `d` (empty folder). `content` is the blake2b-128
    of a file in hex, or a link's target.
    """

    kind: str
    executable: bool = False
    size: int = 0
    content: bytes = b""


Row = tuple[int, int, int, int, str, list[str]]
"""size, mtime_ns, ctime_ns, inode, content, mentions."""


class Hashes:
    """Entries of the files below one root, kept between runs in one file of ours."""

    def __init__(self, root: Path, kept: Path) -> None:
        self.warnings: list[str] = []
        self._root = os.fsencode(root.absolute()) + b"/"
        self._kept = kept
        self._old = _load(kept)
        self._new: dict[str, Row] = {}
        self._unsure: set[str] = set()

    def entry(self, path: bytes) -> Entry | None:
        """Return what lies at `path`: None if nothing does, kind `d` for any folder.

        What is neither file, link nor folder, or cannot be read, is None and a warning.
        """
        try:
            found = os.lstat(self._root + path)
            if stat.S_ISREG(found.st_mode):
                return self._file(path, found)
            if stat.S_ISLNK(found.st_mode):
                # Not by a `Path`, which would tidy up the target.
                return Entry("l", content=os.readlink(self._root + path))  # noqa: PTH115
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.warnings.append(f"{os.fsdecode(path)} is left out: {error.strerror}")
            return None
        if stat.S_ISDIR(found.st_mode):
            return Entry("d")
        self.warnings.append(f"{os.fsdecode(path)} is left out: neither file nor folder")
        return None

    def mentions(self, path: bytes) -> list[bytes]:
        """Return what the file mentions outside its folder: `../x`, or `/x` from the root."""
        row = self._new.get(os.fsdecode(path))
        return [os.fsencode(text) for text in row[5]] if row else []

    def save(self) -> None:
        """Note what was seen, if that is news. Whoever saves last wins; nothing is lost by it."""
        rows = {path: row for path, row in self._new.items() if path not in self._unsure}
        if all(self._old.get(path) is row for path, row in rows.items()):
            return
        merged = {**self._old, **rows}
        kept = merged if len(merged) <= ROWS else rows
        replace_file(self._kept, json.dumps(kept, separators=(",", ":")).encode())

    def _file(self, path: bytes, found: os.stat_result) -> Entry:
        name = os.fsdecode(path)
        size = found.st_size
        row = self._old.get(name)
        if not (
            row
            and row[0] == size
            and row[1] == found.st_mtime_ns
            and row[2] == found.st_ctime_ns
            and row[3] == found.st_ino
        ):
            row, sure = _read(self._root + path)
            size = row[0]
            if not sure:
                self._unsure.add(name)
        self._new[name] = row
        return Entry("f", found.st_mode & 0o100 != 0, size, row[4].encode())


def open_file(path: bytes) -> int:
    """Open a regular file to read, never through a link and never waiting for a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def blocks(fd: int) -> Iterator[bytes]:
    """Yield the rest of an open file, in blocks that do not fill the memory."""
    while block := os.read(fd, BLOCK):
        yield block


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of ours, whole or not at all, readable by us alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: bytes) -> tuple[Row, bool]:
    """Return the row of a file as it is when nobody writes to it, and whether it may be kept."""
    for _ in range(TRIES):
        fd = open_file(path)
        try:
            now = time.time_ns()
            before = os.fstat(fd)
            digest, mentions = _digest(fd, path)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        row = _row(after, digest, mentions)
        if _row(before, digest, mentions) == row:
            return row, _settled(row, now)
    raise CvlError(
        f"{os.fsdecode(path)} changes while it is read",
        "wait until it is complete, or name it in .cvlignore",
    )


def _row(found: os.stat_result, digest: str, mentions: list[str]) -> Row:
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_size, *times, found.st_ino, digest, mentions)


def _settled(row: Row, now: int) -> bool:
    touched = max(row[1], row[2])
    return touched < now - (TICK_NS if touched % SECOND_NS else COARSE_TICK_NS)


def _digest(fd: int, path: bytes) -> tuple[str, list[str]]:
    hasher = blake2b(digest_size=16)
    first = b""
    for block in blocks(fd):
        hasher.update(block)
        first = first or block
    if len(first) > TEXT_LIMIT or path.endswith(PROSE) or b"\0" in first:
        return hasher.hexdigest(), []
    found = {climb or rooted for climb, rooted in MENTION.findall(first)}
    return hasher.hexdigest(), sorted(os.fsdecode(text) for text in found)


def _load(path: Path) -> dict[str, Row]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return rows if isinstance(rows, dict) else {}
