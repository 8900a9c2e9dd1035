"""The text of a script that an example names: read only if it is a file, and no longer than one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LIMIT = 1 << 20
"""Bytes. A longer script is run, but nothing is looked for in it."""


def script_text(file: Path, errors: str = "replace") -> str | None:
    """Return a script's text, None without one: a pipe or a device is not waited for."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as opened:
        return opened.read(LIMIT).decode("utf-8", errors)
