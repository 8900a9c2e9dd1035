"""Creating the ledger's file and moving a damaged one aside: the steps no transaction covers.

Both happen under a lock on a file beside it, and both look again once they hold it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EAGAIN
from pathlib import Path

from cvl.core.paths import private, private_file
from cvl.core.scope import Scope
from cvl.ledger.errors import try_lock
from cvl.ledger.schema import SCHEMA

SIDE_FILES = ("-journal", "-wal", "-shm")


def create(path: Path, patience: float) -> None:
    """Create the ledger unless it is there: whole, under another name, then renamed.

    So nobody sees half of one, and an empty file is known for what it is: a loss.
    """
    private(path.parent)
    with _alone(path, patience):
        if path.exists():
            return
        new = Path(f"{path}.new")
        for stale in (new, Path(f"{new}-journal")):
            stale.unlink(missing_ok=True)
        try_lock(new)
        _fill(new)
        move_aside(path)
        new.rename(path)


def keep_aside(path: Path, patience: float, damaged: Callable[[], bool]) -> Path | None:
    """Rename the ledger if it is still damaged; return its new name, or None if it is not."""
    with _alone(path, patience):
        return move_aside(path) if damaged() else None


def move_aside(path: Path) -> Path:
    """Rename the file, if it is there, to `*.corrupt-<UTC time>`, and what belongs to it.

    The journal goes first: left behind alone, it would be played into the next file.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = Path(f"{path}.corrupt-{stamp}-{os.urandom(2).hex()}")
    for suffix in SIDE_FILES:
        side = Path(f"{path}{suffix}")
        if side.exists() and side.stat().st_size > 0:
            side.rename(f"{aside}{suffix}")
    with suppress(FileNotFoundError):
        path.rename(aside)
    return aside


def _fill(new: Path) -> None:
    import sqlite3

    db = sqlite3.connect(new, isolation_level=None)
    try:
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
        db.execute("INSERT INTO ledger (id) VALUES (?)", (os.urandom(8).hex(),))
        db.execute("COMMIT")
    finally:
        db.close()


@contextmanager
def _alone(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file; raises `BlockingIOError` after `patience` seconds."""
    import fcntl

    lock = private_file(Path(f"{path}.lock"), os.O_CREAT | os.O_RDWR)
    try:
        for _ in Scope(seconds=patience).attempts((0.01,)):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        else:
            raise BlockingIOError(EAGAIN, "another process holds it")
        yield
    finally:
        os.close(lock)
