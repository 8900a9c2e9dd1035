"""The API's rate limits."""

from __future__ import annotations

import threading

from cvl.testing.clock import Clock

SLACK = 0.05
"""The share of an interval that the network's jitter may take off it."""


class Pace:
    """Lets one through per `interval` seconds; 0 is no limit. Who is refused does not count."""

    def __init__(self, interval: float, clock: Clock) -> None:
        self._interval = interval * (1 - SLACK)
        self._clock = clock
        self._lock = threading.Lock()
        self._last: float | None = None

    def admits(self) -> bool:
        """Return whether one more may pass now, and count it if so."""
        with self._lock:
            now = self._clock.monotonic()
            if self._last is not None and now - self._last < self._interval:
                return False
            self._last = now
            return True
