"""The text of a script that an example names: read only if it is a file, and no longer than one."""

from __future__ import annotations

from pathlib import Path

from cvl.core.regular_file import start_of

LIMIT = 1 << 20
"""Bytes. A longer script is run, but nothing is looked for in it."""


def script_text(file: Path, errors: str = "replace") -> str | None:
    """Return a script's text, None without one: a pipe or a device is not waited for."""
    try:
        return start_of(file, LIMIT, links=True).decode("utf-8", errors)
    except (OSError, ValueError):
        return None
