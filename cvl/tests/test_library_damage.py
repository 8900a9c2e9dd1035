"""A job that damages our shell files on a host ends as it should, and they are put there again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.host.shell_files import SHELL_FILES
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd
from cvl.tests import farside
from cvl.tests.farside import Host, processes, wait_for

LIB = '"$HOME"/.cvl/lib'
DAMAGE = {
    "emptied": f'for f in {LIB}/*/*; do chmod u+w "$f"; : >"$f"; done',
    "overwritten": f'for f in {LIB}/*/*; do chmod u+w "$f"; echo exited 0 >"$f"; done',
    "cut": f'for f in {LIB}/*/*; do chmod u+w "$f"; head -c 900 "$f" >x; cat x >"$f"; done; rm x',
    "files removed": f"rm -f {LIB}/*/*",
    "one removed": f"rm -f {LIB}/*/alive.sh",
    "removed": f"rm -rf {LIB}",
    "folders": f'for f in {LIB}/*/*; do rm -f "$f"; mkdir -p "$f/x"; done',
    "a file": f'for f in {LIB}/*; do rm -rf "$f"; echo x >"$f"; done',
    "closed": f"chmod 0 {LIB}/*/* {LIB}/*",
}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def desk(sshd: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path / "desk", options=("--ssh", "testhost"), env=sshd.env)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_job_that_damages_them_keeps_its_code_and_the_next_one_runs(
    name: str, desk: Desk
) -> None:
    done = desk.sh(f"{{ {DAMAGE[name]}; }} 2>/dev/null; echo out; echo x >result; exit 3")
    assert (done.code, done.out) == (3, b"out\n"), done
    assert desk.result("result") == b"x\n"
    assert desk.sh("exit 4").code == 4


@pytest.mark.parametrize("name", DAMAGE)
def test_the_next_request_mends_them(name: str, desk: Desk, sshd: Sshd) -> None:
    assert desk.sh("exit 0").code == 0
    env = {"HOME": str(sshd.home), "PATH": os.environ["PATH"]}
    subprocess.run(["sh", "-c", DAMAGE[name]], env=env, stderr=subprocess.DEVNULL, check=False)
    done = desk.sh("echo out; exit 4")
    assert (done.code, done.out) == (4, b"out\n"), done


def test_a_timeout_holds_while_they_are_damaged(desk: Desk) -> None:
    done = desk.sh(f"{DAMAGE['emptied']}; sleep 1000", "--timeout", "1s", "--grace", "0s")
    assert done.code == 124, done
    assert desk.left(desk.runs()[0]) == []


def test_logs_mends_them_and_shows_what_there_is(desk: Desk) -> None:
    job = f"{{ {DAMAGE['emptied']}; }} 2>/dev/null; echo out; sleep 1000"
    run = desk.sh(job, "-d", "--timeout", "60s").out.decode().strip()
    wait_for(lambda: desk.cvl("logs", run).out == b"out\n")
    assert desk.cvl("stop", run, "--grace", "0s").code == 0


def test_a_job_cannot_write_to_them_by_accident(desk: Desk, sshd: Sshd) -> None:
    assert desk.sh("exit 0").code == 0
    files = [*sshd.home.glob(".cvl/lib/*/*.sh")]
    assert {file.name for file in files} == set(SHELL_FILES)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o500}


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def dash(tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, "dash")


def spoil(host: Host, how: str, *, only: str = "*") -> None:
    """Damage our files on the host."""
    for file in host.base.glob(f"lib/test/{only}"):
        file.chmod(0o700)
        data = file.read_bytes()
        damaged = {"emptied": b"", "words": b"exited 0\n", "cut": data[: len(data) // 2]}
        file.write_bytes(damaged[how])


@pytest.mark.parametrize("how", ["emptied", "words", "cut"])
def test_what_runs_already_needs_none_of_them(how: str, host: Host) -> None:
    host.start("late", "exec sleep 1000\n", timeout=1, grace=0)
    host.start("own", 'until [ -e "$CVL_WORK_DIR/go" ]; do sleep 0.05; done; exit 3\n')
    spoil(host, how)
    (host.job("own") / "work/go").touch()
    assert host.result("own")[:2] == ["exited", "3"]
    assert host.result("late")[:2] == ["timeout", "124"]
    wait_for(lambda: processes(host) == [])


@pytest.mark.parametrize("how", ["emptied", "words", "cut"])
@pytest.mark.parametrize("verb", ["status", "stop", "follow", "changed", "start", "clean"])
def test_a_damaged_one_is_not_answered_with(how: str, verb: str, dash: Host) -> None:
    dash.start("one", "exec sleep 1000\n")
    needed = {"start": "run", "stop": "sweep", "status": "alive", "changed": "changes"}
    spoil(dash, how, only=f"{needed.get(verb, verb)}.sh")
    reply = dash.ask(verb, farside.script("exit 0\n"), id="two" if verb == "start" else "one")
    assert reply.answers == [], reply
    assert not (dash.base / "runs/two").exists()
