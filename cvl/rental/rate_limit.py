"""Keeps to a provider's rate limit, across all cvl processes of this user."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cvl.core.paths import private, private_file, state_dir
from cvl.core.process import boot_id
from cvl.core.scope import Clock, Scope, SystemClock

HELD = 1.0
"""How long, in intervals, a slot may take from being given out to the request having arrived."""
TICK = 1e-3
LOCK_LIMIT = 2.0
"""Seconds to wait for whoever has the file; a process that is stopped may have it for ever."""
LAG, LEAST_LAG = 0.1, 0.02
"""How far behind the free slot who waits for it looks again, in intervals: at first, at least."""


class Pace:
    """One request every `interval` seconds, whoever of us makes it.

    When the next may be made is kept in a file under a lock, in seconds of the system's monotonic
    clock, which all processes of one boot share; what another boot has left there says nothing.
    What counts is when requests arrive: so the interval begins when one is known to have.
    """

    def __init__(self, name: str, interval: float, clock: Clock | None = None) -> None:
        """`name` is the limit's own: one file of our state folder."""
        self._name, self._interval = name, interval
        self._clock = clock or SystemClock()
        self._boot = ""
        self._alone: int | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._interval > 0

    def wait(
        self,
        scope: Scope | None = None,
        *,
        urgent: bool = False,
        unless: Callable[[], bool] = lambda: False,
    ) -> float | None:
        """Return when it is our turn: that moment, on the monotonic clock. Raises as `scope` does.

        What is urgent goes first; of the rest, roughly, what has waited longest. None: there is
        no need for a turn any more, says `unless`.
        """
        scope = scope or Scope(self._clock)
        began = self._clock.monotonic()
        while self.limited:
            if unless():
                return None
            if (seconds := self._left()) <= 0:
                break
            waited = (self._clock.monotonic() - began) / self._interval
            lag = 0.0 if urgent else LEAST_LAG + LAG / (1 + waited)
            scope.sleep(seconds + lag * self._interval)
        return self._clock.monotonic()

    def missed(self, taken: float) -> bool:
        """Return whether so much time has passed since a turn that it may be another's now."""
        return 0 < HELD * self._interval < self._clock.monotonic() - taken

    def arrived(self, taken: float | None) -> None:
        """Hear that the request of that turn has been answered, or will never be."""
        if taken is None or not self.limited:
            return
        held = taken + (1 + HELD) * self._interval
        with self._file() as file:
            if self._free(os.read(file, 128)) <= held + TICK:  # else somebody was there since
                at = min(self._clock.monotonic(), taken + HELD * self._interval)
                self._note(file, at + self._interval)

    def _left(self) -> float:
        """Take the slot if it is free and return 0, else the seconds until it is."""
        with self._file() as file:
            now = self._clock.monotonic()
            free = self._free(os.read(file, 128))
            if now < free <= now + (1 + HELD) * self._interval + TICK:
                return free - now
            self._note(file, now + (1 + HELD) * self._interval)
        return 0.0

    @contextmanager
    def _file(self) -> Iterator[int]:
        try:
            path = private(state_dir() / "pace") / self._name
            descriptor = private_file(path, os.O_RDWR | os.O_CREAT)
        except OSError:  # no reason not to end what costs money
            yield self._own_file()
            return
        try:
            yield descriptor if _locked(descriptor, self._clock) else self._own_file()
        finally:
            os.close(descriptor)

    def _own_file(self) -> int:
        """Return a file of this process alone, at its beginning: then it keeps to the limit."""
        if self._alone is None:
            from tempfile import TemporaryFile

            with TemporaryFile() as file:
                self._alone = os.dup(file.fileno())
        os.lseek(self._alone, 0, os.SEEK_SET)
        return self._alone

    def _note(self, file: int, free: float) -> None:
        with suppress(OSError):  # a full disk: no reason not to end what costs money
            os.ftruncate(file, 0)
            os.pwrite(file, f"{free:.6f} {self._this_boot()}\n".encode(), 0)

    def _free(self, line: bytes) -> float:
        """Return when the next request may be made, 0 for at once."""
        number, _, boot = line.decode(errors="replace").strip().partition(" ")
        try:
            return float(number) if boot == self._this_boot() else 0.0
        except ValueError:
            return 0.0

    def _this_boot(self) -> str:
        self._boot = self._boot or boot_id()
        return self._boot


def _locked(descriptor: int, clock: Clock) -> bool:
    """Have a file for ourselves: nobody needs it for long. Tell whether we have."""
    for _ in Scope(clock, seconds=LOCK_LIMIT).attempts((TICK,)):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
