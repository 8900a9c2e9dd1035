"""A rented machine whose results have no way here: kept for a while, and then ended as ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.ledger import Ledger
from cvl.testing.cli_harness import Desk, Done, wait_for
from cvl.testing.lambda_cloud import LambdaCloud
from cvl.testing.machine import possible
from cvl.tests.test_fetching import disk
from cvl.tests.test_hostile_rented import desk_at, guardian_of, quick_cloud

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(possible()), reason=possible()),
]
BIG = 3_000_000
JOB = f"head -c {BIG} /dev/zero >big; exit 3"


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    with quick_cloud() as made:
        yield made


@pytest.fixture
def desk(cloud: LambdaCloud, tmp_path: Path) -> Desk:
    return desk_at(cloud, tmp_path / "desk")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "small") as found:
        yield found


def test_a_full_disk_here_keeps_the_machine_until_the_results_are_here(
    desk: Desk, cloud: LambdaCloud, small: Path, tmp_path: Path
) -> None:
    done = desk.sh(JOB, "-o", str(small / "r"))
    assert done.code == 125
    (run,) = desk.runs()
    assert "No space left on device" in done.err
    assert re.search(r"stays rented at \$[\d.]+/h for 30m00s, for its results", done.err)
    assert f"`cvl stop {run}` ends the rent" in done.err
    assert "does not answer" not in done.err
    assert len(cloud.alive()) == 1
    got = desk.cvl("fetch", run, "-o", str(tmp_path / "large"))
    assert got.code == 0, got.err
    assert (tmp_path / "large/big").stat().st_size == BIG
    end = desk.cvl("stop", run)
    assert end.code == 0, end.err
    assert not cloud.alive()
    wait_for(lambda: desk.ps()[0]["state"] == "ended")


def test_stop_ends_the_rent_though_nothing_was_fetched(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    assert desk.sh(JOB, "-o", str(small / "r")).code == 125
    (run,) = desk.runs()
    assert len(cloud.alive()) == 1
    end = desk.cvl("stop", run)
    assert not cloud.alive(), end.err
    assert "No space left on device" in end.err


def test_whoever_makes_room_and_attaches_gets_all(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    filler = small / "filler"
    filler.write_bytes(bytes(900_000))
    done = desk.sh("head -c 600000 /dev/zero >big; exit 3", "-o", str(small / "r"))
    assert done.code == 125
    filler.unlink()
    (run,) = desk.runs()
    again = desk.cvl("attach", run)
    assert again.code == 3, again.err
    assert (small / "r/big").stat().st_size == 600_000
    assert not cloud.alive()


def test_nobody_comes_and_the_guardian_ends_it(desk: Desk, cloud: LambdaCloud, small: Path) -> None:
    """At the limit that was said, not at the machine's own deadline."""
    call = f"""
from cvl.providers.lambda_cloud.runner import LambdaLabsRunner
LambdaLabsRunner().run("one", "sh", [{JOB!r}], gpu_type="gpu_1x_a10", fetch_limit=8.0,
                       output_dir={str(small / "r")!r}, on_event=lambda *said: print(*said))
"""
    words = [sys.executable, "-c", call]
    done = subprocess.run(
        words, cwd=desk.repo, env=desk.environment, capture_output=True, text=True, check=False
    )
    assert "for 8" in done.stdout.partition("stays rented")[2], done.stdout + done.stderr
    ended = time.monotonic()
    wait_for(lambda: not cloud.alive(), 90)
    assert time.monotonic() - ended > 4
    wait_for(lambda: desk.ps()[0]["state"] == "ended", 60)


def test_the_deadline_wins(desk: Desk, cloud: LambdaCloud, small: Path) -> None:
    """It is not moved by as much as a second."""
    with desk.running(f"echo ready; sleep 2; {JOB}", "--max-cost", "0.01", "-o", str(small)) as own:
        own.shows(b"ready")
        (machine,) = cloud.alive()
        due = float(dict(machine.order.tags)["cvl-deadline"])
        own.ended()
    wait_for(lambda: not cloud.alive(), max(due - time.time(), 0) + 60)
    assert time.time() < due + 30


# --- no client is left when it turns out that there is no room


SMALL = "head -c 600000 /dev/zero >big; exit 3"


def held_without_client(desk: Desk, into: Path, job: str = SMALL, *more: str) -> str:
    """Kill the client of a run whose results have no room; return the run once it is kept."""
    with desk.running(
        f"echo ready; trap '{job}' TERM; sleep 300 & wait", *more, "-o", str(into)
    ) as it:
        it.shows(b"ready")
        it.signal(signal.SIGKILL)
        it.process.wait(10)
    (run,) = desk.runs()
    wait_for(lambda: "stays rented" in log_of(desk), 90)
    wait_for(lambda: Ledger(desk.state / "ledger.db").run(run).owner == "")
    return run


def log_of(desk: Desk) -> str:
    (log,) = (desk.state / "runs").rglob("guardian.log")
    return log.read_text()


