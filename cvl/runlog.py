"""The run's own log on this machine: always a true prefix of what the job wrote.

Whoever drives the run appends; anybody may read. Beside the log lies the cursor that goes on
after its last byte, so that another process can follow without a gap or a repetition.
"""

from __future__ import annotations

import os
from pathlib import Path

from cvl.paths import state_dir
from cvl.spec import LogChunk


def run_folder(run_id: str) -> Path:
    """Return the folder on this machine that keeps what we know of a run."""
    return state_dir() / "runs" / run_id


class RunLog:
    """One run's log, opened for appending on first use. Not for two writers at once."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the run's own, made 0700 when the first byte arrives."""
        self.path = folder / "output.log"
        self._cursor_path = folder / "cursor"
        self._descriptor: int | None = None
        self._size = 0

    def cursor(self) -> str:
        """Return the cursor after the last byte that is safely here; "" before the first."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return ""
        noted, _, cursor = _text(self._cursor_path).partition(" ")
        return cursor if noted == str(size) else str(size) if not noted else ""

    def append(self, chunk: LogChunk) -> None:
        """Write `chunk` at the end. Raises `OSError`; what is there then stays a true prefix."""
        descriptor = self._open()
        left = memoryview(chunk.data)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            os.ftruncate(descriptor, self._size)
            raise
        self._size += len(chunk.data)
        if chunk.cursor != str(self._size):
            self._note(chunk.cursor)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptor = os.open(self.path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size
        return self._descriptor

    def _note(self, cursor: str) -> None:
        new = self._cursor_path.with_suffix(".new")
        new.write_text(f"{self._size} {cursor}")
        new.replace(self._cursor_path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
