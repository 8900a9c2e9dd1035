"""cvl dies at every point of its life, and no machine, key or open line outlives it.

After the guardian, or else one `cvl reap`: nothing alive at the cloud, the ledger closed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from cvl.testing.crashes import Bench, Kill, Outcome, Point, hostile, mixed, points
from cvl.testing.lambda_cloud import FAULTS

SHARES = 4
"""Parts that the points are dealt into: tests run side by side."""
AT_ONCE = 2
"""Trials at once in each: most of a trial is waiting."""
MIXED = 100
"""Points drawn by lot in each part."""
BAD = 20
"""Points with a bad host or ledger in each part."""
HAND_OVER = 10
"""The write by which a detached run becomes the guardian's."""
COUNTS = {
    "client": {"request": 20, "write": 15},
    "guardian": {"request": 8, "write": 8},
}
"""Requests and writes of one run: what `test_these_are_all_the_points` measures."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path / "bench") as bench:
        yield bench


def tried(trials: Sequence[Point], folder: Path, **request: object) -> list[Outcome]:
    """Go through all these points, some at once; return what they came to."""
    with ExitStack() as stack:
        benches = [stack.enter_context(Bench(folder / str(i))) for i in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = pool.map(
                lambda i: [benches[i].tried(point, **request) for point in trials[i::AT_ONCE]],
                range(AT_ONCE),
            )
            return [outcome for part in parts for outcome in part]


def leaks(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{each.point}: {'; '.join(each.leaks)}" for each in outcomes if each.leaks]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", range(SHARES))
def test_nothing_is_left_wherever_the_client_is_killed(share: int, tmp_path: Path) -> None:
    outcomes = tried(points(COUNTS["client"])[share::SHARES], tmp_path)
    assert not leaks(outcomes)
    killed = [each for each in outcomes if each.status == -signal.SIGKILL]
    assert len(killed) > len(outcomes) * 0.6, "points that no run reaches prove nothing"
    assert not [str(each.point) for each in killed if each.reaped and each.guarded]
    waits = sorted(each.to_terminate for each in outcomes if each.to_terminate is not None)
    assert waits[len(waits) // 2] < 2
    assert waits[-1] < 10, "on a busy computer"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", range(SHARES))
def test_nothing_is_left_whatever_else_goes_wrong(share: int, tmp_path: Path) -> None:
    """Kills of the client, of both, at any time, while the cloud misbehaves in every known way."""
    outcomes = tried(mixed(COUNTS, MIXED, seed=1000 + share), tmp_path)
    assert not leaks(outcomes)
    assert len({each.point.fault for each in outcomes}) > len(FAULTS) / 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", range(SHARES))
def test_no_host_and_no_damage_keeps_a_machine(share: int, tmp_path: Path) -> None:
    """The machine turns hostile, bits of the ledger flip, the client is mostly killed as well."""
    outcomes = tried(hostile(BAD, seed=2000 + share), tmp_path, job="sleep 60")
    assert not leaks(outcomes)
    assert sum(each.status == -signal.SIGALRM for each in outcomes) > BAD / 3


@pytest.mark.parametrize("name", ["hang", "deaf", "drip"])
def test_a_machine_whose_login_hangs_is_given_up_at_the_boot_limit(name: str, bench: Bench) -> None:
    outcome = bench.tried(Point(host=name, phase="starting"))
    assert outcome.status == 125, outcome.notes
    assert not outcome.leaks
    assert "did not come up" in outcome.notes


def test_these_are_all_the_points(bench: Bench) -> None:
    """The matrix covers a whole run: to its last request and its last write."""
    outcome = bench.tried(Point())
    assert (outcome.status, outcome.leaks) == (0, ())
    assert outcome.counts["client"]["write"] == COUNTS["client"]["write"]
    assert outcome.counts["client"]["request"] >= 10
    assert outcome.billed < 3
    fetched = next(line for line in outcome.notes.splitlines() if " fetched: " in line)
    ended = bench.cloud.bill().lines[0].ended
    assert ended is not None
    assert float(fetched.split()[0]) <= ended, "first the results, then the machine"
    assert outcome.counts["guardian"]["request"] == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_left_by_a_fault_alone(tmp_path: Path) -> None:
    outcomes = tried([Point(fault=name) for name in sorted(FAULTS)], tmp_path)
    assert not leaks(outcomes)


@pytest.mark.parametrize("fault", ["boot-unhealthy", "boot-for-ever", "launch-quota"])
def test_who_fails_to_launch_leaves_nothing_to_the_guardian(bench: Bench, fault: str) -> None:
    outcome = bench.tried(Point(fault=fault))
    assert (outcome.status, outcome.leaks) == (125, ())
    assert outcome.counts["guardian"]["request"] == 0


def test_killed_before_it_was_told_the_guardian_lets_a_detached_job_finish(bench: Bench) -> None:
    """The job runs, and cvl dies in the very step in which it would hand the run over."""
    kill = Kill(at="write", n=HAND_OVER, when="before")
    job = "trap 'echo stopped >late; exit 1' TERM; sleep 1 & wait; echo a >out"
    outcome = bench.tried(Point(client=kill, detach=True), job=job)
    assert (outcome.status, outcome.leaks, outcome.reaped) == (-signal.SIGKILL, (), False)
    assert outcome.results == ("out",)


def test_a_guardian_that_is_killed_has_a_successor(bench: Bench) -> None:
    """First it dies, then its client: nothing has to be left to `cvl reap`."""
    kills = Point(client=Kill(at="time", n=2.5), guardian=Kill(at="time", n=0.3))
    outcome = bench.tried(kills, job="echo a >out; sleep 60 & wait")
    assert (outcome.status, outcome.leaks, outcome.reaped) == (-signal.SIGALRM, (), False)
    assert "another takes its place" in outcome.notes
    assert outcome.results == ("out",)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_left_where_the_machine_is_reached_by_a_real_ssh(tmp_path: Path) -> None:
    """A share of the matrix; `make chaos` has the rest."""
    trials = points(COUNTS["client"])[::9] + mixed(COUNTS, 6, seed=5)
    with Bench(tmp_path, hosts="auto") as bench:
        outcomes = [bench.tried(point, timeout=60.0) for point in trials]
    assert not leaks(outcomes)
    assert sum(each.status == -signal.SIGKILL for each in outcomes) > len(trials) / 2


def test_detached_the_guardian_follows_to_the_end(bench: Bench) -> None:
    outcome = bench.tried(Point(detach=True), job="sleep 0.5; echo a >out; exit 3")
    assert (outcome.status, outcome.leaks, outcome.reaped) == (0, (), False)


def test_a_kill_while_the_job_runs_loses_no_result(bench: Bench) -> None:
    """The guardian stops the job, and fetches before it terminates."""
    script = "echo a >out; trap 'echo b >late; exit 0' TERM; while :; do sleep 0.05; done"
    outcome = bench.tried(Point(client=Kill(at="time", n=1.5)), job=script)
    assert (outcome.status, outcome.leaks, outcome.reaped) == (-signal.SIGALRM, (), False)
    assert sorted(outcome.results) == ["late", "out"]
