"""What a host lists, however much it is: little of it in memory, the rest in a file of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Self

from cvl.core.digest import blake2b
from cvl.core.errors import FetchError
from cvl.core.paths import private
from cvl.core.staging import landing_in

SMALL = 1 << 22
"""Bytes up to which a list stays in memory."""
MOST = 1 << 29
"""Bytes that a list may have: some five million results."""
WIDEST = 1 << 14
"""Bytes between two NULs; a path has 4096 at most."""
BLOCK = 1 << 18


class Spool:
    """A list of fields, each ended by a NUL; a context manager."""

    def __init__(self, folder: Path, where: str) -> None:
        """`folder` is where its file lies, nameless, if one is needed; `where` is who lists."""
        self._folder, self._where = private(folder), where
        self._file = SpooledTemporaryFile(SMALL, dir=str(folder))  # noqa: SIM115 - closed at exit
        self._size = self._open = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._size = self._open = 0

    def take(self, data: bytes) -> None:
        """Add what came. Raises `FetchError` for more than anybody can have, and `Blocked`."""
        last = data.rfind(b"\0")
        self._open = self._open + len(data) if last < 0 else len(data) - last - 1
        self._size += len(data)
        if self._size > MOST or self._open > WIDEST:
            raise FetchError(f"{self._where} lists results without end")
        with landing_in(self._folder):
            self._file.write(data)
            self._file.flush()

    @property
    def empty(self) -> bool:
        """Whether nothing was listed."""
        return not self._size

    @property
    def whole(self) -> bool:
        """Whether the last field has ended."""
        return not self._open

    @property
    def small(self) -> bool:
        """Whether all of it is in memory."""
        return self._size <= SMALL

    def fields(self) -> Iterator[bytes]:
        """Yield each field. Raises `FetchError` when the last one does not end."""
        rest = b""
        for block in self._blocks():
            *fields, rest = (rest + block).split(b"\0")
            yield from fields
        if rest:
            raise FetchError("the host's list of results broke off")

    def mark(self) -> bytes:
        """Return what tells one list from another: a digest of 16 bytes."""
        digest = blake2b(digest_size=16)
        for block in self._blocks():
            digest.update(block)
        return digest.digest()

    def _blocks(self) -> Iterator[bytes]:
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            yield block


class DiskSet:
    """A set of paths that may be large: as `set`, as far as `results.TakenPaths` goes."""

    def __init__(self) -> None:
        import sqlite3

        self._base = sqlite3.connect("")  # a file without a name, which sqlite itself removes
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("CREATE TABLE held (path BLOB PRIMARY KEY) WITHOUT ROWID")

    def __contains__(self, path: object) -> bool:
        with closing(self._base.execute("SELECT 1 FROM held WHERE path = ?", (path,))) as rows:
            return rows.fetchone() is not None

    def add(self, path: bytes) -> None:
        self._base.execute("INSERT OR IGNORE INTO held VALUES (?)", (path,))

    def update(self, paths: Iterable[bytes]) -> None:
        self._base.executemany("INSERT OR IGNORE INTO held VALUES (?)", ((path,) for path in paths))

    def isdisjoint(self, paths: Iterable[bytes]) -> bool:
        return not any(path in self for path in paths)
