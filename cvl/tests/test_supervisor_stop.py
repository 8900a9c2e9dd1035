"""Every way in which a run ends before its time, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.tests import farside
from cvl.tests.farside import Host, finish, kill, processes, script, supervisor, wait_for


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def dash(tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, "dash")


def escape(how: str) -> str:
    """Return a job whose child ignores TERM and has left by this way; the job waits for it."""
    body = 'trap "" TERM; echo $$ >>"$CVL_WORK_DIR/pids"; exec sleep 1000'
    wait = 'while [ ! -s "$CVL_WORK_DIR/pids" ]; do sleep 0.01; done; echo up; '
    return {
        "child": f"sh -c '{body}' & {wait}",
        "setsid": f"setsid sh -c '{body}' & {wait}",
        "double fork": f"(setsid sh -c '({body}) & exit' &) ; {wait}",
        "daemon": f"(cd /; setsid sh -c '({body}) &' <&- >&- 2>&-) & {wait}",
        "no environment": f'setsid env -i CVL_WORK_DIR="$CVL_WORK_DIR" "$(command -v sh)" -c '
        f"'PATH={farside.SYSTEM_PATH}:{{PATH}}; {body}' & {wait}",
    }[how]


WAYS = ["child", "setsid", "double fork", "daemon", "no environment"]


def start_escaped(host: Host, how: str, then: str, **headers: float) -> list[int]:
    """Start such a job and return the pids of what it left."""
    job = escape(how).replace("{PATH}", host.env["PATH"])
    assert host.start("one", job + then + "\n", None, **headers).answers == ["started"]
    pids = host.job("one") / "work" / "pids"
    wait_for(lambda: pids.exists() and pids.read_text().endswith("\n"))
    return [int(pid) for pid in pids.read_text().split()]


def kill_supervisor(host: Host) -> None:
    pid = supervisor(host, "one")
    kill(pid)
    wait_for(lambda: _is_gone(pid))


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if not _is_gone(pid)]


@pytest.mark.parametrize("how", WAYS)
def test_stop_ends_what_ignores_term_and_has_left(host: Host, how: str) -> None:
    pids = start_escaped(host, how, "wait; exec sleep 1000")
    began = time.monotonic()
    assert host.ask("stop", id="one", grace=0.5).answers == ["stopping"]
    cause, code, _size = host.result("one")
    assert (cause, code) == ("stopped", "143")
    assert time.monotonic() - began < 5.5
    assert alive(pids) == []
    wait_for(lambda: processes(host, "one") == [])


@pytest.mark.parametrize("how", [way for way in WAYS if way != "no environment"])
def test_what_survives_a_normal_end_is_ended(host: Host, how: str) -> None:
    pids = start_escaped(host, how, "exit 5", grace=0.3)
    assert host.result("one") == ["exited", "5", "3"]
    assert alive(pids) == []
    wait_for(lambda: processes(host, "one") == [])


@pytest.mark.parametrize("how", ["child", "daemon"])
def test_a_timeout_ends_all_of_it(host: Host, how: str) -> None:
    pids = start_escaped(host, how, "exec sleep 1000", timeout=1, grace=0.3)
    assert host.result("one") == ["timeout", "124", "3"]
    assert alive(pids) == []
    wait_for(lambda: processes(host, "one") == [])


def test_a_job_that_ends_in_time_is_no_timeout(host: Host) -> None:
    assert host.start("one", "exit 124\n", follow=1, timeout=30).last == "result exited 124 0"
    wait_for(lambda: processes(host, "one") == [])


def test_the_grace_is_given(host: Host) -> None:
    """TERM once, then time to tidy up, also for what TERM has started only then."""
    job = "trap 'echo one; sleep 0.3; echo tidy; exit 9' TERM; echo up; while :; do :; done"
    host.start("one", job + "\n")
    wait_for(lambda: host.output("one"))
    began = time.monotonic()
    host.ask("stop", id="one", grace=20)
    assert host.result("one")[:2] == ["stopped", "143"]
    assert host.output("one") == b"up\none\ntidy\n"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("cause", "code"), [("interrupted", "130"), ("terminated", "143"), ("hangup", "129")]
)
def test_a_stop_has_a_cause(dash: Host, cause: str, code: str) -> None:
    dash.start("one", "exec sleep 1000\n")
    dash.ask("stop", id="one", cause=cause, grace=1)
    assert dash.result("one")[:2] == [cause, code]
    assert dash.ask("stop", id="one", cause="stopped").last.startswith(f"result {cause} {code}")


def test_a_second_stop_may_be_less_patient(dash: Host) -> None:
    dash.start("one", "trap '' TERM; echo up; while :; do sleep 0.1; done\n")
    wait_for(lambda: dash.output("one"))
    dash.ask("stop", id="one", cause="interrupted", grace=100)
    assert dash.ask("status", id="one").last == "running"
    dash.ask("stop", id="one", cause="stopped", grace=0)
    assert dash.result("one", 10)[0] == "interrupted"


def test_stop_during_the_build(host: Host) -> None:
    build = {"run/build.sh": b"echo building; exec sleep 1000\n"}
    host.start("one", "touch ran\n", build)
    wait_for(lambda: host.output("one"))
    host.ask("stop", id="one", grace=1)
    assert host.result("one")[:2] == ["stopped", "143"]
    assert not (host.job("one") / "ws" / "ran").exists()


def test_stop_as_early_as_can_be(dash: Host) -> None:
    for number in range(5):
        run = f"r{number}"
        dash.start(run, "exec sleep 1000\n")
        dash.ask("stop", id=run, grace=1)
        assert dash.result(run)[0] == "stopped"
        _all_gone(dash, run)


@pytest.mark.slow
def test_a_stop_at_the_very_end_leaves_the_code_exact(dash: Host) -> None:
    """Either the job was first and its code stands, or the stop was."""
    seen = set()
    for number in range(30):
        run = f"r{number}"
        dash.start(run, f"sleep 0.0{number % 10}; exit 138\n")
        dash.ask("stop", id=run, grace=1)
        seen.add(tuple(dash.result(run)[:2]))
    assert seen <= {("exited", "138"), ("stopped", "143")}


def test_other_runs_and_other_processes_are_left_alone(host: Host) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], env={**os.environ, "CVL_RUN_ID": "one-more"})
    try:
        host.start("one-more", "exec sleep 1000\n")
        host.start("one", "exec sleep 1000\n")
        host.ask("stop", id="one", grace=0.1)
        host.result("one")
        assert stranger.poll() is None
        assert host.ask("status", id="one-more").last == "running"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_run_may_stop_itself(host: Host, tmp_path: Path) -> None:
    (tmp_path / "ask").write_text(
        f"test {host.base}\nnonce n\nverb stop\nid one\ncause stopped\ngrace 5\n\n"
    )
    files = {"run/env.sh": f"export ASK={tmp_path}/ask\n".encode()}
    job = f"sh -c '{farside.COMMAND}' <\"$ASK\"; echo asked; sleep 1000\n"
    job = job.replace("; echo asked", "; echo asked; trap 'exit 3' TERM")
    host.start("one", job, files)
    assert host.result("one")[:2] == ["stopped", "143"]


def test_a_timeout_action_runs_afterwards(host: Host) -> None:
    ran = host.base / "ran"
    action = {"run/action.sh": f"cat {host.run('one')}/result >{ran}\n".encode()}
    host.start("one", "exec sleep 1000\n", action, timeout=0.1, grace=1)
    wait_for(lambda: ran.exists() and ran.read_text().startswith("timeout 124 0"))
    host.start("two", "true\n", {"run/action.sh": f"touch {ran}2\n".encode()}, follow=1, timeout=9)
    assert not Path(f"{ran}2").exists()


@pytest.mark.parametrize("how", ["child", "daemon"])
def test_a_killed_supervisor_is_a_lost_run(host: Host, how: str) -> None:
    pids = start_escaped(host, how, "wait; exec sleep 1000")
    kill_supervisor(host)
    assert host.ask("status", id="one").last == "result lost 125 3"
    assert alive(pids) == []
    wait_for(lambda: processes(host, "one") == [])


def test_a_follower_tells_that_the_supervisor_was_killed(host: Host) -> None:
    job = "echo up; exec sleep 1000\n"
    process = host.open("start", {"id": "one", "follow": 1}, script(job))
    wait_for(lambda: host.run("one").exists() and host.output("one"))
    kill_supervisor(host)
    reply = finish(process)
    assert reply.body == b"up\n"
    assert reply.answers == ["started", "result lost 125 3"]


def test_a_timeout_holds_when_the_supervisor_was_killed(host: Host) -> None:
    host.start("one", "echo up; exec sleep 1000\n", timeout=0.5, grace=0.5)
    wait_for(lambda: host.output("one"))
    kill_supervisor(host)
    assert host.result("one") == ["lost", "125", "3"]
    wait_for(lambda: processes(host, "one") == [])


def test_after_a_reboot_a_run_is_lost(host: Host) -> None:
    host.start("one", "exec sleep 1000\n")
    kill_supervisor(host)
    name = host.run("one") / "supervisor"
    pid, start, _boot, machine = name.read_text().split()
    name.write_text(f"{os.getpid()} {start} another-boot {machine}\n")
    assert host.ask("status", id="one").last == "result lost 125 0"
    assert pid


def test_a_reused_pid_is_not_taken_for_the_supervisor(dash: Host) -> None:
    dash.start("one", "exec sleep 1000\n")
    kill_supervisor(dash)
    name = dash.run("one") / "supervisor"
    _, start, boot, machine = name.read_text().split()
    name.write_text(f"{os.getpid()} {start} {boot} {machine}\n")
    assert dash.ask("status", id="one").last == "result lost 125 0"


def test_signals_to_the_supervisor_change_nothing(host: Host) -> None:
    gate = host.base / "gate"
    host.start("one", f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 4\n")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGQUIT):
        os.kill(supervisor(host, "one"), number)
    gate.touch()
    assert host.result("one") == ["exited", "4", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk(host: Host, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        farside.install(small)
        full = Host(base=small, env=host.env, sh=host.sh)
        reply = full.start("one", "echo up; cat /dev/zero >f; echo more\n", follow=1)
        assert reply.last.startswith("result exited ")
        assert reply.last.endswith(" disk-full")
        assert full.ask("status", id="one").last == reply.last
        assert full.start("two", "true\n").last.startswith("fail space ")
        assert not any((small / "new").iterdir())
        assert full.ask("clean", id="one").code == 0
        assert full.start("two", "echo again\n", follow=1).body == b"again\n"
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
@pytest.mark.parametrize("update", [300_000, 700_000, 1_000_000, 1_500_000])
def test_a_disk_that_fills_while_files_arrive(host: Host, tmp_path: Path, update: int) -> None:
    """Full while unpacking, while the cache is updated, while it is copied: told as what it is."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        farside.install(small)
        full = Host(base=small, env=host.env, sh=host.sh)
        old = {"tree/f": b"1" * 400_000, "tree/g": b"1"}
        assert full.start("one", "cat g\n", old, follow=1, cache="c", tree="t1").body == b"1"
        full.ask("clean", id="one")
        new = {"tree/f": b"2" * update}
        reply = full.start("two", "true\n", new, follow=1, cache="c", base="t1", tree="t2")
        if update > 300_000:
            assert reply.last.startswith("fail space ")
        assert not any((small / "new").iterdir())
        third = full.start("three", "cat g\n", old, follow=1, cache="c", tree="t1")
        assert third.body == b"1"
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a disk that cannot be written")
def test_a_base_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", small], check=True)
    try:
        farside.install(small)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        full = Host(base=small, env=host.env, sh=host.sh)
        reply = full.start("one", "true\n")
        assert reply.last.startswith("fail readonly ")
        assert b"ead-only" in reply.noise
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def _all_gone(host: Host, run: str) -> None:
    wait_for(lambda: processes(host, run) == [])


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
