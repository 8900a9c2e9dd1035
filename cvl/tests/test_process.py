"""Owners: real processes, judged dead only where that is provable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core import process
from cvl.core.process import Life, ProcessIdentity, describe, life, me, owner_of, parse

ROOT = Path(process.__file__).parent.parent


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def mine(**changed: Any) -> str:
    owner = parse(me())
    assert owner is not None
    return str(replace(owner, **changed))


def test_we_are_alive_and_the_same_each_time() -> None:
    assert life(me()) is Life.ALIVE
    assert me() == me()
    assert describe(me()).startswith(f"process {os.getpid()} on ")


def test_a_killed_child_is_dead_as_a_zombie_and_after(child: subprocess.Popen[bytes]) -> None:
    owner = owner_of(child.pid)
    assert life(owner) is Life.ALIVE
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert life(owner) is Life.DEAD
    child.wait(10)
    assert life(owner) is Life.DEAD
    with pytest.raises(ProcessLookupError):
        owner_of(child.pid)


def test_a_stopped_child_is_alive(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    assert life(owner_of(child.pid)) is Life.ALIVE


def test_a_reused_pid_is_not_taken_for_the_owner() -> None:
    assert life(mine(start="1")) is Life.DEAD


def test_an_earlier_boot_of_this_machine_is_dead() -> None:
    assert life(mine(boot="earlier")) is Life.DEAD


@pytest.mark.parametrize(
    "changed",
    [
        {"boot": "other", "machine": "other"},
        {"boot": "other", "machine": ""},
        {"boot": ""},
        {"start": ""},
        {"space": "1"},
        {"space": "", "pid": 1},
    ],
)
def test_what_cannot_be_proved_dead_is_elsewhere(changed: dict[str, Any]) -> None:
    assert life(mine(**changed)) is Life.ELSEWHERE


def test_a_machine_without_an_id_never_calls_another_boot_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "MACHINE_IDS", ())
    assert life(mine(boot="earlier")) is Life.ELSEWHERE
    assert life(me()) is Life.ALIVE


def test_a_machine_that_tells_no_boot_judges_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner = me()
    monkeypatch.setattr(process, "PROC", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert life(owner) is Life.ELSEWHERE
    assert life(me()) is Life.ELSEWHERE


def test_a_process_that_proc_hides_is_not_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    owner = owner_of(child.pid)
    for name in ("sys/kernel/random/boot_id", "self/stat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((process.PROC / name).read_text())
    (tmp_path / "self/ns").mkdir()
    (tmp_path / "self/ns/pid").symlink_to((process.PROC / "self/ns/pid").readlink())
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert life(owner) is Life.ALIVE
    child.kill()
    child.wait(10)
    assert life(owner) is Life.DEAD


def test_a_program_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as started:
        owner = owner_of(started.pid)
        try:
            assert life(owner) is Life.ALIVE
        finally:
            started.kill()
        started.wait(10)
    assert life(owner) is Life.DEAD


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")
def test_a_process_in_a_container_is_elsewhere() -> None:
    script = (
        "import sys; from cvl.core.process import *; print(me(), life(sys.argv[1]), life(me()))"
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script, me()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    inside, of_us, of_itself = done.stdout.split()
    assert life(inside) is Life.ELSEWHERE
    assert (of_us, of_itself) == ("elsewhere", "alive")


def test_systems_without_proc_ask_ps(child: subprocess.Popen[bytes]) -> None:
    if shutil.which("ps") is None:
        pytest.skip("no ps here")
    started = process._start_by_ps(child.pid)
    assert started
    assert ":" not in started
    assert process._start_by_ps(2**22 + 1) == ""


@given(st.text() | st.lists(st.text(), min_size=6, max_size=6).map(":".join))
def test_garbage_is_elsewhere(text: str) -> None:
    assert life(text) is Life.ELSEWHERE
    assert describe(text)


WORD = st.text("abc-.0", max_size=9)


OWNERS = st.builds(
    ProcessIdentity,
    host=WORD,
    machine=WORD,
    boot=WORD,
    space=WORD,
    pid=st.integers(1, 2**31 - 1),
    start=WORD,
)


@given(OWNERS)
def test_an_owner_survives_being_written(owner: ProcessIdentity) -> None:
    assert parse(str(owner)) == owner
