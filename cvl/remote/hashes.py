"""What each file holds, without reading again those that have not changed.

Like git's index: a file whose size, times and inode are those noted when it was read is not read
again, unless it was touched so shortly before that a later change might bear the same times.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cvl.digest import blake2b
from cvl.errors import CvlError
from cvl.paths import private, replace_file

AS_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
BLOCK = 1 << 20
TRIES = 5
SECOND_NS = 1_000_000_000
TICK_NS, COARSE_TICK_NS = 100_000_000, 2 * SECOND_NS
"""More than the longest tick of a file system's clock: of most, and of those that know only
seconds. A file touched less than that before it was read may change and keep its times."""

ROWS = 200_000
"""How many rows are kept, of this and former selections."""

HELD_LIMIT = 64 << 20
"""Bytes of files that are held in memory after they were read, so that they can be sent as they
were, without reading and hashing them again."""

TEXT_LIMIT = 256 * 1024
NAMES = rb"[\w.-]++(?:/[\w.-]++)*+"
MENTION = re.compile(
    rb"(?<![\w.])((?:\.\./)++(?:%b)?+)" % NAMES
    + rb"|(?:\$\{?+(?=\w*?(?:ROOT|REPO))\w*+\}?+\"?+|/cvlization_repo)(/%b)" % NAMES
    + rb"|(?<![\w./-])((?:examples|benchmarks)/%b)" % NAMES
)
"""How scripts name what lies outside their own folder: by climbing, from a variable that holds
the root, or as seen from the root. What was once taken is never given back, so that a hostile
text takes no longer than another; dots at the end are left for whoever reads the match."""

HINTS = (b"../", b"ROOT", b"REPO", b"/cvlization_repo/", b"examples/", b"benchmarks/")
"""What a text must hold for `MENTION` to find anything: much faster to look for."""

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


Row = tuple[bytes, bytes, bytes]
"""Size, times and inode; content; mentions, NUL being no part of any."""


class _Reading(NamedTuple):
    """What came of reading a file: whether `row` may be kept, and all of it if it is small."""

    size: int
    row: Row
    sure: bool
    held: Held | None


class Held(NamedTuple):
    """A file's modification time in epoch seconds, and all of its content."""

    mtime: int
    content: bytes


class Hashes:
    """Entries of the files below one root, kept between runs in one file of ours.

    `mentions` holds, of the files seen so far, what they name outside their own folders: `../x`,
    or `/x` from the root, with blanks between. `held` holds small files that had to be read.
    """

    def __init__(self, root: Path, kept: Path | None = None) -> None:
        self.warnings: list[str] = []
        self.mentions: dict[bytes, bytes] = {}
        self.held: dict[bytes, Held] = {}
        self._holds = 0
        self._root = os.fsencode(root.absolute()) + b"/"
        self._kept = kept
        self._rows = _load(kept) if kept else {}
        self._news: dict[bytes, Row] = {}

    def unchanged(self, paths: Iterable[bytes]) -> tuple[dict[bytes, Entry], list[bytes]]:
        """Return the entries of files that are as they were noted, and the other paths.

        One short loop: of ten thousand files mostly none has changed.
        """
        lstat, rows, root = os.lstat, self._rows, os.open(self._root, AS_FOLDER)
        known: dict[bytes, Entry] = {}
        others: list[bytes] = []
        try:
            for path in paths:
                try:
                    found = lstat(path, dir_fd=root) if path in rows else None
                except OSError:
                    found = None
                if found and (entry := self._noted(path, found)):
                    known[path] = entry
                else:
                    others.append(path)
        finally:
            os.close(root)
        return known, others

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

    def stamp(self, path: bytes) -> bytes:
        """Return what a file's `stamp_of` is while it holds what was read; b"" if none tells."""
        row = self._news.get(path) or self._rows.get(path)
        return row[0] if row else b""

    def save(self) -> None:
        """Note what was read. Whoever saves last wins; all that costs is reading once more."""
        if not self._news or self._kept is None:
            return
        rows = {**self._rows, **self._news}
        records = (
            (path, *row) for path, row in (rows if len(rows) <= ROWS else self._news).items()
        )
        private(self._kept.parent)
        replace_file(self._kept, b"\0".join(field for record in records for field in record))

    def _file(self, path: bytes, found: os.stat_result) -> Entry:
        if entry := self._noted(path, found):
            return entry
        size, row, sure, held = _read(self._root + path, found)
        if sure:
            self._news[path] = row
        if held and self._holds + size <= HELD_LIMIT:
            self._holds += size
            self.held[path] = held
        return self._entry(path, found, size, row)

    def _noted(self, path: bytes, found: os.stat_result) -> Entry | None:
        """Return the entry of a file that is as it was noted. Only files are."""
        row = self._rows.get(path)
        if row is None or row[0] != stamp_of(found):
            return None
        return self._entry(path, found, found.st_size, row)

    def _entry(self, path: bytes, found: os.stat_result, size: int, row: Row) -> Entry:
        if row[2]:
            self.mentions[path] = row[2]
        return Entry("f", found.st_mode & 0o100 != 0, size, row[1])