def test_a_guardian_that_has_no_room_keeps_the_machine_as_a_client_does(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    (filler := small / "filler").write_bytes(bytes(900_000))
    run = held_without_client(desk, small / "r")
    assert len(cloud.alive()) == 1
    assert desk.cvl("reap", "-y").out == b"nothing to reap\n", "another guardian looks after it"
    filler.unlink()
    again = desk.cvl("attach", run)
    assert (small / "r/big").stat().st_size == 600_000, again.err
    assert again.code == 143, again.err  # it was stopped when its client died
    assert "is kept for its results, until its guardian brings it" in again.err
    assert not cloud.alive()


def test_a_detached_run_without_room_is_kept_as_well(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    done = desk.sh(JOB, "-d", "--accept-unguarded", "-o", str(small / "r"))
    assert done.code == 0, done.err
    wait_for(lambda: "stays rented" in log_of(desk), 90)
    assert len(cloud.alive()) == 1
    end = desk.cvl("stop", done.out.decode().strip())
    assert not cloud.alive(), end.err


def test_what_a_guardian_keeps_is_gone_by_its_deadline(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    (small / "filler").write_bytes(bytes(900_000))
    held_without_client(desk, small / "r", SMALL, "--max-cost", "0.02")
    (machine,) = cloud.alive()
    due = float(dict(machine.order.tags)["cvl-deadline"])
    wait_for(lambda: not cloud.alive(), max(due - time.time(), 0) + 60)
    assert time.time() < due + 30
    wait_for(lambda: desk.ps()[0]["state"] == "ended", 60)


def test_a_reap_without_room_keeps_it_too_and_ends_it_once_there_is_some(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    """Both the client and whoever kept the machine are dead: it is nobody's, but of use."""
    (filler := small / "filler").write_bytes(bytes(900_000))
    held_without_client(desk, small / "r")
    deadline = noted(desk)
    os.kill(guardian_of(desk), signal.SIGKILL)
    wait_for(lambda: desk.cvl("reap", "--dry-run").out.startswith(b"lambda run"))
    kept = desk.cvl("reap", "-y")
    assert kept.code == 125
    assert "No space left on device" in kept.err
    assert "stays rented" in kept.err
    assert len(cloud.alive()) == 1
    assert noted(desk) <= deadline + 1, "it is not put off"
    assert desk.cvl("reap", "-y").out == b"nothing to reap\n"
    os.kill(guardian_of(desk), signal.SIGKILL)
    filler.unlink()
    wait_for(lambda: desk.cvl("reap", "--dry-run").out.startswith(b"lambda run"))
    end = desk.cvl("reap", "-y")
    assert end.code == 0, end.err
    assert (small / "r/big").stat().st_size == 600_000
    assert not cloud.alive()


def noted(desk: Desk) -> float:
    """Return until when the newest run lasts, by the ledger."""
    (run, *_) = Ledger(desk.state / "ledger.db").runs(1)
    assert run.deadline is not None
    return run.deadline


# --- who comes back after everything here was killed


WAITS = "trap '' TERM; echo ready; sleep 300"
SOON = 5.0
"""Seconds: a second until it says something, and what a busy machine needs to start Python."""


def says_soon(desk: Desk, *words: str) -> Done:
    """Run a command that has to wait; see that it says how the run stands, and soon."""
    with desk.start(*words) as client:
        began = time.monotonic()
        wait_for(lambda: " was " in client.err or client.process.poll() is not None)
        assert time.monotonic() - began < SOON, client.err
        return client.ended()


@pytest.mark.parametrize("command", ["attach", "logs", "stop"])
def test_a_run_whose_client_was_killed_is_not_waited_for_in_silence(
    command: str, desk: Desk, cloud: LambdaCloud
) -> None:
    with desk.running(WAITS) as client:
        client.shows(b"ready")
        client.signal(signal.SIGKILL)
        client.process.wait(10)
    (run,) = desk.runs()
    more = ("-f",) if command == "logs" else ()
    done = says_soon(desk, command, *more, run)
    if command == "attach":
        assert done.code == 143, done.err  # as the guardian has noted it, not "lost"
        assert "its guardian brings it to its end" in done.err
    wait_for(lambda: not cloud.alive(), 60)


@pytest.mark.parametrize("command", ["attach", "logs", "stop", "fetch"])
def test_nor_is_one_that_nobody_drives_any_more(
    command: str, desk: Desk, cloud: LambdaCloud
) -> None:
    with desk.running("trap 'exit 9' TERM; echo ready; sleep 6 & wait") as client:
        client.shows(b"ready")
        (run,) = desk.runs()
        os.kill(guardian_of(desk), signal.SIGKILL)
        client.signal(signal.SIGKILL)
        client.process.wait(10)
    more = ("-f",) if command == "logs" else ()
    with desk.start(command, *more, run) as client:
        began = time.monotonic()
        wait_for(lambda: " was " in client.err or client.process.poll() is not None)
        assert time.monotonic() - began < SOON, client.err
        client.ended()
    assert desk.cvl("reap", "-y").code == 0
    wait_for(lambda: not cloud.alive(), 60)
