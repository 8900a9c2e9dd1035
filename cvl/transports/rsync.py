"""Copies files with rsync, here or over an ssh connection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvl.scope import Scope


def pull(
    source: str, files: Sequence[bytes], into: Path, scope: Scope, *, ssh: Sequence[str], where: str
) -> None:
    """Copy `files` below `source` into `into`."""
    raise NotImplementedError
