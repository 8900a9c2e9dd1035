"""Who may connect now: of all processes that want the same connection, one at a time."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from cvl.core.paths import private_file
from cvl.core.scope import Scope

LOOK = 0.02
"""Seconds between two looks."""


class Turn:
    """A lock beside `path`. It dies with its owner, so nobody can leave it behind."""

    def __init__(self, path: str) -> None:
        self._path = path + ".lock"
        self._lock: int | None = None

    def take(self) -> bool:
        """Return whether it is ours now. A file system without locks gives it to everybody."""
        try:
            self._lock = private_file(Path(self._path), os.O_CREAT | os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            return False
        except OSError:
            pass
        return True

    def release(self) -> None:
        """Let the next one go. At worst, a file that is removed lets two go at once."""
        if self._lock is not None:
            Path(self._path).unlink(missing_ok=True)
            self._close()

    def release_when(self, done: Callable[[], bool], limit: float) -> None:
        """Let the next one go once `done()`, or after `limit` seconds; does not wait for it."""

        def watch() -> None:
            for _ in Scope(seconds=limit).attempts((LOOK,)):
                if done():
                    break
            self.release()

        threading.Thread(target=watch, daemon=True).start()

    def _close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
