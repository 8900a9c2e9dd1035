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

from cvl.core.digest import blake2b
from cvl.core.errors import CvlError
from cvl.core.paths import private, replace_file
from cvl.core.safe_dir import Folders
from cvl.core.scope import interrupted
from cvl.host.upload.secret_files import inside

FORMAT = b"cvl files 2"
"""Goes up when what was noted before does not tell all that is asked today."""
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


class Held(NamedTuple):
    """A file's modification time in epoch seconds, and all of its content."""

    mtime: int
    content: bytes


class Hashes:
    """Entries of the files below one root, kept between runs in one file of ours.

    `mentions` holds, of the files seen so far, what they name outside their own folders: `../x`,
    or `/x` from the root, with blanks between. `held` holds small files that had to be read.
    `secrets` says of files what secret they hold; these are never noted, and read each time.
    """

    def __init__(self, root: Path, kept: Path | None = None) -> None:
        self.warnings: list[str] = []
        self.mentions: dict[bytes, bytes] = {}
        self.held: dict[bytes, Held] = {}
        self.secrets: dict[bytes, str] = {}
        self._holds = 0
        self._links: set[bytes] = set()
        self._folders = Folders(os.fsencode(root.absolute()))
        self._kept = kept
        self._rows = _load(kept) if kept else {}
        self._news: dict[bytes, Row] = {}

    def unchanged(self, paths: Iterable[bytes]) -> tuple[dict[bytes, Entry], list[bytes]]:
        """Return the entries of files that are as they were noted, and the other paths.

        One short loop: of ten thousand files mostly none has changed.
        """
        lstat, rows, noted, at = os.lstat, self._rows, self._noted, self._folders.at
        known: dict[bytes, Entry] = {}
        others: list[bytes] = []
        for path in paths:
            if path in rows:
                above, _, name = path.rpartition(b"/")
                try:
                    entry = noted(path, lstat(name, dir_fd=at(above)))
                except OSError:
                    entry = None
                if entry:
                    known[path] = entry
                    continue
            others.append(path)
        return known, others

    def entry(self, path: bytes) -> Entry | None:
        """Return what lies at `path`: None if nothing does, kind `d` for any folder.

        What is neither file, link nor folder, or cannot be read, is None and a warning.
        """
        try:
            return self._at(path, self._folders.lstat(path))
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            self._tell_link(path)
        except OSError as error:
            self.warnings.append(f"{os.fsdecode(path)} is left out: {error.strerror}")
        return None

    def stamp(self, path: bytes) -> bytes:
        """Return what a file's `stamp_of` is while it holds what was read; b"" if none tells."""
        row = self._news.get(path) or self._rows.get(path)
        return row[0] if row else b""

    def readable(self, folder: bytes) -> bool:
        """Return whether a folder can be looked into; one that cannot is a warning."""
        try:
            self._folders.names(folder)
        except OSError as error:
            self.warnings.append(f"{os.fsdecode(folder)} is left out: {error.strerror}")
            return False
        return True

    def close(self) -> None:
        """Let go of the folders: nothing is read any more."""
        self._folders.close()

    def save(self) -> None:
        """Note what was read. Whoever saves last wins; all that costs is reading once more."""
        if not self._news or self._kept is None:
            return
        rows = {**self._rows, **self._news}
        records = (
            (path, *row) for path, row in (rows if len(rows) <= ROWS else self._news).items()
        )
        fields = (field for record in records for field in record)
        private(self._kept.parent)
        replace_file(self._kept, b"\0".join((FORMAT, *fields)))

    def _at(self, path: bytes, status: os.stat_result) -> Entry | None:
        if stat.S_ISREG(status.st_mode):
            return self._file(path, status)
        if stat.S_ISLNK(status.st_mode):
            return Entry("l", content=self._folders.readlink(path))
        if stat.S_ISDIR(status.st_mode):
            return Entry("d")
        self.warnings.append(f"{os.fsdecode(path)} is left out: neither file nor folder")
        return None

    def _file(self, path: bytes, status: os.stat_result) -> Entry:
        if entry := self._noted(path, status):
            return entry
        size, row, sure, held, secret = _read(self._folders, path, status)
        if secret:
            self.secrets[path] = secret
        elif sure:
            self._news[path] = row
        if held and self._holds + size <= HELD_LIMIT:
            self._holds += size
            self.held[path] = held
        return self._entry(path, status, size, row)

    def _tell_link(self, path: bytes) -> None:
        """Say of a folder that is a link now that what was in it stays here."""
        link = self._folders.link_on(path)
        if link and link not in self._links:
            self._links.add(link)
            name = os.fsdecode(link)
            self.warnings.append(f"what git tracks in {name} is left out: {name} is a link")

    def _noted(self, path: bytes, status: os.stat_result) -> Entry | None:
        """Return the entry of a file that is as it was noted. Only files are."""
        row = self._rows.get(path)
        if row is None or row[0] != stamp_of(status):
            return None
        return self._entry(path, status, status.st_size, row)

    def _entry(self, path: bytes, status: os.stat_result, size: int, row: Row) -> Entry:
        if row[2]:
            self.mentions[path] = row[2]
        return Entry("f", status.st_mode & 0o100 != 0, size, row[1])


