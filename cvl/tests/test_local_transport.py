"""The transport to this machine: the rules of any other, without a connection."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvl.core.errors import FetchError, NotReady
from cvl.core.interfaces import Transport
from cvl.core.scope import Cancelled, Scope
from cvl.core.spec import Cause
from cvl.transports.local import Local


def start(*argv: str) -> subprocess.Popen[bytes]:
    process: object = Local().start(argv)
    assert isinstance(process, subprocess.Popen)
    return process


def run(*argv: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    process = start(*argv)
    out, errors = process.communicate(data, timeout=20)
    return process.returncode, out, errors


def pull(source: Path, *names: bytes, into: Path, scope: Scope | None = None) -> None:
    Local().pull(str(source), names, into, scope or Scope(seconds=20))


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


def test_files_with_odd_names(tmp_path: Path) -> None:
    names = [b"plain", b"a/b c/d\ne", b"\xff", b"-x", b"*"]
    for name in names:
        path = tmp_path / "source" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
        path.chmod(0o4750)
        os.utime(path, ns=(1, 10**18 + 1))
    pull(tmp_path / "source", *names, into=tmp_path / "got")
    for name in names:
        copy = tmp_path / "got" / os.fsdecode(name)
        assert copy.read_bytes() == name
        assert copy.stat().st_mtime_ns == 10**18 + 1
        assert stat.S_IMODE(copy.stat().st_mode) & 0o7700 == 0o700
    assert len(list((tmp_path / "got").rglob("*"))) == len(names) + 2


def test_only_regular_files_travel_and_no_link_is_written_through(tmp_path: Path) -> None:
    source, into, outside = tmp_path / "source", tmp_path / "got", tmp_path / "outside"
    for folder in (source / "dir", into, outside):
        folder.mkdir(parents=True)
    (source / "dir/file").write_text("new")
    (source / "plain").write_text("new")
    (source / "link").symlink_to("/etc/hostname")
    os.mkfifo(source / "pipe")
    (into / "dir").symlink_to(outside)
    (outside / "target").write_text("old")
    (into / "plain").symlink_to(outside / "target")
    pull(source, b"dir/file", b"plain", b"pipe", into=into)
    with pytest.raises(FetchError, match="link"):
        pull(source, b"link", into=into)
    assert [path.read_text() for path in outside.iterdir()] == ["old"]
    assert {path.name for path in into.iterdir()} == {"dir", "plain"}
    assert not any(path.is_symlink() for path in into.iterdir())


@pytest.mark.parametrize("name", [b"../up", b"/etc/passwd", b"a/../../b", b"", b"a\0b"])
def test_nothing_outside_of_the_results_is_asked_for(name: bytes, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="outside"):
        pull(tmp_path, name, into=tmp_path / "got")


def test_what_is_missing_is_said_and_the_rest_comes(tmp_path: Path) -> None:
    (tmp_path / "z").write_text("here")
    with pytest.raises(FetchError, match="gone"):
        pull(tmp_path, b"gone", b"z", into=tmp_path / "got")
    assert (tmp_path / "got/z").read_text() == "here"


def test_what_has_arrived_is_not_copied_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("here")
    pull(tmp_path, b"f", into=tmp_path / "got")
    first = (tmp_path / "got/f").stat().st_ino
    pull(tmp_path, b"f", into=tmp_path / "got")
    assert (tmp_path / "got/f").stat().st_ino == first
    (tmp_path / "f").write_text("changed")
    pull(tmp_path, b"f", into=tmp_path / "got")
    assert (tmp_path / "got/f").read_text() == "changed"


def test_a_copy_ends_with_its_scope_and_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    scope = Scope(seconds=20)
    scope.cancel(Cause.INTERRUPTED)
    with pytest.raises(Cancelled):
        pull(tmp_path, b"big", into=tmp_path / "got", scope=scope)
    assert list((tmp_path / "got").iterdir()) == []
