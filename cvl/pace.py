"""Keeps to a provider's rate limit, across all cvl processes of this user."""

from __future__ import annotations

import fcntl
import os

from cvl.paths import private, state_dir
from cvl.scope import Bell, Clock, SystemClock


class Pace:
    """One request every `interval` seconds, whoever of us makes it.

    The slots are kept in a file under a lock, in seconds of the system's monotonic clock, which
    all processes of one boot share.
    """

    def __init__(self, name: str, interval: float, clock: Clock | None = None) -> None:
        """`name` is the limit's own: one file of our state folder."""
        self._name, self._interval = name, interval
        self._clock = clock or SystemClock()

    def wait(self) -> None:
        """Return when it is our turn."""
        if self._interval > 0:
            self._clock.wait(Bell(), self._slot() - self._clock.monotonic())

    def _slot(self) -> float:
        """Take the next free slot and return its time."""
        path = private(state_dir() / "pace") / self._name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            now = self._clock.monotonic()
            slot = max(now, _number(os.read(descriptor, 64)))
            if slot - now > self._interval * 1000:
                slot = now  # of another boot
            os.pwrite(descriptor, f"{slot + self._interval:<30.6f}".encode(), 0)
        finally:
            os.close(descriptor)
        return slot


def _number(data: bytes) -> float:
    try:
        return float(data)
    except ValueError:
        return 0.0
