"""The billing meter: from passing health checks to the terminate that was heard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instance on the bill. Times are seconds of the cloud's monotonic clock.

    `seconds` is exact; `minutes` is what is billed: each one that was begun. `held` counts from
    the launch on, whether billed or not. A meter that still runs has `ended` None.
    """

    id: str
    name: str
    type: str
    cents_per_hour: int
    launched: float
    started: float | None
    ended: float | None
    seconds: float
    minutes: int
    held: float
    cost: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """All instances that there ever were, oldest first."""

    lines: tuple[Line, ...]

    @property
    def running(self) -> tuple[Line, ...]:
        """Those that are not ended: they cost money, or will."""
        return tuple(line for line in self.lines if line.ended is None)

    @property
    def seconds(self) -> float:
        return sum(line.seconds for line in self.lines)

    @property
    def cost(self) -> Decimal:
        """The total in dollars."""
        return sum((line.cost for line in self.lines), Decimal(0))

    def of(self, id_or_name: str) -> Line:
        """Return the newest line with that instance id or name. Raises KeyError."""
        for line in reversed(self.lines):
            if id_or_name in (line.id, line.name):
                return line
        raise KeyError(id_or_name)


def minutes(seconds: float) -> int:
    """Return the minutes that are billed for that long: each one begun counts."""
    return math.ceil(seconds / 60)


def cost(cents_per_hour: int, billed: int) -> Decimal:
    """Return the dollars for `billed` minutes, to 28 digits."""
    return Decimal(cents_per_hour) * billed / 6000
