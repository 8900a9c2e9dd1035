"""The run's log on this machine: always a true prefix, with the cursor that goes on after it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.spec import LogChunk
from cvl.run.log import RunLog

PIECES = [b"one\n", b"two and more\n", b"", b"three\n"]


def chunk(data: bytes, cursor: str) -> LogChunk:
    return LogChunk(data=data, cursor=cursor)


def test_nothing_is_there_before_the_first_byte(tmp_path: Path) -> None:
    assert RunLog(tmp_path / "run").whole() == (0, "")
    assert not (tmp_path / "run").exists()


def test_a_cursor_that_counts_bytes_needs_no_file(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.append(chunk(b"abc", "3"))
    log.append(chunk(b"de", "5"))
    assert log.whole() == (5, "5")
    assert [path.name for path in tmp_path.iterdir()] == ["output.log"]


def test_only_we_can_read_it(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run")
    log.append(chunk(b"abc", "x"))
    modes = [path.stat().st_mode & 0o777 for path in (log.path, tmp_path / "run")]
    assert modes == [0o600, 0o700]


class Killed(BaseException):
    pass


@given(done=st.integers(0, 40), partly=st.integers(0, 12))
def test_killed_anywhere_it_goes_on_without_a_gap_or_a_repetition(
    done: int, partly: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every call of the system may be the last one, and a write may have done a part."""
    folder = tmp_path_factory.mktemp("log")
    calls = 0

    def last() -> bool:
        nonlocal calls
        calls += 1
        return calls > done

    write, replace = os.write, Path.replace

    def mortal_write(descriptor: int, data: bytes) -> int:
        if last():
            write(descriptor, bytes(data)[:partly])
            raise Killed
        return write(descriptor, data)

    def mortal_replace(source: Path, target: Path) -> Path:
        if last():
            raise Killed
        return replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", mortal_write)
        patch.setattr(Path, "replace", mortal_replace)
        follow(RunLog(folder))
    log = RunLog(folder)
    size, cursor = log.whole()
    seen = b"".join(PIECES[: int((cursor or "at 0")[3:])])
    assert log.path.read_bytes()[:size] == seen if size else seen == b""
    follow(log)
    assert log.path.read_bytes() == b"".join(PIECES)
    assert log.whole() == (len(b"".join(PIECES)), f"at {len(PIECES)}")


def follow(log: RunLog) -> None:
    """Append what comes after the cursor, which counts pieces, not bytes."""
    place = int((log.whole()[1] or "at 0")[3:])
    try:
        for number in range(place, len(PIECES)):
            log.append(chunk(PIECES[number], f"at {number + 1}"))
    except Killed:
        return
    finally:
        log.close()


def test_a_disk_that_is_full_leaves_a_true_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunLog(tmp_path)
    log.append(chunk(b"abc", "x1"))
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        write(descriptor, bytes(data)[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        log.append(chunk(b"def", "x2"))
    assert (log.path.read_bytes(), log.whole()) == (b"abc", (3, "x1"))


@pytest.mark.parametrize(
    "damaged", [b"\xff\xfe\0", b"abc def\n", b"9" * 5000 + b" x\n", b"", b"3\n-1 x\n", b"3 \xff\n"]
)
def test_after_damaged_marks_the_log_begins_anew(tmp_path: Path, damaged: bytes) -> None:
    log = RunLog(tmp_path)
    log.append(chunk(b"abc", "x"))
    log.close()
    (tmp_path / "cursor").write_bytes(damaged)
    again = RunLog(tmp_path)
    assert again.whole() == (0, "")
    assert again.size() == 3
    again.append(chunk(b"abcd", "y"))
    assert again.path.read_bytes() == b"abcd"
    assert again.whole() == (4, "y")


@pytest.mark.parametrize("name", ["cursor", "output.log"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.timeout(20)
def test_nothing_waits_for_what_is_no_file(tmp_path: Path, name: str, kind: str) -> None:
    place = tmp_path / name
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    log = RunLog(tmp_path)
    assert log.whole() == (0, "")
    with pytest.raises(OSError) if kind == "folder" or name == "output.log" else nullcontext():
        log.append(chunk(b"abc", "x"))
        assert log.whole() == (3, "x")
