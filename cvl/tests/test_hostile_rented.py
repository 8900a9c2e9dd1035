"""Rented machines whose host means no good: they are gone in time, whoever lives to see it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cvl.core.process import parse
from cvl.ledger import Ledger
from cvl.testing import hostile
from cvl.testing.cli_harness import Client, Desk, wait_for
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.lambda_cloud.real_hosts import RealHost
from cvl.testing.machine import possible

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(possible()), reason=possible()),
]
LAMBDA = ("-y", "--remote", "lambda", "--gpu-type", "gpu_1x_a10")
SHORT = ("--max-cost", "0.01")
"""Buys 48 s, the last 9.6 of which are for stopping and fetching."""
MOST_MEMORY = 64 * 1024
"""kB that a guardian may take, whatever comes."""
LATE = 60.0
"""Seconds after the deadline in its tag by which a machine is gone in every case."""
JOB = "echo ready; sleep 300"


@contextmanager
def quick_cloud() -> Iterator[LambdaCloud]:
    """Give a cloud without pauses, of real machines."""
    settings = Settings(
        request_interval=0,
        launch_interval=0,
        boot_seconds=0,
        terminate_seconds=0.1,
        hosts="machine",
    )
    with LambdaCloud(settings) as made:
        yield made


def desk_at(cloud: LambdaCloud, folder: Path) -> Desk:
    """Return a desk whose runs are there."""
    env = {
        **cloud.env,
        "LAMBDA_API_RPS": "1000",
        "LAMBDA_LAUNCH_INTERVAL": "0",
        "LAMBDA_SETTLE": "2",
    }
    return Desk(folder=folder, options=LAMBDA, env=env, left=lambda _run: ())


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    with quick_cloud() as made:
        yield made


@pytest.fixture
def desk(cloud: LambdaCloud, tmp_path: Path) -> Desk:
    return desk_at(cloud, tmp_path)


def turned(cloud: LambdaCloud, name: str, *verbs: str) -> float:
    """Make the host of the only machine misbehave; return its deadline, by its tag."""
    (machine,) = cloud.alive()
    host = machine.host
    assert isinstance(host, RealHost)
    assert host.machine
    hostile.mount(host.machine).turn(name, *verbs)
    return float(dict(machine.order.tags)["cvl-deadline"])


def late(cloud: LambdaCloud, due: float) -> float:
    """Wait until no machine is left; return how many seconds after its deadline that was."""
    wait_for(lambda: not cloud.alive(), max(due - time.time(), 0.0) + LATE + 30)
    return time.time() - due


@pytest.mark.parametrize("killed", [False, True], ids=["client lives", "client is killed"])
@pytest.mark.parametrize(
    "name", ["hang", "garbage-result", "garbage", "flood-stderr", "drip", "close-early"]
)
def test_a_machine_is_gone_in_time_whatever_its_host_does(
    desk: Desk, cloud: LambdaCloud, name: str, killed: bool, record_property: Callable[..., None]
) -> None:
    with desk.running(JOB, *SHORT) as client:
        client.shows(b"ready\n")
        due = turned(cloud, name)
        if killed:
            client.signal(signal.SIGKILL)
        seconds = late(cloud, due)
        wait_for(lambda: desk.ps()[0]["state"] == "ended", 60)  # else the guardian goes on
    record_property("seconds after the deadline", round(seconds, 1))
    assert seconds < LATE


FLOODS = {
    "flood-stderr": (),
    "flood-payload": (),
    "flood-answers": (),
    "huge-listing": ("changed",),
    "wide-listing": ("changed",),
    "pax-bomb": ("pack",),
    "fat-member": ("pack",),
}
"""What comes without end, in answer to which requests; all others are answered honestly."""


@pytest.mark.parametrize("name", FLOODS)
def test_the_guardian_stays_small_whatever_comes(
    desk: Desk, cloud: LambdaCloud, name: str, record_property: Callable[..., None]
) -> None:
    with desk.running(f"echo a >out; {JOB}", *SHORT) as client:
        client.shows(b"ready\n")
        due = turned(cloud, name, *FLOODS[name])
        guardian = guardian_of(desk)
        client.signal(signal.SIGKILL)
        most = 0
        while (now := peak(guardian)) is not None:
            most = max(most, now)
            assert time.time() < due + LATE
            time.sleep(0.05)
    record_property("kB", most)
    assert 0 < most < MOST_MEMORY
    assert not cloud.alive()


def peak(pid: int) -> int | None:
    """Return the most memory that a process has had resident, in kB; None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    rows = dict(line.split(":", 1) for line in status.splitlines())
    return int(rows["VmHWM"].split()[0]) if "VmHWM" in rows else None


def guardian_of(desk: Desk) -> int:
    """Return the process that guards the newest run."""
    (run, *_) = Ledger(desk.state / "ledger.db").runs(1)
    guardian = parse(run.guardian)
    assert guardian
    return guardian.pid


@pytest.mark.parametrize("name", ["hang", "garbage-result"])
def test_reap_ends_all_three_of_which_one_is_hostile(
    desk: Desk, cloud: LambdaCloud, name: str, record_property: Callable[..., None]
) -> None:
    """Clients and guardians are dead; one host gives nothing, or what nobody can read."""
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(desk.running(JOB, "--timeout", "5m"))
            client.shows(b"ready\n")
            forsake(desk, client)
        (first, *_others) = cloud.alive()
        assert isinstance(first.host, RealHost)
        assert first.host.machine
        hostile.mount(first.host.machine).turn(name)
        began = time.monotonic()
        done = desk.cvl("reap", "-y")
        record_property("seconds of reap", round(time.monotonic() - began, 1))
    assert (done.code, cloud.alive(), cloud.keys()) == (0, [], []), done.err
    assert "defect" not in done.err
    assert {row["state"].split()[0] for row in desk.ps()} == {"ended"}  # type: ignore[attr-defined]


def forsake(desk: Desk, client: Client) -> None:
    """Kill a client and its guardian, so that neither sees the other die."""
    guardian = guardian_of(desk)
    client.signal(signal.SIGSTOP)
    os.kill(guardian, signal.SIGKILL)
    client.signal(signal.SIGKILL)
