"""Nothing that we have started outlives us, however we die; what others use stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.core.child_process import Leashed
from cvl.testing import hostile
from cvl.testing.cli_harness import Client, Desk, wait_for
from cvl.testing.hostile import HostileHost
from cvl.tests.test_openssh import close_masters
from cvl.transports.ssh.openssh import OpenSSH

SOON = 5.0
"""Seconds after which nothing is left."""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[HostileHost]:
    with hostile.host(tmp_path / "hostile") as made:
        yield made


def offspring(mark: str) -> list[str]:
    """Return the living processes here, not over there, with that mark in their environment."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = Path(entry.path, "environ").read_bytes().split(b"\0")
            words = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"LEASH={mark}".encode() in environ and state != "Z":
            found.append(f"{entry.name} {words}")
    return found


def left(mark: str) -> list[str]:
    """Return what is left of us but a connection that is kept: it ends by itself."""
    return [each for each in offspring(mark) if "[mux]" not in each]


def killed(client: Client, mark: str) -> None:
    """Kill a client that has something under way, and see that soon nothing is left of it."""
    assert len(left(mark)) > 1, offspring(mark)
    client.signal(signal.SIGKILL)
    client.process.wait()
    until = time.monotonic() + SOON
    while still := left(mark):
        assert time.monotonic() < until, still
        time.sleep(0.05)


def desk(there: HostileHost, folder: Path, mark: str, *, kept: bool = True) -> Desk:
    env = {**there.sshd.env, "LEASH": mark}
    if not kept:  # without a folder for sockets, every session is an ssh of its own
        env["XDG_RUNTIME_DIR"] = "/dev/null"
        env["CVL_STATE_DIR"] = str(folder / ("long" * 30))
    return Desk(folder=folder / "desk", options=("--docker", "testhost"), env=env)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_following_a_silent_job(there: HostileHost, tmp_path: Path, kept: bool) -> None:
    here = desk(there, tmp_path, "silent", kept=kept)
    words = ("run", *here.options, "one", "sh", "echo go; sleep 1000")
    with here.start(*words) as client:
        client.shows(b"go\n")
        if kept:
            client.signal(signal.SIGKILL)
            client.process.wait()
            wait_for(lambda: not left("silent"), SOON)
        else:
            killed(client, "silent")


def test_asking_a_host_that_hangs(there: HostileHost, tmp_path: Path) -> None:
    here = desk(there, tmp_path, "asking", kept=False)
    there.login.turn("hang")
    with here.start("run", *here.options, "one", "sh", "echo go") as client:
        wait_for(lambda: any("supervisor.sh" in each for each in left("asking")))
        killed(client, "asking")


@pytest.mark.parametrize("stalled", [False, True], ids=["busy", "stalled"])
def test_fetching_much(there: HostileHost, tmp_path: Path, stalled: bool) -> None:
    mark = f"fetch {tmp_path}"
    here = desk(there, tmp_path, mark, kept=False)
    size = 400_000_000 if stalled else 2_000_000_000
    script = f"head -c {size} /dev/zero >big; rm -f big.done; echo go"
    with here.start("run", *here.options, "one", "sh", script) as client:
        wait_for(lambda: any((here.repo / "cvl-runs").rglob("*.arriving")))
        if stalled:
            pids = [int(each.split()[0]) for each in left(mark) if each.split()[1] == "ssh"]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        killed(client, mark)


def test_a_connection_that_others_use_stays(there: HostileHost, tmp_path: Path) -> None:
    script = """
import sys, time
from cvl.transports.ssh.openssh import OpenSSH
process = OpenSSH("testhost").start(("sh", "-c", "echo here; exec sleep 1000"))
print(process.stdout.readline().decode(), flush=True)
time.sleep(1000)
"""
    env = {**os.environ, **there.sshd.env, "LEASH": "first"}
    first = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE)
    assert first.stdout
    assert first.stdout.readline() == b"here\n"
    os.environ.update(there.sshd.env)
    try:
        transport = OpenSSH("testhost")
        other = transport.start(("sh", "-c", "echo other; read -r line; echo $line"))
        assert other.stdout.readline() == b"other\n"
        first.kill()
        first.wait()
        wait_for(lambda: not left("first"), SOON)
        other.stdin.write(b"still here\n")
        other.stdin.close()
        assert other.stdout.readline() == b"still here\n"
        assert other.wait(5) == 0
        other.stdout.close()
        other.stderr.close()
        close_masters(transport)
    finally:
        for name in there.sshd.env:
            del os.environ[name]
        first.stdout.close()


def test_what_has_ended_leaves_no_watcher(tmp_path: Path) -> None:
    mark = str(tmp_path)
    child = Leashed(["true"], env={**os.environ, "LEASH": mark})
    assert child.wait(5) == 0
    wait_for(lambda: not offspring(mark), SOON)
    for pipe in (child.stdin, child.stdout, child.stderr):
        assert pipe
        pipe.close()


def test_a_git_that_waits_for_a_pipe(there: HostileHost, tmp_path: Path) -> None:
    here = Desk(folder=tmp_path / "desk", options=("--ssh", "testhost"), env=there.sshd.env)
    subprocess.run(["git", "init", "-q"], cwd=here.repo, check=True)
    (here.repo / ".gitignore").unlink(missing_ok=True)
    os.mkfifo(here.repo / ".gitignore")
    client = here.start("run", *here.options, "one", "sh", "true")
    try:
        found = wait_for(lambda: gits(client.process.pid), 30)
    finally:
        client.signal(signal.SIGKILL)
        client.process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), SOON)


def gits(parent: int) -> list[int]:
    """Return the children of a process that have become git."""
    lists = Path(f"/proc/{parent}/task").glob("*/children")
    children = [int(pid) for each in lists for pid in each.read_text().split()]
    return [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "git\n"]
