"""A provider's own clock, by the HTTP `Date` of what it answers (RFC 9110, 6.6.1).

Deadlines that others judge are told by it: ours may be wrong, and jump.
"""

from __future__ import annotations

from collections.abc import Mapping

from cvl.core import replies
from cvl.core.scope import Clock, SystemClock


class ServerClock:
    """What time it is for whoever answers us; between two answers it goes on by our own clock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._ahead: float | None = None

    def heard(self, headers: Mapping[str, str]) -> None:
        """Take the moment that an answer tells; without one, the next may have it."""
        date = headers.get("Date") or headers.get("date")
        if (now := replies.http_date(date)) is not None:
            self._ahead = now - self._clock.monotonic()

    def told(self) -> float | None:
        """Return UTC epoch seconds as it tells them, None while it never has."""
        return None if self._ahead is None else self._clock.monotonic() + self._ahead

    def now(self) -> float:
        """Return UTC epoch seconds, by our own clock while it never has told any."""
        date = self.told()
        return self._clock.time() if date is None else date
