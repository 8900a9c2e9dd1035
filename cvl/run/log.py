"""The run's own log on this machine: always a true prefix of what the job wrote.

Whoever drives the run appends; anybody may read. Beside the log lies the cursor that goes on
after its last byte, so that another process can follow without a gap or a repetition.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from cvl.core.paths import private, private_file, replace_file, state_dir
from cvl.core.regular_file import start_of
from cvl.core.spec import LogChunk

MOST = 1 << 20
"""Bytes that our two marks may have."""
MARK = re.compile(r"([0-9]{1,18}) ([^\ufffd]*)")


def run_folder(run_id: str) -> Path:
    """Return the folder on this machine that keeps what we know of a run."""
    return state_dir() / "runs" / run_id


class RunLog:
    """One run's log, opened for appending on first use. Not for two writers at once."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the run's own, made 0700 when the first byte arrives."""
        self.path = folder / "output.log"
        self._marks_path = folder / "cursor"
        self._descriptor: int | None = None
        self._size, self._cursor = 0, ""

    def whole(self) -> tuple[int, str]:
        """Return how many bytes are safely here, and the cursor after the last of them.

        Whoever reads no more than these and goes on at the cursor misses and repeats nothing,
        also while another process appends, or after that was killed in the middle of it.
        """
        marks = _marks(self._marks_path)  # first: the log only grows
        size = self.size()
        if marks is None:
            return size, str(size) if size else ""
        return next((mark for mark in reversed(marks) if mark[0] <= size), (0, ""))

    def size(self) -> int:
        """Return how many bytes are here: all of the log, once nobody drives the run any more."""
        try:
            status = self.path.lstat()
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def append(self, chunk: LogChunk) -> None:
        """Write `chunk` at the end. Raises `OSError`; what is there then stays a true prefix."""
        descriptor, size = self._open(), self._size + len(chunk.data)
        if chunk.cursor != str(size):
            self._mark(size, chunk.cursor)
        left = memoryview(chunk.data)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            os.ftruncate(descriptor, self._size)
            raise
        self._size, self._cursor = size, chunk.cursor

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            private(self.path.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptor = private_file(self.path, flags)
            self._size, self._cursor = self.whole()
            os.ftruncate(self._descriptor, self._size)
        return self._descriptor

    def _mark(self, size: int, cursor: str) -> None:
        """Note what holds now, and what will once the file is as long as `size`."""
        marks = f"{self._size} {self._cursor}\n{size} {cursor}\n"
        replace_file(self._marks_path, marks.encode())


def _marks(path: Path) -> list[tuple[int, str]] | None:
    """Return lengths of the log, each with the cursor that goes on from there; None: no file.

    A damaged line counts for nothing: without any, the log begins anew.
    """
    try:
        start = start_of(path, MOST)
    except FileNotFoundError:
        return None
    except OSError:
        return []
    lines = map(MARK.fullmatch, start.decode(errors="replace").split("\n"))
    return [(int(each[1]), each[2]) for each in lines if each]
