"""Times commands in turns, so that what else the machine does hits all of them alike.

Figures are medians over the rounds; what counts is the ratio to the base in the same rounds.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

Measure = Callable[[], float]


def first_byte(argv: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Return the seconds from the start of a command to its first byte on stdout."""
    began = time.perf_counter()
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            process.wait()
            assert process.stderr is not None
            raise SystemExit(f"{' '.join(argv)}: {process.stderr.read().decode()}")
        seconds = time.perf_counter() - began
        process.stdout.read()
    return seconds


def whole(argv: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Return the seconds that a command takes in all."""
    began = time.perf_counter()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env, check=True)
    return time.perf_counter() - began


def in_turns(measures: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each measure, in `rounds` rounds over all of them."""
    for measure in measures.values():
        measure()  # once for what is only done the first time
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def table(found: Mapping[str, Sequence[float]], base: str, goals: Mapping[str, float]) -> str:
    """Return a table of medians and of ratios to `base`, round by round, beside the goals."""
    rows = [f"{'':28}{'median ms':>11}{'x ' + base:>20}{'goal':>7}"]
    for name, seconds in found.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds, found[base], strict=True)]
        low, mid, high = min(ratios), statistics.median(ratios), max(ratios)
        goal = f"{goals[name]:.2f}" if name in goals else ""
        spread = f"{mid:.2f} ({low:.2f}-{high:.2f})"
        rows.append(f"{name:28}{statistics.median(seconds) * 1000:11.1f}{spread:>20}{goal:>7}")
    return "\n".join(rows)
