"""Runs from a later process, another terminal, or the machine that they are on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cvl.testing.cli_harness import FOLDER, Desk, wait_for
from cvl.testing.sshd import Sshd

RUNNERS = {
    "local": ("--local",),
    "ssh": ("--ssh", "testhost"),
}
WAIT = 'until [ -e "$CVL_WORK_DIR/go" ]; do sleep 0.05; done; '


@pytest.fixture(params=RUNNERS)
def desk(request: pytest.FixtureRequest, host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=RUNNERS[request.param], env=host.env)


@pytest.fixture
def ssh_desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=RUNNERS["ssh"], env=host.env)


def detached(desk: Desk, script: str) -> str:
    done = desk.sh(script, "-d")
    assert done.code == 0, done.err
    return done.out.decode().strip()


def go(desk: Desk, host: Sshd, run: str) -> None:
    """Let a script go on that waits."""
    for jobs in (host.home / ".cvl/jobs", desk.state / "here/jobs"):
        if (jobs / run).exists():
            (jobs / run / "work/go").touch()


def test_ps_tells_that_a_detached_run_has_ended(desk: Desk, host: Sshd) -> None:
    run = detached(desk, WAIT + "exit 3")
    (line,) = desk.ps()
    assert (line["state"], line["exit_code"]) == ("running", None)
    go(desk, host, run)
    wait_for(lambda: desk.ps()[0]["exit_code"] is not None)
    (line,) = desk.ps()
    assert (line["state"], line["exit_code"], line["cause"]) == ("fetching", 3, "exited")
    table = desk.cvl("ps")
    assert f"cvl attach {run}" in table.err
    assert "exited 3" in table.out.decode()
    assert desk.cvl("attach", run).code == 3
    assert desk.cvl("ps").err == ""
    assert desk.ps()[0]["state"] == "ended"


def test_logs_shows_what_there_is_by_now(desk: Desk, host: Sshd) -> None:
    run = detached(desk, "echo one; " + WAIT + "echo two")
    wait_for(lambda: desk.cvl("logs", run).out == b"one\n")
    with desk.start("logs", "-f", run) as client:
        client.shows(b"one\n")
        go(desk, host, run)
        done = client.ended()
    assert (done.code, done.out) == (0, b"one\ntwo\n")
    assert desk.cvl("logs", run).out == b"one\ntwo\n"
    assert desk.cvl("attach", run).out == b"one\ntwo\n"
    assert desk.cvl("logs", run).out == b"one\ntwo\n"


@pytest.mark.parametrize("command", [("logs", "-f"), ("attach",)])
def test_ctrl_c_only_detaches(command: tuple[str, ...], desk: Desk, host: Sshd) -> None:
    run = detached(desk, "echo one; " + WAIT + "exit 3")
    with desk.start(*command, run) as client:
        client.shows(b"one\n")
        client.signal(signal.SIGINT)
        before = time.monotonic()
        assert client.ended().code == 0
        assert time.monotonic() - before < 4, "the job is silent, and nobody waits for it"
    assert desk.left(run)
    go(desk, host, run)
    assert desk.cvl("attach", run).code == 3


def test_two_terminals_see_the_same(desk: Desk, host: Sshd) -> None:
    ticks = WAIT.replace("do ", "do echo tick; ")
    with desk.running(f"echo one; {ticks} echo two; exit 3") as first:
        first.shows(b"one\n")
        (run,) = desk.runs()
        with desk.start("attach", run) as second:
            second.shows(b"tick\n")
            go(desk, host, run)
            assert second.ended().code == 3
        assert first.ended().code == 3
    assert first.out.endswith(b"two\n")
    assert first.out.endswith(second.out)
    assert desk.cvl("logs", run).out == first.out


def test_results_can_be_left_there_and_fetched_later(desk: Desk) -> None:
    done = desk.sh("echo x >result", "--no-fetch")
    (run,) = desk.runs()
    assert done.code == 0
    assert f"cvl fetch {run}" in done.err
    assert not (desk.repo / "cvl-runs").exists()
    assert desk.cvl("fetch", run, "-o", "there").code == 0
    assert [path.read_text() for path in (desk.repo / "there").rglob("result")] == ["x\n"]


def test_fetch_while_it_runs(desk: Desk, host: Sshd) -> None:
    run = detached(desk, "echo x >result; echo made; " + WAIT + "echo y >result; exit 3")
    wait_for(lambda: b"made" in desk.cvl("logs", run).out)
    assert desk.cvl("fetch", run).code == 0
    assert desk.result("result") == b"x\n"
    go(desk, host, run)
    assert desk.cvl("attach", run).code == 3
    assert desk.result("result") == b"y\n"


def test_results_that_land_where_a_job_works_in_place_are_not_its_results(
    host: Sshd, tmp_path: Path
) -> None:
    desk = Desk(folder=tmp_path, options=("--local",), env=host.env)
    meanwhile = desk.repo / FOLDER / "cvl-runs/another"
    script = f"mkdir -p {meanwhile} out; echo a >{meanwhile}/a; echo b >b; echo c >out/c"
    assert desk.sh(script, "-o", f"{FOLDER}/out").code == 0
    found = {str(path.relative_to(desk.repo / FOLDER)) for path in desk.repo.rglob("?")}
    assert found == {"cvl-runs/another/a", "b", "out/b", "out/c"}


def test_stop_ends_a_detached_run_and_brings_its_results(desk: Desk) -> None:
    run = detached(desk, "echo x >result; echo made; sleep 1000")
    wait_for(lambda: b"made" in desk.cvl("logs", run).out)
    assert desk.cvl("stop", run).code == 0
    assert (desk.ps()[0]["state"], desk.ps()[0]["cause"]) == ("ended", "stopped")
    assert desk.result("result") == b"x\n"
    assert not desk.left(run)
    again = desk.cvl("stop", run)
    assert (again.code, "already ended" in again.err) == (0, True)


def test_ps_does_not_wait_for_a_host_that_is_gone(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host") as sshd:
        desk = Desk(folder=tmp_path / "desk", options=RUNNERS["ssh"], env=sshd.env)
        run = detached(desk, "sleep 1000")
        sshd.freeze()
        sshd.cut()
        before = time.monotonic()
        assert desk.ps()[0]["state"] == "running"
        assert time.monotonic() - before < 4
        sshd.freeze(frozen=False)
        assert desk.cvl("stop", run).code == 0


# somebody who is logged in over there


def guest(desk: Desk, host: Sshd) -> Desk:
    """Return the desk of somebody who is logged in on the host."""
    place = Desk(folder=desk.folder / "guest", options=("--local",))
    (place.folder / "home").rmdir()
    (place.folder / "home").symlink_to(host.home)
    return place


def environment_there(desk: Desk, host: Sshd) -> dict[str, str]:
    """Return what somebody who logs in on the host has around them."""
    state = desk.folder / "there"
    return {"HOME": str(host.home), "PATH": os.environ["PATH"], "CVL_STATE_DIR": str(state)}


def put_there(
    host: Sshd, words: Sequence[str], env: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Call the cvl that was put on the host."""
    words = [str(host.home / ".cvl/bin/cvl"), *words]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("how", ["left", "fetched"])
