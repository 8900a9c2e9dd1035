"""A host that takes its time over a start, and a client that goes, or is told to go, meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Client, Desk, wait_for
from cvl.testing.sshd import Sshd
from cvl.tests.farside import SYSTEM_PATH

JOB = "echo ran; exec sleep 1000"


@dataclass(frozen=True)
class Slow:
    """A host whose `tar` waits when it is told to, after it has read all that was sent."""

    desk: Desk
    folder: Path

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def held(self) -> None:
        """Wait until the host has all of a start, and does not go on."""
        wait_for((self.folder / "held").exists)

    def go_on(self) -> None:
        """Let the start go on, and wait until it has ended."""
        (self.folder / "hold").unlink()
        wait_for(lambda: not list((self.folder / "home/.cvl/new").glob("*")))

    def starting(self) -> Client:
        return self.desk.start("run", *self.desk.options, "one", "sh", JOB)


@pytest.fixture(params=["--ssh", "--docker"])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Slow]:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "tar").write_text(f"""#!/bin/sh
        PATH={SYSTEM_PATH}
        [ -e {tmp_path}/hold ] || exec tar "$@"
        cat >{tmp_path}/sent
        echo >{tmp_path}/held
        while [ -e {tmp_path}/hold ]; do sleep 0.01; done
        exec tar "$@" <{tmp_path}/sent
    """)
    (tools / "tar").chmod(0o755)
    path = f"{tools}:{SYSTEM_PATH}"
    with Sshd(tmp_path / "host", home=tmp_path / "home", path=path) as sshd:
        desk = Desk(folder=tmp_path / "desk", options=(request.param, "testhost"), env=sshd.env)
        assert desk.sh("exit 3").code == 3  # what is put there once is there
        made = Slow(desk, tmp_path)
        made.hold()
        yield made


def nothing_runs(slow: Slow, run: str) -> None:
    slow.go_on()
    assert slow.desk.left(run) == []
    assert b"ran" not in slow.desk.cvl("logs", run).out


@pytest.mark.parametrize(
    ("number", "code", "cause"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_told_to_stop(number: int, code: int, cause: str, slow: Slow) -> None:
    with slow.starting() as client:
        slow.held()
        client.signal(number)
        done = client.ended()
    assert done.code == code, done.err
    row = slow.desk.ps()[0]
    assert (row["state"], row["cause"]) == ("ended", cause)
    nothing_runs(slow, str(row["id"]))


@pytest.mark.parametrize("command", ["attach", "stop", "ps"])
def test_killed_and_asked_about_before_it_has_started(command: str, slow: Slow) -> None:
    with slow.starting() as client:
        slow.held()
        client.signal(signal.SIGKILL)
        client.process.wait()
    run = slow.desk.runs()[0]
    done = slow.desk.cvl(command, *([run] if command != "ps" else []))
    assert done.code == {"attach": 125, "stop": 0, "ps": 0}[command], done
    nothing_runs(slow, run)
    again = slow.desk.cvl("attach", run)
    assert again.code == {"attach": 125, "stop": 143, "ps": 125}[command], again
    cause = {"attach": "not-started", "stop": "stopped", "ps": "not-started"}[command]
    assert slow.desk.ps()[0]["cause"] == cause


def test_stopped_from_another_terminal(slow: Slow) -> None:
    with slow.starting() as client:
        slow.held()
        run = slow.desk.runs()[0]
        assert slow.desk.cvl("stop", run).code == 0
        nothing_runs(slow, run)
        done = client.ended()
    assert (done.code, done.out) == (143, b""), done.err


def test_looking_on_from_another_terminal_waits_and_disturbs_nothing(slow: Slow) -> None:
    with slow.starting() as client:
        slow.held()
        run = slow.desk.runs()[0]
        assert slow.desk.cvl("ps").code == 0
        with slow.desk.start("attach", run) as other:
            other.says("waiting: for")
            slow.go_on()
            other.shows(b"ran")
            client.shows(b"ran")
            client.signal(signal.SIGINT)
            assert client.ended().code == 130
            assert other.ended().code == 130
