"""The text of a script that an example names, and what else stands in its files, within bounds."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 1 << 20
"""Bytes. A longer script is run, but nothing is looked for in it."""


def script_text(file: Path, errors: str = "replace") -> str | None:
    """Return a script's text, None without one: a pipe or a device is not waited for."""
    try:
        return content(file, LIMIT).decode("utf-8", errors)
    except (OSError, ValueError):
        return None


def content(file: Path, most: int) -> bytes:
    """Return the first `most` bytes of a file. Raises `OSError`, `ValueError`.

    A pipe or a device is not even opened: that may act. Should one be there by now, it is not
    waited for.
    """
    if not os.path.isfile(file):  # noqa: PTH113 - never raises
        raise OSError(0, "it is not a file")
    with open(
        file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    ) as opened:
        return opened.read(most) or b""
