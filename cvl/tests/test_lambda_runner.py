"""`cvl run --remote lambda` as a process, on machines with a real sshd, and killed for real."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cvl.testing import conformance, hostile
from cvl.testing.cli_harness import Client, Desk, wait_for
from cvl.testing.lambda_cloud import FAULTS, LambdaCloud, Moment, Settings
from cvl.testing.lambda_cloud.api import Entry
from cvl.testing.lambda_cloud.real_hosts import RealHost
from cvl.testing.machine import possible

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(possible()), reason=possible()),
]
LAMBDA = ("-y", "--remote", "lambda", "--gpu-type", "gpu_1x_a10", "--timeout", "5m")
JOB = 'echo ready; trap "echo b >late; exit 0" TERM; echo a >out; sleep 60 & wait'


@pytest.fixture(scope="module")
def rental() -> Iterator[LambdaCloud]:
    settings = Settings(
        request_interval=0, launch_interval=0, boot_seconds=0.5, hosts="machine", hang_seconds=5
    )
    with LambdaCloud(settings) as cloud:
        yield cloud


@pytest.fixture
def cloud(rental: LambdaCloud) -> Iterator[LambdaCloud]:
    rental.reset()
    yield rental
    assert not rental.violations


@pytest.fixture
def desk(cloud: LambdaCloud, tmp_path: Path) -> Desk:
    env = {
        **cloud.env,
        "LAMBDA_API_RPS": "1000",
        "LAMBDA_LAUNCH_INTERVAL": "0",
        "LAMBDA_SETTLE": "2",
        "LAMBDA_READ_LIMIT": "1",
    }
    return Desk(folder=tmp_path, options=LAMBDA, env=env, left=lambda _run: ())


def state(desk: Desk) -> str:
    return str(desk.ps()[0]["state"])


def all_over(desk: Desk, cloud: LambdaCloud, limit: float = 40.0) -> None:
    """Wait until no machine, no key and no open line is left."""
    wait_for(lambda: not cloud.alive() and not cloud.keys(), limit)
    wait_for(lambda: state(desk) == "ended", limit)


def test_rent_run_fetch_terminate(desk: Desk, cloud: LambdaCloud) -> None:
    done = desk.sh('echo hello; echo a >"$CVL_WORK_DIR/a"; exit 3', "--json")
    assert (done.code, done.out) == (3, b"hello\n")
    assert desk.result("a") == b"a\n"
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")
    text = json.dumps(desk.ps()) + done.err + log_of(desk)
    assert cloud.key not in text
    assert cloud.key.encode() not in (desk.state / "ledger.db").read_bytes()


def test_little_is_billed_beyond_the_job(desk: Desk, cloud: LambdaCloud) -> None:
    """At the API's real pace: boot seen, SSH, start, fetch and terminate take 3 s at most."""
    env = {"LAMBDA_API_RPS": "1"}
    extra = []
    for _ in range(3):
        done = desk.sh("sleep 1; echo a >out", env=env)
        assert done.code == 0, done.err
        extra.append(cloud.bill().lines[-1].seconds - 1)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)  # then all of it takes longer
    assert sorted(extra)[1] <= 3 * max(1.0, busy), extra


def test_kill_9_while_the_job_runs(desk: Desk, cloud: LambdaCloud) -> None:
    with desk.running(JOB) as client:
        client.shows(b"ready")
        client.signal(signal.SIGKILL)
        client.process.wait()
        died = time.monotonic()
        all_over(desk, cloud)
    ended = cloud.bill().lines[0].ended
    assert ended is not None
    assert ended - died < 5
    assert (desk.result("out"), desk.result("late")) == (b"a\n", b"b\n")


def test_kill_9_of_an_attach_leaves_the_run_to_its_guardian(desk: Desk, cloud: LambdaCloud) -> None:
    conformance.killed_attach(replace(desk, options=(*desk.options, "--accept-unguarded")))
    all_over(desk, cloud)


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("moment", [Moment.RECEIVED, Moment.DONE, Moment.ANSWERED])
def test_kill_9_in_the_middle_of_every_request(
    desk: Desk, cloud: LambdaCloud, n: int, moment: Moment
) -> None:
    """The cloud goes on with a request whose client died; nothing is left of it in the end."""
    victim: list[Client] = []

    def kill(entry: Entry, now: Moment) -> None:
        if (entry.number, now) == (n, moment):
            wait_for(lambda: victim)
            os.kill(victim[0].process.pid, signal.SIGKILL)

    cloud.on_request(kill)
    with desk.start("run", *desk.options, "one", "sh", JOB.replace("60", "3")) as client:
        victim.append(client)
        client.process.wait(60)
    if desk.ps():
        for _ in range(2):
            try:
                all_over(desk, cloud, 20)
                break
            except AssertionError:
                assert desk.cvl("reap", "-y").code == 0
    assert (cloud.alive(), cloud.keys()) == ([], [])
    assert not desk.ps() or state(desk) == "ended"


