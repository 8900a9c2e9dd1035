"""Small stand-ins for time, used all over the suite."""

from __future__ import annotations

from cvl.core.scope import Bell


class FakeClock:
    """A clock that jumps over every wait: no test waits for real time."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.waited: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, bell: Bell, seconds: float) -> bool:
        rung = bell.wait(0)
        if not rung:
            self.waited.append(seconds)
            self.now += seconds
        return rung
