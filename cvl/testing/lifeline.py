"""A helper process that cannot outlive us: it ends when its stdin does, however we end.

PR_SET_PDEATHSIG would not do: it fires when the *thread* that started the process ends.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

DEADLINE = 30.0
MARK = "CVL_LIFELINE"
"""In the environment of such a process: the pid and the start time of whoever started it."""


class Lifeline:
    """The process, and the order and answer lines that it understands."""

    def __init__(
        self,
        argv: Sequence[str],
        settings: Mapping[str, str] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        """Start it and wait until it says `ready`. Raises `OSError` with what it said.

        `settings` are for its environment; it has `deadline` seconds for each order.
        """
        self._lock = threading.Lock()
        self._deadline = deadline
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_environment() | dict(settings or {}),
        )
        _LIVE.add(self)
        try:
            self._expect("ready")
        except OSError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, word: str) -> None:
        """Give an order and wait until it is carried out. Raises `OSError` when it is not."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()
            self._expect(word)

    def close(self) -> None:
        """Let go of it, and see it end. Idempotent."""
        _LIVE.discard(self)
        with self._lock:
            self.let_go()
            try:
                self._process.wait(self._deadline)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()

    def let_go(self) -> None:
        """Close our end of the line only."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
        except OSError:
            pass  # it has ended before

    def _expect(self, word: str) -> None:
        line, ends = b"", time.monotonic() + self._deadline
        assert self._process.stdout is not None
        while not line.endswith(b"\n"):
            left = max(0.0, ends - time.monotonic())
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            byte = os.read(self._process.stdout.fileno(), 1) if ready else b""
            if not byte:
                raise OSError(f"{word}: no answer: {self._last_words()}")
            line += byte
        if line.decode().strip() != word:
            raise OSError(f"{word}: the answer was {line!r}")

    def _last_words(self) -> str:
        self.let_go()
        assert self._process.stderr is not None
        ready, _, _ = select.select([self._process.stderr], [], [], 1.0)
        return os.read(self._process.stderr.fileno(), 4096).decode().strip() if ready else ""


def orphans() -> list[int]:
    """Return the pids of what bears our mark although whoever started it is dead.

    There are none, unless a fork that did not let go holds the other end of a line.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        owner = re.search(rf"{MARK}=(\d+):(\d+)".encode(), _read(entry / "environ"))
        if owner and started(int(owner[1])) != owner[2].decode():
            found.append(int(entry.name))
    return found


def started(pid: int) -> str:
    """Return the start time of a process, "" if there is none."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return fields[19].decode() if len(fields) > 19 else ""


def _environment() -> dict[str, str]:
    """Return only what is needed: no key of a user is to reach a machine by accident."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "TMPDIR") if name in os.environ}
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {**kept, "PATH": path, MARK: f"{os.getpid()}:{started(os.getpid())}"}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


_LIVE: weakref.WeakSet[Lifeline] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A fork must not keep its parent's helpers alive by holding the other end of the line."""
    for line in list(_LIVE):
        line.let_go()
    _LIVE.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
