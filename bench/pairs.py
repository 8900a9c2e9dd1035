"""Measures in turns, so that whatever else the machine does hits all of them alike.

Figures are medians over the rounds. What counts is the ratio to the base in the same rounds:
seconds differ from machine to machine and from minute to minute, ratios hold.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.values import Failed, Goal, Measure, Sample, Table

LEAST = 3
"""Rounds that are made though they take longer, unless another number is given."""
PATIENCE = 4.0
"""How many times longer: past that, one round has to do."""


@dataclass(slots=True)
class Found:
    """All samples, by measure and metric, and why some measures have none."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def table(
        self,
        title: str,
        metric: str,
        unit: str,
        base: str,
        goals: Mapping[str, Goal] | None = None,
        *,
        scale: float = 1.0,
        note: str = "",
    ) -> Table:
        """Return one metric of all measures that have it; `scale` turns it into `unit`."""
        samples = {
            name: [value * scale for value in metrics[metric]]
            for name, metrics in self.samples.items()
            if metric in metrics
        }
        return Table(
            title=title, unit=unit, base=base, samples=samples, goals=dict(goals or {}), note=note
        )


def in_turns(
    measures: Mapping[str, Measure],
    *,
    rounds: int,
    seconds: float,
    warm: bool = True,
    least: int = LEAST,
) -> Found:
    """Take each measure once a round, for at most `rounds` rounds or about `seconds`.

    Every round begins with another one. With `warm` each is called once before, for what is only
    done the first time. One that fails is left out from then on, and so are its samples.
    """
    found, left = Found(), dict(measures)
    if warm:
        for name in list(left):
            _take(name, left, found, keep=False)
    began = time.monotonic()
    for number in range(rounds):
        spent = time.monotonic() - began
        if spent > seconds and (number >= least or (number and spent > PATIENCE * seconds)):
            break
        names = list(left)
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            _take(name, left, found, keep=True)
    return found


def after(step: Callable[[], None], measure: Measure) -> Measure:
    """Return a measure that does `step` first, outside of its clock."""

    def take() -> Sample:
        step()
        return measure()

    return take


def _take(name: str, left: dict[str, Measure], found: Found, *, keep: bool) -> None:
    try:
        sample = left[name]()
    except Failed as why:
        print(f"bench: {name}: {why}", file=sys.stderr, flush=True)
        found.missing[name] = str(why)
        found.samples.pop(name, None)
        del left[name]
        return
    if keep:
        metrics = found.samples.setdefault(name, {})
        for metric, value in sample.items():
            metrics.setdefault(metric, []).append(value)
