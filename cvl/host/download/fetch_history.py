"""What earlier fetches have brought, noted beside the run's log: for the next fetch of that run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cvl.core.paths import private, private_file

PATIENCE = 5.0
"""Seconds to wait for another fetch of the same run."""
TABLES = """
CREATE TABLE IF NOT EXISTS about (place TEXT);
CREATE TABLE IF NOT EXISTS seen (place BLOB PRIMARY KEY, mark BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inert (name BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class FetchHistory:
    """`Landed.seen` and `Landed.inert` of every fetch into one folder.

    A file that is damaged, or cannot be written, counts as empty: then more is fetched again.
    """

    def __init__(self, file: Path, into: bytes) -> None:
        """Open or make it. Notes of another folder than `into` are forgotten."""
        private(file.parent)
        try:
            self._base = _opened(file, into)
        except (sqlite3.Error, OSError):
            with suppress(OSError):
                file.unlink()
            self._base = _opened(None, into)

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def marks(self, places: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return what is noted of these places."""
        marks = {}
        with suppress(sqlite3.Error):
            if self._base.execute("SELECT 1 FROM seen LIMIT 1").fetchone():
                for place in places:
                    row = self._base.execute("SELECT mark FROM seen WHERE place = ?", (place,))
                    if (value := row.fetchone()) and isinstance(value[0], bytes):
                        marks[place] = value[0]
        return marks

    def add(self, seen: Iterable[tuple[bytes, bytes]], inert: Iterable[bytes]) -> list[bytes]:
        """Note what has landed; return the inert names that are new."""
        with suppress(sqlite3.Error), self._base:
            self._base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", seen)
            insert = "INSERT OR IGNORE INTO inert VALUES (?)"
            return [name for name in inert if self._base.execute(insert, (name,)).rowcount > 0]
        return list(inert)


def _opened(file: Path | None, into: bytes) -> sqlite3.Connection:
    if file:
        os.close(private_file(file, os.O_RDWR | os.O_CREAT))
    base = sqlite3.connect(file or ":memory:", timeout=PATIENCE, check_same_thread=False)
    try:
        base.execute("PRAGMA synchronous = OFF")
        base.executescript(TABLES)
        with base:
            if base.execute("SELECT place FROM about").fetchone() != (into,):
                base.executescript("DELETE FROM about; DELETE FROM seen; DELETE FROM inert")
                base.execute("INSERT INTO about VALUES (?)", (into,))
    except BaseException:
        base.close()
        raise
    return base
