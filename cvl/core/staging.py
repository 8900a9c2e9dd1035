"""A private folder beside the results, for what is still on its way."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cvl.core.errors import Blocked
from cvl.core.safe_dir import AS_ROOT

INCOMING = ".incoming-"
FULL = (errno.ENOSPC, errno.EDQUOT)
USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
EVERYWHERE = frozenset({*FULL, *USED_UP, errno.EROFS, errno.EIO, errno.ENOTCONN, errno.ESTALE})
"""What keeps one file from landing and will keep the others: there is no use in going on."""
STALE = 60.0
"""Seconds after which a private folder that nobody holds locked is a left-over."""


@contextmanager
def incoming(into: Path) -> Iterator[Path]:
    """Make `into` and a private folder in it for what is on its way; remove that at the end.

    Left-overs of a fetch that was killed are removed as well. Raises `Blocked`.
    """
    with landing_in(into):
        into.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(into)
        folder = Path(tempfile.mkdtemp(prefix=INCOMING, dir=into))
        lock = os.open(folder, AS_ROOT | os.O_NOFOLLOW)
    try:
        _try_lock(lock)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def landing_in(into: Path) -> Iterator[None]:
    """Turn what this machine's files refuse while results land into `Blocked`."""
    try:
        yield
    except OSError as error:
        raise refused(into, error) from error


def refused(into: Path, error: OSError) -> Blocked:
    """Return what to raise when nothing can be written to `into`: by its real cause."""
    why = error.strerror or str(error)
    if error.errno in FULL:
        return Blocked(
            f"no room for the results in {into}: {why}",
            "make room, or name a folder on another disk with `cvl fetch RUN -o DIR`",
        )
    if error.errno in USED_UP:
        return Blocked(
            f"this machine has too little left to take the results: {why}",
            "end other programs, or raise the limit (`ulimit -n`), then `cvl fetch RUN`",
        )
    return Blocked(
        f"cannot write results to {into}: {why}", "name another folder with `cvl fetch RUN -o DIR`"
    )


def not_taken(into: Path, files: Sequence[object]) -> Blocked:
    """Return what to raise for single files that cannot be written here, each with its reason."""
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return Blocked(
        f"cannot write {files[0]}{others}, in {into}",
        "name another folder with `cvl fetch RUN -o DIR`",
    )


def _remove_leftovers(into: Path) -> None:
    for folder in into.glob(INCOMING + "*"):
        try:
            fd = os.open(folder, AS_ROOT | os.O_NOFOLLOW)
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
