"""On a terminal: a status line that steps aside, Ctrl-C by key, and a terminal that goes away."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvl.testing.cli_harness import LIMIT, Desk
from cvl.testing.lambda_cloud import FAULTS, LambdaCloud, Settings
from cvl.testing.sshd import Sshd
from cvl.tests.screens import read_from


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=("--ssh", "testhost"), env=host.env)


class Terminal:
    """A `cvl` with a terminal of its own, as its controlling one."""

    def __init__(self, desk: Desk, words: Sequence[str]) -> None:
        self.master, slave = pty.openpty()
        self.seen = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, "-m", "cvl", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**desk.environment, "TERM": "xterm"},
            cwd=desk.repo,
        )
        os.close(slave)

    def shows(self, words: bytes) -> None:
        """Read until the terminal shows `words`."""
        until = time.monotonic() + LIMIT
        while words not in self.seen:
            assert time.monotonic() < until, self.seen
            assert self._read(), self.seen

    def ended(self) -> int:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        return self.process.wait(LIMIT)

    def _read(self) -> bytes:
        data = read_from(self.master, LIMIT)
        self.seen += data
        return data


@contextmanager
def terminal(desk: Desk, *words: str) -> Iterator[Terminal]:
    it = Terminal(desk, words)
    try:
        yield it
    finally:
        it.process.kill()
        it.process.wait(LIMIT)
        for run in desk.runs():
            if desk.left(run):
                desk.cvl("stop", "--grace", "0s", run)


def test_the_status_line_steps_aside(desk: Desk) -> None:
    script = "echo one; sleep 1.2; printf 'half'; sleep 1; echo; exit 3"
    with terminal(desk, "run", *desk.options, "one", "sh", script) as it:
        assert it.ended() == 3
    assert b"running" in it.seen
    lines = [line.rpartition(b"\x1b[2K")[2] for line in it.seen.split(b"\r\n")]
    assert b"one" in lines
    assert b"half" in lines


def test_ctrl_c_by_key(desk: Desk) -> None:
    with terminal(desk, "run", *desk.options, "one", "sh", "echo ready; sleep 1000") as it:
        it.shows(b"ready\r\n")
        os.write(it.master, b"\x03")
        assert it.ended() == 130
        assert desk.left(desk.runs()[0]) == []


def test_a_terminal_that_goes_away(desk: Desk) -> None:
    script = 'echo ready; until [ -e "$CVL_WORK_DIR/go" ]; do echo tick; sleep .05; done; exit 3'
    with terminal(desk, "run", *desk.options, "one", "sh", script) as it:
        it.shows(b"tick\r\n")
        os.close(it.master)
        assert it.process.wait(LIMIT) == 129
        (run,) = desk.ps()
        assert (run["state"], run["exit_code"]) == ("running", None)
        assert desk.left(str(run["id"]))
        assert desk.cvl("stop", str(run["id"])).code == 0


def test_output_that_cannot_be_written_here_is_said(desk: Desk) -> None:
    words = shlex.join(
        [sys.executable, "-m", "cvl", "run", *desk.options, "one", "sh", "echo one; exit 3"]
    )
    done = subprocess.run(
        f"{words} >/dev/full",
        shell=True,
        cwd=desk.repo,
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert desk.cvl("logs", desk.runs()[0]).out == b"one\n"


def test_nobody_listens_at_all(desk: Desk) -> None:
    words = shlex.join(
        [sys.executable, "-m", "cvl", "run", *desk.options, "one", "sh", "echo x >result; exit 3"]
    )
    command = f"{words} <&- >&- 2>&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=desk.repo, env=desk.environment, check=False, timeout=LIMIT
    )
    assert done.returncode == 3
    assert desk.result("result") == b"x\n"
    assert desk.ps()[0]["exit_code"] == 3


def test_what_a_rented_machine_costs_is_seen_while_it_does(tmp_path: Path) -> None:
    """In the status line, and by `cvl ps`, which also names who would end it."""
    settings = Settings(request_interval=0, launch_interval=0)
    with LambdaCloud(settings) as cloud:
        cloud.inject(FAULTS["boot-for-ever"])
        env = {**cloud.env, "LAMBDA_API_RPS": "0", "LAMBDA_SETTLE": "0.5"}
        renting = ("--remote", "lambda", "--gpu-type", "gpu_8x_h100_sxm5")
        desk = Desk(folder=tmp_path, options=renting, env=env)
        with terminal(desk, "run", *renting, "one", "sh", "true") as it:
            it.shows(b"go ahead?")
            os.write(it.master, b"y\n")
            it.shows(b"booting")
            it.shows("· $0.0".encode())
            row = desk.cvl("ps").out.decode().splitlines()[1]
            assert re.search(r"launching, guardian \d+ .*\$0\.\d\d$", row), row
            os.write(it.master, b"\x03")
            assert it.ended() == 130
        assert (cloud.alive(), cloud.keys()) == ([], [])
