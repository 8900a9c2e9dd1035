"""What a host lists, however much it is: little of it in memory, the rest in a file of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Self

from cvl.core.errors import FetchError
from cvl.core.paths import private
from cvl.core.safe_dir import write_all
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
        """`folder` is where its file lies, nameless; `where` is who lists."""
        self._folder, self._where = folder, where
        self._head = bytearray()
        self._file: int | None = None
        self._size = self._open = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._head.clear()
        self._size = self._open = 0
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def take(self, data: bytes) -> None:
        """Add what came. Raises `FetchError` for more than anybody can have, and `Blocked`."""
        last = data.rfind(b"\0")
        self._open = self._open + len(data) if last < 0 else len(data) - last - 1
        self._size += len(data)
        if self._size > MOST or self._open > WIDEST:
            raise FetchError(f"{self._where} lists results without end")
        if self._size <= SMALL:
            self._head += data
            return
        with landing_in(self._folder):
            if self._file is None:
                self._file = self._nameless()
            write_all(self._file, data)

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
        return self._file is None

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
        for at in range(0, len(self._head), BLOCK):
            yield bytes(self._head[at : at + BLOCK])
        if self._file is not None:
            os.lseek(self._file, 0, os.SEEK_SET)
            while block := os.read(self._file, BLOCK):
                yield block

    def _nameless(self) -> int:
        private(self._folder)
        path = self._folder / f".list-{os.getpid()}-{id(self)}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        path.unlink()
        return file


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
