"""What a measurement is: samples by name, what they are compared to, and what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Sample = Mapping[str, float]
"""What one call of a measure has found: metric -> value, such as `s`, `cpu_s`, `mb`."""
Measure = Callable[[], Sample]
EVEN = 2


class Failed(Exception):
    """A measure could not be had; says why. It is reported and the others go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What was aimed at: `limit` for the ratio to the table's base, or for the median itself.

    `at_least`: more is better.
    """

    limit: float
    ratio: bool = True
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Return whether this value reaches the goal."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One metric of several measures, taken in the same rounds, beside one of them: the base."""

    title: str
    unit: str
    base: str
    samples: Mapping[str, Sequence[float]]
    goals: Mapping[str, Goal] = field(default_factory=dict)
    note: str = ""

    def ratios(self, name: str) -> list[float]:
        """Return this measure over the base, round by round; none where there is no base."""
        mine, theirs = self.samples[name], self.samples.get(self.base, ())
        return [a / b for a, b in zip(mine, theirs, strict=False) if b]

    def value(self, name: str, goal: Goal) -> float | None:
        """Return what is compared to the goal."""
        found = self.ratios(name) if goal.ratio else self.samples.get(name, ())
        return statistics.median(found) if found else None

    def missed(self) -> list[str]:
        """Return the names whose goal was not met."""
        return [
            name
            for name, goal in self.goals.items()
            if name in self.samples
            and (value := self.value(name, goal)) is not None
            and not goal.met(value)
        ]


@dataclass(slots=True, kw_only=True)
class Topic:
    """One question, and all that was found.

    `reasons` says, for names of measures that hold the key, why their goal cannot be met; only
    what was missed is shown. `measured` is when, and of which revision.
    """

    name: str
    title: str
    question: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    error: str = ""
    measured: str = ""
    seconds: float = 0.0

    def missed(self) -> list[tuple[Table, str]]:
        """Return each goal that was not met, by its table."""
        return [(table, name) for table in self.tables for name in table.missed()]


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """Return the first and third quartile; of fewer than four, the least and the most."""
    if len(samples) < EVEN * EVEN:
        return min(samples), max(samples)
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def as_json(topic: Topic) -> dict[str, Any]:
    """Return a topic as JSON holds it; `from_json` is the way back."""
    return asdict(topic)


def from_json(data: Mapping[str, Any]) -> Topic:
    """Return the topic that `as_json` wrote."""
    tables = [
        Table(**{**table, "goals": {name: Goal(**goal) for name, goal in table["goals"].items()}})
        for table in data["tables"]
    ]
    return Topic(**{**data, "tables": tables})