def test_how_a_run_ended_is_seen_over_there(
    how: str, code: int, ssh_desk: Desk, host: Sshd
) -> None:
    """Zero is a result as any other; and what ran is still known once its files are gone."""
    keep = ("--no-fetch",) if how == "left" else ()
    assert ssh_desk.sh(f"echo x >result; exit {code}", *keep).code == code
    (run,) = ssh_desk.runs()
    env = environment_there(ssh_desk, host)
    lines = json.loads(put_there(host, ("ps", "--json"), env, ssh_desk.folder).stdout)
    (line,) = [line for line in lines if line["id"] == run]
    assert line["state"] == "ended"
    assert (line["exit_code"], line["cause"]) == (code, "exited")
    assert (line["example"], line["preset"]) == (FOLDER, "sh")
    assert line["started"] <= line["ended"]
    table = put_there(host, ("ps",), env, ssh_desk.folder).stdout
    (row,) = [row for row in table.splitlines() if row.startswith(run)]
    assert row.split()[1:3] == ["one", "sh"]
    assert f"exited {code}" in row
    assert put_there(host, ("attach", run), env, ssh_desk.folder).returncode == code
    assert put_there(host, ("stop", run), env, ssh_desk.folder).returncode == 0


def test_ones_own_runs_come_first_and_strangers_only_if_asked_for(
    ssh_desk: Desk, host: Sshd
) -> None:
    there = guest(ssh_desk, host)
    assert there.sh("exit 3").code == 3
    (own,) = there.runs()
    other = detached(ssh_desk, WAIT)
    ended = detached(ssh_desk, "exit 0")
    wait_for(lambda: {run["id"]: run for run in ssh_desk.ps()}[ended]["exit_code"] is not None)
    assert [line["id"] for line in json.loads(there.cvl("ps", "--json").out)] == [own]
    assert len(there.cvl("ps").out.splitlines()) == 2
    assert [line["id"] for line in there.ps()][:3] == [own, ended, other]
    rows = there.cvl("ps", "-a").out.decode().splitlines()
    assert [row.split()[0] for row in rows[1:4]] == [own, ended, other]
    assert "exited 0" in rows[2]
    env = environment_there(ssh_desk, host)
    found = json.loads(put_there(host, ("ps", "--json"), env, ssh_desk.folder).stdout)
    assert [line["id"] for line in found][:2] == [ended, other], "that one is there to show them"
    go(ssh_desk, host, other)
    assert [ssh_desk.cvl("attach", run).code for run in (other, ended)] == [0, 0]