def open_file(path: bytes) -> int:
    """Open a regular file to read, never through a link and never waiting for a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def blocks(fd: int, size: int) -> Iterator[bytes]:
    """Yield the rest of an open file of about `size` bytes, in blocks that do not fill the memory.

    A block that is shorter than asked for is a file's last: most files cost a single read.
    """
    wanted = min(size + 1, BLOCK)
    while block := os.read(fd, wanted):
        yield block
        if len(block) < wanted < BLOCK:
            return


def stamp_of(found: os.stat_result) -> bytes:
    """Return size, times and inode: what is written to a file changes them, after a tick."""
    return b"%d %d %d %d" % (
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_ino,
    )


def _read(path: bytes, seen: os.stat_result) -> _Reading:
    """Read a file while nobody writes to it; `seen` is what it was shortly before."""
    before = stamp_of(seen)
    for _ in range(TRIES):
        now = time.time_ns()
        fd = open_file(path)
        try:
            digest, mentions, whole = _digest(fd, path, seen.st_size)
            seen = os.fstat(fd)
        finally:
            os.close(fd)
        after = stamp_of(seen)
        if before == after:
            touched = max(seen.st_mtime_ns, seen.st_ctime_ns)
            tick = TICK_NS if touched % SECOND_NS else COARSE_TICK_NS
            held = None if whole is None else Held(int(seen.st_mtime), whole)
            sure = touched < now - tick
            return _Reading(seen.st_size, (after, digest, mentions), sure, held)
        before = after
    raise CvlError(
        f"{os.fsdecode(path)} changes while it is read",
        "wait until it is complete, or name it in .cvlignore",
    )


def _digest(fd: int, path: bytes, size: int) -> tuple[bytes, bytes, bytes | None]:
    """Return an open file's hash, what it mentions, and all of it if it is no longer than a block.

    Only scripts and the like mention anything.
    """
    wanted = min(size + 1, BLOCK)
    first = os.read(fd, wanted)
    hasher = blake2b(first, digest_size=16)
    whole = first if len(first) < wanted < BLOCK else None
    if whole is None:
        for block in blocks(fd, size):
            hasher.update(block)
    return hasher.hexdigest().encode(), _mentions(path, first), whole


def _mentions(path: bytes, text: bytes) -> bytes:
    if len(text) > TEXT_LIMIT or path.endswith(PROSE) or b"\0" in text:
        return b""
    if not any(hint in text for hint in HINTS):
        return b""
    return b" ".join(sorted(set(_names(text))))


def _names(text: bytes) -> Iterator[bytes]:
    """Yield what a text mentions, without the ends of sentences and what only climbs."""
    for climb, rooted, seen in MENTION.findall(text):
        name = (climb or rooted or seen).rstrip(b"./")
        if seen and b"/" in name:
            yield b"/" + name
        elif name and not seen:
            yield name


def _load(path: Path) -> dict[bytes, Row]:
    try:
        fields = path.read_bytes().split(b"\0")
    except OSError:
        return {}
    if len(fields) % 4:
        return {}
    rows = zip(fields[1::4], fields[2::4], fields[3::4], strict=True)
    return dict(zip(fields[0::4], rows, strict=True))