def test_detached_the_guardian_fetches_and_terminates(desk: Desk, cloud: LambdaCloud) -> None:
    done = desk.sh("sleep 2; echo a >out; exit 4", "-d", "--accept-unguarded")
    run = done.out.decode().strip()
    assert (done.code, state(desk)) == (0, "running")
    assert desk.cvl("attach", run).code == 4, "watches: the guardian drives"
    all_over(desk, cloud)
    assert desk.result("out") == b"a\n"
    assert desk.ps()[0]["exit_code"] == 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("boot-unhealthy", "did not come up: it is unhealthy"),
        ("launch-no-capacity", "Lambda: "),
        ("launch-quota", "Lambda: "),
    ],
)
def test_what_never_comes_up_is_one_clear_error(
    desk: Desk, cloud: LambdaCloud, fault: str, said: str
) -> None:
    cloud.inject(replace(FAULTS[fault], times=0))
    done = desk.sh("echo never")
    assert (done.code, done.out) == (125, b"")
    assert said in done.err
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")


def test_where_there_is_none_left_it_is_rented_in_another_region(
    desk: Desk, cloud: LambdaCloud
) -> None:
    cloud.inject(FAULTS["launch-no-capacity"])
    done = desk.sh("echo hello")
    assert (done.code, done.out) == (0, b"hello\n"), done.err
    launches = [each.body for each in cloud.log if each.operation == "launchInstance"]
    assert [each["region_name"] for each in launches] == ["us-west-1", "us-east-1"]  # type: ignore[index]
    assert desk.ps()[0]["where"] == "gpu_1x_a10 in us-east-1"
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")


@pytest.mark.parametrize("fault", ["boot-other-host-key", "boot-late-ssh", "boot-no-ip"])
def test_what_comes_up_late_is_waited_for(desk: Desk, cloud: LambdaCloud, fault: str) -> None:
    cloud.inject(replace(FAULTS[fault], delay=1.5))
    done = desk.sh("echo hello")
    assert (done.code, done.out) == (0, b"hello\n"), done.err
    assert (cloud.alive(), cloud.keys()) == ([], [])


def test_an_image_that_has_its_own_host_key_needs_our_word(desk: Desk, cloud: LambdaCloud) -> None:
    """Else it counts as not ready, and nothing is sent to it: see `test_rental_provider`."""
    cloud.inject(replace(FAULTS["boot-other-host-key"], delay=60.0))
    done = desk.sh("echo hello", "--accept-new-host-key")
    assert (done.code, done.out) == (0, b"hello\n"), done.err
    assert "whoever answers first" in done.err
    assert (cloud.alive(), cloud.keys()) == ([], [])


def test_a_machine_that_dies_under_the_job_ends_the_run(desk: Desk, cloud: LambdaCloud) -> None:
    with desk.running("echo ready; sleep 100") as client:
        client.shows(b"ready")
        cloud.alive()[0].host.power_cut()
        before = time.monotonic()
        done = client.ended()
    assert done.code == 125
    assert "the machine is unhealthy" in done.err
    assert time.monotonic() - before < 45
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")


def test_an_outage_at_release_is_loud_and_the_guardian_goes_on(
    desk: Desk, cloud: LambdaCloud, tmp_path: Path
) -> None:
    """The whole API is down when the job ends: here for longer than we wait in the foreground."""
    with desk.running("echo ready; sleep 1") as client:
        client.shows(b"ready")
        cloud.inject(replace(FAULTS["outage"], delay=5.0))
        client.ended(200)
        assert state(desk) == "ended"
    all_over(desk, cloud)


def test_a_run_that_is_still_booting_can_be_stopped_from_another_terminal(
    desk: Desk, cloud: LambdaCloud
) -> None:
    cloud.inject(FAULTS["boot-for-ever"])
    with desk.start("run", *desk.options, "one", "sh", "echo never") as client:
        client.says("booting")
        done = desk.cvl("stop", desk.runs()[0])
        assert (done.code, "its job had not begun" in done.err) == (0, True), done.err
        assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")
        assert client.ended().code == 125
    assert client.err.count("is booting") == 1, "the same is not said again and again"


