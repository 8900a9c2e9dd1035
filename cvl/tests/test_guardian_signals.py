"""INT, TERM and HUP, each once, twice and thrice, in every phase of a run on a rented machine."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from cvl.testing.crashes import Bench, Outcome, Point

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
BEFORE = ("starting", "renting", "booting", "output")
"""Phases in which the first signal ends the run."""
AFTER = ("fetching", "releasing")
"""Phases of cleaning up, which only the third signal leaves."""
JOB = "echo hello; sleep 0.3; echo a >out"


def tried(folder: Path, phase: str, number: int, times: int) -> Outcome:
    with Bench(folder) as bench:
        return bench.tried(Point(), signals={phase: [number] * times}, job=JOB)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("phase", [*BEFORE, *AFTER])
def test_a_signal_is_answered_and_nothing_is_left(
    phase: str, number: signal.Signals, tmp_path: Path
) -> None:
    # what is ended while it boots boots for as long as that takes, on a busy computer too
    with Bench(tmp_path / "bench", boot_seconds=60 if phase == "booting" else 0.05) as bench:
        for times in (1, 2, 3):
            given = {phase: [number] * times}
            outcome = bench.tried(Point(), signals=given, job=JOB)
            left = times == 3 or phase in BEFORE
            assert outcome.status == (SIGNALS[number] if left else 0), outcome.notes
            assert not outcome.leaks
            if times < 3 and (phase, number) != ("output", signal.SIGHUP):
                assert outcome.counts["guardian"]["request"] == 0, "we clean up ourselves"
            # before the first request there is neither a guardian nor anything to guard
            assert not outcome.reaped or (phase, times) == ("starting", 3)
            said = {2: "once more leaves it as it is", 3: "`cvl attach"}
            if times in said and not (times == 2 and left and number == signal.SIGHUP):
                assert said[times] in outcome.notes


@pytest.mark.parametrize("number", SIGNALS)
def test_while_it_is_planned_nothing_is_noted(number: signal.Signals, tmp_path: Path) -> None:
    outcome = tried(tmp_path, "planning", number, 1)
    assert outcome.status != 0
    assert (outcome.leaks, outcome.reaped) == ((), False)


@pytest.mark.parametrize("detach", [False, True])
def test_hup_while_the_job_runs_leaves_it_to_the_guardian(tmp_path: Path, detach: bool) -> None:
    script = "trap 'echo b >late; exit 0' TERM; echo hello; echo a >out; sleep 1 & wait; echo c >c"
    with Bench(tmp_path) as bench:
        phase = "left" if detach else "output"
        point = Point(detach=detach)
        outcome = bench.tried(point, signals={phase: [signal.SIGHUP]}, job=script)
    assert (outcome.leaks, outcome.reaped) == ((), False)
    assert outcome.status == (0 if detach else 129)
    assert sorted(outcome.results) == (["c", "out"] if detach else ["late", "out"])


def test_a_storm_of_signals_is_answered_too(tmp_path: Path) -> None:
    storm = list(itertools.chain.from_iterable([number] * 2 for number in SIGNALS))
    with Bench(tmp_path, boot_seconds=60) as bench:
        outcome = bench.tried(Point(), signals={"booting": storm}, job=JOB)
    assert (outcome.leaks, outcome.reaped) == ((), False), outcome.notes
    assert outcome.status == 130, outcome.notes
