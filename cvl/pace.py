"""Keeps to a provider's rate limit, across all cvl processes of this user."""

from __future__ import annotations

import fcntl
import os

from cvl.paths import private, state_dir
from cvl.process import me, parse
from cvl.scope import Clock, Scope, SystemClock

LAG, LEAST_LAG = 0.1, 0.02
"""How far behind the free slot who waits for it looks again, in intervals: at first, at least."""


class Pace:
    """One request every `interval` seconds, whoever of us makes it.

    When the next may be made is kept in a file under a lock, in seconds of the system's monotonic
    clock, which all processes of one boot share; what another boot has left there says nothing.
    """

    def __init__(self, name: str, interval: float, clock: Clock | None = None) -> None:
        """`name` is the limit's own: one file of our state folder."""
        self._name, self._interval = name, interval
        self._clock = clock or SystemClock()
        self._boot = ""

    def wait(self, scope: Scope | None = None, *, urgent: bool = False) -> None:
        """Return when it is our turn. Raises as `scope` does.

        What is urgent goes first; of the rest, roughly, what has waited longest.
        """
        scope = scope or Scope(self._clock)
        began = self._clock.monotonic()
        while self._interval > 0 and (left := self._left()) > 0:
            waited = (self._clock.monotonic() - began) / self._interval
            lag = 0.0 if urgent else LEAST_LAG + LAG / (1 + waited)
            scope.sleep(left + lag * self._interval)

    def _left(self) -> float:
        """Take the slot if it is free and return 0, else the seconds until it is."""
        path = private(state_dir() / "pace") / self._name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            now = self._clock.monotonic()
            free = self._free(os.read(descriptor, 128))
            if now < free <= now + self._interval:
                return free - now
            line = f"{now + self._interval:.6f} {self._this_boot()}\n"
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, line.encode(), 0)
        finally:
            os.close(descriptor)
        return 0.0

    def _free(self, line: bytes) -> float:
        """Return when the next request may be made, 0 for at once."""
        number, _, boot = line.decode(errors="replace").strip().partition(" ")
        try:
            return float(number) if boot == self._this_boot() else 0.0
        except ValueError:
            return 0.0

    def _this_boot(self) -> str:
        if not self._boot:
            owner = parse(me())
            self._boot = owner.boot if owner else ""
        return self._boot