@pytest.mark.parametrize("keep", [False, True])
def test_a_machine_whose_results_have_no_way_here_is_kept_until_they_have_one(
    desk: Desk, cloud: LambdaCloud, keep: bool, tmp_path: Path
) -> None:
    """A file stands where the results should go; whoever keeps the machine removes it.

    Without the flag it is kept for a while, with it until its deadline: see `test_kept`, too.
    """
    there = tmp_path / "there"
    options = ("--keep-on-fetch-failure",) if keep else ()
    job = "echo ready; sleep 1; echo a >out"
    with desk.start("run", *desk.options, *options, "-o", str(there), "one", "sh", job) as client:
        client.shows(b"ready")
        there.write_text("a file\n")
        done = client.ended()
    run = desk.runs()[0]
    assert (done.code, "could not be fetched" in done.err) == (125, True), done.err
    until = ", until its deadline:" if keep else " for 30m00s, for its results:"
    assert f"stays rented at $0.75/h{until}" in done.err
    assert len(cloud.alive()) == 1
    assert desk.cvl("reap", "-y").out == b"nothing to reap\n", "the guardian looks after it"
    there.unlink()
    assert desk.cvl("fetch", run).code == 0
    assert (there / "out").read_text() == "a\n"
    assert desk.cvl("stop", run).code == 0
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")
    wait_for(lambda: not guardians(desk))


@pytest.mark.parametrize("keep", [False, True])
def test_a_machine_that_gives_no_results_that_make_sense_is_kept_only_if_asked(
    desk: Desk, cloud: LambdaCloud, keep: bool
) -> None:
    """Nobody here can help that: it is released at once, unless that was asked for."""
    options = ("--keep-on-fetch-failure",) if keep else ()
    with desk.running("echo ready; sleep 2; echo a >out", *options) as client:
        client.shows(b"ready")
        (machine,) = cloud.alive()
        assert isinstance(machine.host, RealHost)
        assert machine.host.machine
        hostile.mount(machine.host.machine).turn("pax-bomb", "pack")
        done = client.ended()
    assert (done.code, "could not be fetched" in done.err) == (125, True), done.err
    assert ("stays rented" in done.err) == keep
    if keep:
        assert len(cloud.alive()) == 1
        desk.cvl("stop", desk.runs()[0])
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")
    wait_for(lambda: not guardians(desk))


@pytest.mark.parametrize("detach", [False, True])
def test_without_a_ledger_nothing_is_lost_either(
    desk: Desk, cloud: LambdaCloud, detach: bool
) -> None:
    """It is damaged while the job runs: which is stopped, or followed, and fetched all the same."""
    if detach:
        done = desk.sh("echo a >out; sleep 3; echo c >late", "-d", "--accept-unguarded")
        assert done.code == 0, done.err
        wait_for(lambda: guardians(desk))
        (desk.state / "ledger.db").write_bytes(b"no database" * 1000)
    else:
        with desk.start("run", *desk.options, "one", "sh", JOB) as client:
            client.shows(b"ready")
            (desk.state / "ledger.db").write_bytes(b"no database" * 1000)
            client.signal(signal.SIGKILL)
            client.process.wait()
    wait_for(lambda: not cloud.alive() and not cloud.keys())
    wait_for(lambda: not guardians(desk))
    found = {path.name: path.read_bytes() for path in (desk.repo / "cvl-runs").glob("*/*")}
    assert found == {"out": b"a\n", "late": b"c\n" if detach else b"b\n"}


def guardians(desk: Desk) -> list[str]:
    """Return the guardians of this desk's runs."""
    mark = f"CVL_STATE_DIR={desk.state}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"cvl.operations.guardian_main" in words and mark in (
                entry / "environ"
            ).read_bytes().split(b"\0"):
                found.append(entry.name)
    return found


def log_of(desk: Desk) -> str:
    return "".join(
        path.read_text(errors="replace") for path in (desk.state / "runs").rglob("*.log")
    )


def test_a_closed_line_is_never_all_that_is_said(desk: Desk, cloud: LambdaCloud) -> None:
    """Ctrl-C while it boots: terminated before the prompt is back, and so told."""
    cloud.inject(FAULTS["boot-for-ever"])
    with desk.start("run", *desk.options, "one", "sh", "echo never") as client:
        client.says("booting")
        client.signal(signal.SIGINT)
        done = client.ended()
    assert done.code == 130
    assert re.search("interrupted", done.err)
    assert (cloud.alive(), cloud.keys(), state(desk)) == ([], [], "ended")
