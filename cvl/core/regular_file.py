"""Reads what must be a file, whatever lies there: waits for no pipe, and for no end that is far."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

AS_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def start_of(
    path: bytes | str | Path, most: int, *, links: bool = False, folder: int | None = None
) -> bytes:
    """Return the first `most` bytes of a regular file, below an open `folder` if one is given.

    `links`: it may also be a link to one. Raises `OSError`, also for what is no file: that is not
    even opened, unless it is put there in this very moment.
    """
    flags = AS_FILE if links else AS_FILE | os.O_NOFOLLOW
    _regular(os.stat(path, dir_fd=folder, follow_symlinks=links), path)
    fd = os.open(path, flags, dir_fd=folder)
    try:
        _regular(os.fstat(fd), path)
        with os.fdopen(fd, "rb", closefd=False) as opened:  # of a folder it would leave `fd` open
            return opened.read(most)
    finally:
        os.close(fd)


def _regular(status: os.stat_result, path: bytes | str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file", path)
