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

from cvl.testing.desk import Desk, Done, wait_for
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.machine import possible
from cvl.tests.test_fetching import disk
from cvl.tests.test_hostile_rented import LAMBDA, guardian_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(possible()), reason=possible()),
]
BIG = 3_000_000
JOB = f"head -c {BIG} /dev/zero >big; exit 3"


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    settings = Settings(
        request_interval=0,
        launch_interval=0,
        boot_seconds=0,
        terminate_seconds=0.1,
        hosts="machine",
    )
    with LambdaCloud(settings) as made:
        yield made


@pytest.fixture
def desk(cloud: LambdaCloud, tmp_path: Path) -> Desk:
    env = {
        **cloud.env,
        "LAMBDA_API_RPS": "1000",
        "LAMBDA_LAUNCH_INTERVAL": "0",
        "LAMBDA_SETTLE": "2",
    }
    return Desk(folder=tmp_path / "desk", options=LAMBDA, env=env, left=lambda _run: ())


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
from cvl.runners.lambda_labs import LambdaLabsRunner
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


def test_a_client_that_is_killed_while_it_is_full_leaves_nothing(
    desk: Desk, cloud: LambdaCloud, small: Path
) -> None:
    with desk.running(f"echo ready; sleep 1; {JOB}", "-o", str(small / "r")) as client:
        client.shows(b"ready")
        client.signal(signal.SIGKILL)
        client.ended()
    wait_for(lambda: not cloud.alive(), 90)


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
