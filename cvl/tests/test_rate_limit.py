"""One request an interval, whoever makes it: across processes, boots, and hurries."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvl.core.scope import Cancelled, Scope
from cvl.core.spec import Cause
from cvl.rental.rate_limit import Pace
from cvl.tests.fakes import FakeClock


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))


def turn(pace: Pace) -> float:
    taken = pace.wait()
    assert taken is not None
    return taken


def test_one_an_interval_and_the_first_at_once() -> None:
    clock = FakeClock()
    paces = [Pace("limit", 12.0, clock) for _ in range(2)]  # as two processes
    times = []
    for pace in paces * 3:
        times.append(turn(pace))
        pace.arrived(times[-1])
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert times[0] == FakeClock().now
    assert min(gaps) >= 12
    assert max(gaps) < 14


def test_without_a_limit_nothing_is_waited_for(tmp_path: Path) -> None:
    clock = FakeClock()
    for _ in range(3):
        Pace("limit", 0.0, clock).wait()
    assert clock.waited == []
    assert not (tmp_path / "pace").exists()


@pytest.mark.parametrize(
    "left", ["99999.0 another-boot", "1700000900.0", "rubbish \xff", "nan x", ""]
)
def test_what_another_boot_or_chance_has_left_is_not_waited_for(tmp_path: Path, left: str) -> None:
    """A machine that was up for longer before, or another one with the same home."""
    (tmp_path / "pace").mkdir()
    (tmp_path / "pace" / "limit").write_bytes(left.encode("latin-1"))
    clock = FakeClock(10.0)
    first = Pace("limit", 1.0, clock)
    first.arrived(first.wait())
    Pace("limit", 1.0, clock).wait()
    assert 1.0 <= clock.now - 10.0 < 1.2


@pytest.mark.parametrize("late", [0.0, 0.3, 5.0])
def test_the_interval_begins_when_a_request_has_arrived(late: float) -> None:
    """However long it took on the way; one whose process died is not waited for much longer."""
    clock = FakeClock()
    first, second = Pace("limit", 1.0, clock), Pace("limit", 1.0, clock)
    taken = turn(first)
    clock.now += late
    arrived = clock.now
    assert first.missed(taken) == (late == 5.0)
    if late != 5.0:
        first.arrived(taken)
    second.wait()
    assert clock.now - arrived >= (1.0 if late != 5.0 else 0.0)
    assert clock.now - arrived < 1.3


def test_who_hears_late_does_not_take_another_s_slot_away() -> None:
    clock = FakeClock()
    first, second, third = (Pace("limit", 1.0, clock) for _ in range(3))
    taken = turn(first)
    clock.now += 3.0
    second.wait()
    first.arrived(taken)
    began = clock.now
    third.wait()
    assert clock.now - began >= 1.0


def test_who_waits_can_be_called_off() -> None:
    pace = Pace("limit", 60.0)
    pace.wait()
    scope = Scope()
    scope.cancel(Cause.INTERRUPTED)
    with pytest.raises(Cancelled):
        pace.wait(scope)


def test_what_is_urgent_goes_before_what_has_waited() -> None:
    """Twenty look whether they have booted; one has to terminate."""
    interval, done = 0.3, threading.Event()
    Pace("limit", interval).wait()

    def look() -> None:
        while not done.is_set():
            pace = Pace("limit", interval)
            pace.arrived(pace.wait())

    lookers = [threading.Thread(target=look, daemon=True) for _ in range(20)]
    for each in lookers:
        each.start()
    time.sleep(interval / 2)
    waits = []
    for _ in range(5):
        began, pace = time.monotonic(), Pace("limit", interval)
        pace.arrived(pace.wait(urgent=True))
        waits.append(time.monotonic() - began)
    done.set()
    assert sorted(waits)[2] < interval * 3, waits


PROCESS = """
import sys, time
from cvl.rental.rate_limit import Pace
for _ in range(5):
    pace = Pace("limit", 0.1)
    pace.arrived(pace.wait())
    print(time.monotonic(), flush=True)
"""


def test_processes_keep_to_it_together() -> None:
    command = [sys.executable, "-c", PROCESS]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    times = sorted(float(line) for each in running for line in each.communicate()[0].split())
    assert len(times) == 15
    assert times[-1] - times[0] >= 14 * 0.1 * 0.9


def test_a_lock_that_is_never_let_go_stops_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it may be stopped for good; what ends a rent is sent all the same."""
    import fcntl

    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("cvl.rental.rate_limit.LOCK_LIMIT", 0.05)
    pace = Pace("stuck", 0.01)
    pace.arrived(pace.wait())
    with (tmp_path / "pace" / "stuck").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert pace.wait() is not None
        assert pace.wait() is not None
