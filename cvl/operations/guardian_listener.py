"""What a guardian hears: its client, alive or dead; the end of their pipe; SIGTERM; the limits."""

from __future__ import annotations

import os
import select
import signal
import time
from threading import Thread

from cvl.cleanup.guardian_client import GONE, LATE, LIMIT, RELEASE
from cvl.core.scope import Bell

LOOK = 1.0
"""Seconds between two looks at what cannot wake us."""
LONG = 20.0
"""Seconds between two looks at the clock: it goes on while the machine sleeps, and we do not."""


class Listener:
    """Everything that a guardian may hear; SIGTERM from the moment that it is made."""

    def __init__(self, client: int) -> None:
        """`client` is the process that we watch over."""
        self._client, self._exit = client, _exit_of(client)
        self._word = ""
        self._ends: float | None = None
        self._last: float | None = None
        self._bell = Bell()
        self.hurried = False
        signal.signal(signal.SIGTERM, self._hasten)

    def listen(self) -> None:
        """Hear the client from now on. Raises `RuntimeError` where no thread can be had."""
        Thread(target=self._listen, daemon=True).start()

    def word(self) -> str:
        """Return the client's last word, or why there is none; no limit is heard any more."""
        while not (self._word or self.hurried or self.left() == 0):
            self.pause(LONG)
        if self.hurried or self.left() == 0:
            self._word = RELEASE if self.hurried else LATE
        return self._word

    def pause(self, seconds: float) -> None:
        """Wait, but not past the limit or SIGTERM."""
        left = self.left()
        self._bell.wait(seconds if left is None else min(seconds, left))

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
        self.wake()

    def hear(self) -> None:
        """Wait for SIGTERM, for `wake`, or for the last limit; not for long."""
        last = self.last()
        self._bell.wait(LONG if last is None else min(LONG, last))

    def wake(self) -> None:
        """Let `hear` return. Safe in any thread."""
        self._bell.ring()

    def _listen(self) -> None:
        """Hear the client until its last word: `GONE` once it has ended, or the pipe has.

        The pipe may still be open then, in some child of its; what it holds counts all the same.
        """
        heard, gone = b"", False
        try:
            while not (self._word or gone):
                ready, _, _ = select.select([0, *self._exit], [], [], None if self._exit else LOOK)
                if 0 in ready:
                    data = os.read(0, 4096)
                    *lines, heard = (heard + data).split(b"\n")
                    for line in lines:
                        self._take(*line.decode().split())
                    gone = not data
                else:
                    gone = bool(ready) or os.getppid() != self._client
        finally:
            self._take(GONE)  # also whom we do not understand: while it lives, nothing follows

    def _take(self, word: str, *values: str) -> None:
        if self._word:
            return
        if word == LIMIT:
            self.limit(*map(float, values))
        else:
            self._word = word
        self._bell.ring()

    def _hasten(self, _number: int, _frame: object) -> None:
        self.hurried = True
        self._bell.ring()


def _exit_of(pid: int) -> list[int]:
    """Return a descriptor that can be read once that process has ended; none where unknown."""
    try:
        return [os.pidfd_open(pid)]
    except (AttributeError, OSError):
        return []


def _now() -> float:
    """Return seconds that never jump, and that go on while the machine sleeps where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
