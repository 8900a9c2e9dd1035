"""A private folder beside the results, for what is still on its way."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvl.errors import FetchError
from cvl.remote.shelf import AS_FOLDER

INCOMING = ".incoming-"
FULL = (errno.ENOSPC, errno.EDQUOT)
STALE = 60.0
"""Seconds after which a private folder that nobody holds locked is a left-over."""


@contextmanager
def incoming(into: Path) -> Iterator[Path]:
    """Make `into` and a private folder in it for what is on its way; remove that at the end.

    Left-overs of a fetch that was killed are removed as well. Raises `FetchError`.
    """
    with _told(into):
        into.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(into)
        folder = Path(tempfile.mkdtemp(prefix=INCOMING, dir=into))
    lock = os.open(folder, AS_FOLDER)
    try:
        _try_lock(lock)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def no_room(into: Path, error: OSError) -> FetchError:
    """Return what to raise when the disk that `into` lies on is full, or a quota is."""
    return FetchError(
        f"no room for the results in {into}: {error.strerror}",
        "make room, or name a folder on another disk with `cvl fetch RUN -o DIR`",
    )


def _remove_leftovers(into: Path) -> None:
    for folder in into.glob(INCOMING + "*"):
        try:
            fd = os.open(folder, AS_FOLDER)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_mtime < time.time() - STALE and _try_lock(fd):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    """Lock a folder for as long as it is open; return False where another process has it."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _told(into: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise no_room(into, error) from error
        raise FetchError(
            f"cannot write results to {into}: {error.strerror}",
            "name another folder with `-o DIR`",
        ) from error