def blocks(fd: int, size: int) -> Iterator[bytes]:
    """Yield the rest of an open file of about `size` bytes, in blocks that do not fill the memory.

    A block that is shorter than asked for is a file's last: most files cost a single read.
    """
    wanted = min(size + 1, BLOCK)
    while block := os.read(fd, wanted):
        yield block
        if len(block) < wanted < BLOCK:
            return


def stamp_of(status: os.stat_result) -> bytes:
    """Return size, times and inode: what is written to a file changes them, after a tick."""
    return b"%d %d %d %d" % (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


def _read(
    folders: Folders, path: bytes, seen: os.stat_result
) -> tuple[int, Row, bool, Held | None, str]:
    """Read a file while nobody writes to it; `seen` is what it was shortly before.

    Return its size, its row and whether that may be kept, all of it if it is small, what secret.
    """
    interrupted()
    before = stamp_of(seen)
    for _ in range(TRIES):
        now = time.time_ns()
        fd = folders.open(path)
        try:
            digest, mentions, whole, secret = _digest(fd, path, seen.st_size)
            seen = os.fstat(fd)
        finally:
            os.close(fd)
        after = stamp_of(seen)
        if before == after:
            touched = max(seen.st_mtime_ns, seen.st_ctime_ns)
            tick = TICK_NS if touched % SECOND_NS else COARSE_TICK_NS
            held = None if whole is None else Held(int(seen.st_mtime), whole)
            sure = touched < now - tick
            return seen.st_size, (after, digest, mentions), sure, held, secret
        before = after
    raise CvlError(
        f"{os.fsdecode(path)} changes while it is read",
        "wait until it is complete, or name it in .cvlignore",
    )


def _digest(fd: int, path: bytes, size: int) -> tuple[bytes, bytes, bytes | None, str]:
    """Return an open file's hash, what it mentions, all of it if it is short, and what secret.

    Only scripts and the like mention anything; secrets are looked for in the first block.
    """
    wanted = min(size + 1, BLOCK)
    first = os.read(fd, wanted)
    hasher = blake2b(first, digest_size=16)
    whole = first if len(first) < wanted < BLOCK else None
    if whole is None:
        for block in blocks(fd, size):
            interrupted()
            hasher.update(block)
    return hasher.hexdigest().encode(), _mentions(path, first), whole, inside(path, first)


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
    if fields[0] != FORMAT or len(fields) % 4 != 1:
        return {}
    rows = zip(fields[2::4], fields[3::4], fields[4::4], strict=True)
    return dict(zip(fields[1::4], rows, strict=True))
