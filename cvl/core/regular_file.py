"""Reads what must be a file, whatever lies there: waits for no pipe, and for no end that is far."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

AS_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How it is opened, so that nothing waits or acts should it be something else."""


def start_of(
    path: bytes | str | Path, most: int, *, links: bool = False, folder: int | None = None
) -> bytes:
    """Return the first `most` bytes of a regular file. Otherwise as `opened`."""
    with opened(path, links=links, folder=folder) as file:
        return file.read(most)


@contextmanager
def opened(
    path: bytes | str | Path, *, links: bool = False, folder: int | None = None
) -> Iterator[BinaryIO]:
    """Give a regular file to read from, below an open `folder` if one is given.

    `links`: it may also be a link to one. Raises `OSError`, also for what is no file: that is not
    even opened, unless it is put there in this very moment.
    """
    flags = AS_FILE if links else AS_FILE | os.O_NOFOLLOW
    _regular(os.stat(path, dir_fd=folder, follow_symlinks=links), path)
    fd = os.open(path, flags, dir_fd=folder)
    try:
        _regular(os.fstat(fd), path)
        with os.fdopen(fd, "rb", closefd=False) as file:  # of a folder it would leave `fd` open
            yield file
    finally:
        os.close(fd)


def _regular(status: os.stat_result, path: bytes | str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a file", path)
