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

    `links`: it may also be a link to one. Raises `OSError`, also for what is no file.
    """
    flags = AS_FILE if links else AS_FILE | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, dir_fd=folder), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file", path)
        return opened.read(most)
