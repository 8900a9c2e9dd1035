"""What a guardian hears: its client, alive or dead; the end of their pipe; SIGTERM; the limits."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from cvl.cleanup.guardian_client import GONE, LATE, LIMIT, RELEASE

LOOK = 1.0
"""Seconds between two looks at what cannot wake us."""
LONG = 20.0
"""Seconds between two looks at the clock: it goes on while the machine sleeps, and we do not."""


class Listener:
    """Everything that a guardian may hear; listens from the moment that it is made."""

    def __init__(self, client: int) -> None:
        """`client` is the process that we watch over."""
        self._wake, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._hasten)
        self._client, self._exit = client, _exit_of(client)
        self._heard = b""
        self._ends: float | None = None
        self._last: float | None = None
        self.hurried = False

    def word(self) -> str:
        """Return the client's word, or why there is none."""
        while True:
            if self.hurried:
                return RELEASE
            if self.left() == 0:
                return LATE
            if word := self._said():
                return word
            self._wait([0, *self._exit], LONG if self._exit else LOOK)
            if self._is_gone() and not select.select([0], [], [], 0)[0]:
                return GONE  # though the pipe is still open, in some child of its

    def pause(self, seconds: float) -> None:
        """Wait, but not past the limit or SIGTERM."""
        if not self.hurried:
            self._wait([], seconds)

    def left(self) -> float | None:
        """Return the seconds to the limit, None while there is none."""
        return None if self._ends is None else max(self._ends - _now(), 0.0)

    def last(self) -> float | None:
        """Return the seconds until only the release counts, None while there is no limit."""
        return None if self._last is None else max(self._last - _now(), 0.0)

    def limit(self, seconds: float, last: float) -> None:
        """Take over so many seconds from now; `last` seconds from now only release."""
        self._ends, self._last = _now() + seconds, _now() + last

    def at_the_latest(self, seconds: float) -> None:
        """Let nothing but the release go on after so many seconds from now."""
        last = self.last()
        self._last = _now() + (seconds if last is None else min(seconds, last))

    def hear(self) -> None:
        """Wait for SIGTERM, for `wake`, or for the last limit; not for long."""
        last = self.last()
        self._woken([], LONG if last is None else min(LONG, last))

    def wake(self) -> None:
        """Let `hear` return. Safe in any thread."""
        with suppress(BlockingIOError):
            os.write(self._bell, b".")

    def _wait(self, sources: list[int], seconds: float) -> None:
        left = self.left()
        self._woken(sources, seconds if left is None else min(seconds, left))

    def _woken(self, sources: list[int], seconds: float) -> None:
        ready, _, _ = select.select([self._wake, *sources], [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, 64)

    def _said(self) -> str:
        """Return the next word that is more than a limit; `GONE` at the end; "" for none yet."""
        while select.select([0], [], [], 0)[0]:
            data = os.read(0, 4096)
            self._heard += data
            *lines, self._heard = self._heard.split(b"\n")
            for line in lines:
                word, *values = line.decode().split()
                if word != LIMIT:
                    return word
                self.limit(*map(float, values))
            if not data:
                return GONE
        return ""

    def _is_gone(self) -> bool:
        if self._exit:
            return bool(select.select(self._exit, [], [], 0)[0])
        return os.getppid() != self._client

    def _hasten(self, _number: int, _frame: object) -> None:
        self.hurried = True


def _exit_of(pid: int) -> list[int]:
    """Return a descriptor that can be read once that process has ended; none where unknown."""
    try:
        return [os.pidfd_open(pid)]
    except (AttributeError, OSError):
        return []


def _now() -> float:
    """Return seconds that never jump, and that go on while the machine sleeps where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
