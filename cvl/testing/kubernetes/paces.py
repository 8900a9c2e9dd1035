"""How long a job waits before it makes another pod."""

from __future__ import annotations

from cvl.testing.clock import Clock

FAILED, FAILED_LIMIT = 10.0, 600.0
"""Seconds before a failed pod is replaced; doubled with each."""

REFUSED, REFUSED_LIMIT = 1.0, 60.0
"""Seconds before the server is asked again for a pod that it refused; doubled each time."""


class Paces:
    """The paces of all jobs, by their uid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}
        self._refusals: dict[str, tuple[int, float]] = {}

    def ready(self, uid: str, failed: int) -> bool:
        """Return whether a pod may be made now; `failed` is how many have failed by now."""
        now = self._clock.monotonic()
        count, until = self._failures.get(uid, (0, 0.0))
        if count != failed:
            until = now + min(FAILED * 2.0 ** (failed - 1), FAILED_LIMIT)
            self._failures[uid] = (failed, until)
        return now >= until and now >= self._refusals.get(uid, (0, 0.0))[1]

    def refused(self, uid: str) -> None:
        """Note that the server has refused a pod."""
        count, _ = self._refusals.get(uid, (0, 0.0))
        rest = min(REFUSED * 2.0**count, REFUSED_LIMIT)
        self._refusals[uid] = (count + 1, self._clock.monotonic() + rest)

    def taken(self, uid: str) -> None:
        """Note that the server has taken a pod."""
        self._refusals.pop(uid, None)
