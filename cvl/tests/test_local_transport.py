"""The transport to this machine: the rules of any other, without a connection."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvl.core.errors import NotReady
from cvl.core.interfaces import Transport
from cvl.transports.local import Local


def start(*argv: str) -> subprocess.Popen[bytes]:
    process: object = Local().start(argv)
    assert isinstance(process, subprocess.Popen)
    return process


def run(*argv: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    process = start(*argv)
    out, errors = process.communicate(data, timeout=20)
    return process.returncode, out, errors


def test_it_is_a_transport() -> None:
    assert isinstance(Local(), Transport)


def test_a_command_runs_with_its_words_as_they_are() -> None:
    line = 'cat; printf %s "$1" >&2; exit 7'
    assert run("exec", "sh", "-c", line, "sh", "a\n'b", data=b"in") == (7, b"in", b"a\n'b")
    assert Local().failure(255, b"Connection refused") is None


@settings(max_examples=30, deadline=None)
@given(data=st.binary())
def test_bytes_come_back_as_they_went(data: bytes) -> None:
    assert run("cat", data=data) == (0, data, b"")


def test_the_terminal_s_ctrl_c_is_not_for_it() -> None:
    process = start("cat")
    assert os.getsid(process.pid) == process.pid
    process.communicate(timeout=20)


def test_a_program_that_is_not_here() -> None:
    with pytest.raises(NotReady, match="no-such-program"):
        Local().start(["no-such-program"])