def test_a_guest_sees_follows_and_stops_what_came_in(ssh_desk: Desk, host: Sshd) -> None:
    run = detached(ssh_desk, "echo x >result; echo one; " + WAIT + "echo two; exit 3")
    there = guest(ssh_desk, host)
    (line,) = [line for line in there.ps() if line["id"] == run]
    assert (line["state"], line["preset"], line["runner"]) == ("running", "sh", "local")
    assert line["example"] == "examples/conformance/one"
    wait_for(lambda: there.cvl("logs", run).out == b"one\n")
    assert there.cvl("fetch", run, "-o", "copy").code == 0
    assert [path.read_text() for path in (there.repo / "copy").rglob("result")] == ["x\n"]
    with there.start("attach", run) as client:
        client.shows(b"one\n")
        go(ssh_desk, host, run)
        done = client.ended()
    assert (done.code, done.out) == (3, b"one\ntwo\n")
    assert there.cvl("logs", run).out == b"one\ntwo\n"
    assert ssh_desk.cvl("attach", run).code == 3
    (line,) = [line for line in there.ps() if line["id"] == run]
    assert (line["state"], line["exit_code"]) == ("ended", 3)


def test_what_a_guest_stops_is_stopped_for_all(ssh_desk: Desk, host: Sshd) -> None:
    with ssh_desk.running("echo one; sleep 1000") as client:
        client.shows(b"one\n")
        (run,) = ssh_desk.runs()
        assert guest(ssh_desk, host).cvl("stop", run).code == 0
        assert client.ended().code == 143


def test_the_cvl_that_was_put_there_does_all_that(ssh_desk: Desk, host: Sshd) -> None:
    run, env = detached(ssh_desk, "echo one; sleep 1000"), environment_there(ssh_desk, host)

    def cvl(*words: str) -> subprocess.CompletedProcess[str]:
        return put_there(host, words, env, ssh_desk.folder)

    assert run in [line["id"] for line in json.loads(cvl("ps", "--json").stdout)]
    assert run in cvl("ps").stdout
    wait_for(lambda: cvl("logs", run).stdout == "one\n")
    stopped = cvl("stop", run)
    assert (stopped.returncode, "is stopped" in stopped.stderr) == (0, True)
    assert ssh_desk.cvl("attach", run).code == 143


def test_a_supervisor_that_is_killed_loses_the_run_and_leaves_nothing(
    ssh_desk: Desk, host: Sshd
) -> None:
    with ssh_desk.running("echo x >result; echo one; setsid sleep 1000 & sleep 1000", "-q") as it:
        it.shows(b"one\n")
        (run,) = ssh_desk.runs()
        owner = (host.home / ".cvl/runs" / run / "supervisor").read_text()
        os.kill(int(owner.split()[0]), signal.SIGKILL)
        done = it.ended()
    assert (done.code, ssh_desk.ps()[0]["cause"]) == (125, "lost")
    assert f"{run}: lost" in done.err, "said even with -q: nothing else would say it"
    assert ssh_desk.result("result") == b"x\n"
    assert not ssh_desk.left(run)


def test_a_host_that_has_forgotten_a_run(ssh_desk: Desk, host: Sshd) -> None:
    run = detached(ssh_desk, "exit 3")
    wait_for(lambda: ssh_desk.ps()[0]["exit_code"] == 3)
    shutil.rmtree(host.home / ".cvl/runs" / run)
    done = ssh_desk.cvl("attach", run)
    assert done.code == 125
    assert "no such run" in done.err
    assert ssh_desk.ps()[0]["state"] == "ended"
