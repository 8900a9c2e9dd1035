"""What goes wrong while results come: what passes is waited out, a fault here is told at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cvl.core.errors import Blocked, BrokenOff, FetchError
from cvl.host.download.landing import land_tar
from cvl.host.download.report import Landed
from cvl.host.download.results import Piece, Results
from cvl.host.tarstream import END, Member, header, padding
from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.sshd import Sshd
from cvl.tests.test_cuts import cabled, passes

MUCH = 20_000_000
"""Bytes that take a while."""


def tar_of(*names: bytes, size: int = 3) -> bytes:
    data = b"x" * size
    made = (Member(name=b"work/" + name, size=size, mode=0o644) for name in names)
    return b"".join(header(each) + data + padding(size) for each in made) + END


def land(into: Path, *names: bytes, size: int = 3) -> Landed:
    pieces = tuple(Piece(source=b"work/" + n, target=n, size=size) for n in names)
    return land_tar([tar_of(*names, size=size)], Results(pieces=pieces), into)


@contextmanager
def disk(folder: Path, size: str = "1m", *more: str) -> Iterator[Path]:
    """Give a disk of its own, as small as that."""
    folder.mkdir()
    words = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        ",".join((f"size={size}", *more)),
        "cvl-test",
        str(folder),
    ]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# --- faults of this machine, on the way into the folder


def test_a_disk_that_is_full_is_told_with_what_to_do(tmp_path: Path) -> None:
    with disk(tmp_path / "small") as small:
        with pytest.raises(Blocked, match="No space left on device") as caught:
            land(small / "results", b"a", b"b", b"c", size=400_000)
        assert str(small) in str(caught.value)
        assert "cvl fetch RUN -o DIR" in caught.value.hint
        assert {path.name for path in (small / "results").iterdir()} == {"a", "b"}


def test_a_disk_that_is_read_only_is_told(tmp_path: Path) -> None:
    with disk(tmp_path / "small") as small:
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        with pytest.raises(Blocked, match="Read-only file system"):
            land(small / "results", b"a")


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO]
)
@pytest.mark.parametrize("call", ["write", "rename", "mkdir"])
def test_what_no_file_can_get_past_ends_it_with_its_cause(
    number: int, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    into = tmp_path / "results"
    into.mkdir()
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(Blocked) as caught:
        land(into, b"d/a", b"d/b")
    assert os.strerror(number) in str(caught.value)
    assert caught.value.hint


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(Blocked, match=str(tmp_path / "results")) as caught:
        land(tmp_path / "results", b"a")
    assert "-o DIR" in caught.value.hint


def test_a_folder_with_too_long_a_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(Blocked, match="File name too long"):
        land(tmp_path / ("x" * 300), b"a")


def test_a_folder_that_is_removed_meanwhile_is_told(tmp_path: Path) -> None:
    into = tmp_path / "results"

    def chunks() -> Iterator[bytes]:
        data = tar_of(b"a", b"b")
        yield data[:1024]
        shutil.rmtree(into)
        yield data[1024:]

    pieces = tuple(Piece(source=b"work/" + n, target=n, size=3) for n in (b"a", b"b"))
    with pytest.raises(Blocked, match=f"{into}: No such file"):
        land_tar(chunks(), Results(pieces=pieces), into)


def test_no_descriptors_left_is_told(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "results").mkdir()
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        with pytest.raises(Blocked, match="Too many open files") as caught:
            land(tmp_path / "results", b"a")
        assert "ulimit -n" in caught.value.hint
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_name_that_does_not_fit_here_is_kept_apart_from_the_rest(tmp_path: Path) -> None:
    landed = land(tmp_path, b"a", b"y" * 300, b"c")
    assert {path.name for path in tmp_path.iterdir()} >= {"a", "c"}
    (refused,) = landed.refused_here
    assert refused.stays
    assert "too long" in refused.why


def test_a_stream_that_ends_early_may_come_whole_another_time(tmp_path: Path) -> None:
    pieces = (Piece(source=b"work/a", target=b"a", size=3),)
    with pytest.raises(BrokenOff):
        land_tar([tar_of(b"a")[:700]], Results(pieces=pieces), tmp_path)


# --- connections


def test_a_host_that_is_away_for_a_while_loses_nothing(host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        script = "head -c 9000000 /dev/urandom >big; echo ready; exit 4"
        cable.rate = 2_000_000
        with desk.running(script) as client:
            client.shows(b"ready")
            passes(cable, 1_000_000)
            cable.cut()
            client.says("asking again")
            time.sleep(3)
            cable.listen()
            done = client.ended()
        assert done.code == 4, done.err
        assert len(desk.result("big")) == 9_000_000


def left_there(desk: Desk, script: str) -> str:
    """Run a script whose results stay on the host; return the run's id."""
    done = desk.sh(script, "--no-fetch")
    assert done.code == 0, done.err
    return desk.runs()[0]


@pytest.mark.parametrize("changes", [False, True], ids=["the same", "changed"])
def test_a_large_file_goes_on_where_it_was_unless_it_is_another_by_then(
    host: Sshd, tmp_path: Path, changes: bool
) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        run = left_there(desk, f"head -c {MUCH} /dev/urandom >big; echo a >small")
        (there,) = host.home.glob(f".cvl/jobs/{run}/**/big")
        cable.rate, before = 6_000_000, cable.passed
        with desk.start("fetch", run, "-o", str(tmp_path / "here")) as client:
            passes(cable, MUCH // 2)
            cable.cut()
            client.says("asking again")
            if changes:
                with there.open("r+b") as file:
                    file.write(b"another")
            cable.rate = 0
            cable.listen()
            done = client.ended()
        assert done.code == 0, done.err
        assert (tmp_path / "here/big").read_bytes() == there.read_bytes()
        assert (tmp_path / "here/small").read_bytes() == b"a\n"
        assert (cable.passed - before < 1.2 * MUCH) == (not changes)


def test_what_a_fetch_that_is_killed_has_brought_does_not_come_again(
    host: Sshd, tmp_path: Path
) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        made = f"for n in 1 2 3 4 5 6 7 8; do head -c {MUCH // 8} /dev/urandom >$n; done"
        run, here = left_there(desk, made), tmp_path / "here"
        cable.rate = 3_000_000
        with desk.start("fetch", run, "-o", str(here)) as client:
            passes(cable, MUCH * 3 // 4)
            os.kill(client.process.pid, signal.SIGKILL)
            client.process.wait()
        cable.rate, before = 0, cable.passed
        assert desk.cvl("fetch", run, "-o", str(here)).code == 0
        assert cable.passed - before < MUCH * 3 // 4
        assert sum((here / str(n)).stat().st_size for n in range(1, 9)) == MUCH


def test_a_file_that_shrinks_while_it_is_sent_is_told_and_comes_again(
    host: Sshd, tmp_path: Path
) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        run = left_there(desk, f"head -c {MUCH} /dev/urandom >big")
        (there,) = host.home.glob(f".cvl/jobs/{run}/**/big")
        cable.rate = 6_000_000
        with desk.start("fetch", run, "-o", str(tmp_path / "here")) as client:
            passes(cable, MUCH // 4)
            os.truncate(there, MUCH // 2)
            cable.rate = 0
            done = client.ended()
        assert "big: File shrank by" in done.err
        assert desk.cvl("fetch", run, "-o", str(tmp_path / "here")).code == 0
        assert (tmp_path / "here/big").read_bytes() == there.read_bytes()


def test_sshd_that_is_started_again_meanwhile_is_waited_for(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd") as own:
        desk = Desk(folder=tmp_path / "desk", options=("--ssh", own.name), env=own.env)
        with desk.running("echo a >a; echo ready; sleep 1; exit 5") as client:
            client.shows(b"ready")
            own.stop()
            own.cut()
            time.sleep(2)
            own.start()
            done = client.ended()
        assert done.code == 5, done.err
        assert desk.result("a") == b"a\n"


def test_a_full_disk_here_is_told_at_once_and_the_host_is_not_blamed(
    host: Sshd, tmp_path: Path
) -> None:
    """A stream that goes on for long: what ends it is our own stopping, and says nothing."""
    with disk(tmp_path / "small") as small:
        desk = Desk(folder=tmp_path / "desk", options=("--ssh", host.name), env=host.env)
        for size in (8_000_000, 30_000_000):
            began = time.monotonic()
            done = desk.sh(f"head -c {size} /dev/zero >big", "-o", str(small / f"r{size}"))
            took = time.monotonic() - began
            assert done.code == 125
            assert "No space left on device" in done.err
            assert "does not answer" not in done.err
            assert took < 30
            run = desk.runs()[0]
            assert f"cvl fetch {run}" in done.err
            again = desk.cvl("fetch", run, "-o", str(tmp_path / f"large-{size}"))
            assert again.code == 0, again.err
            assert (tmp_path / f"large-{size}/big").stat().st_size == size


def test_a_killed_tar_over_there_is_asked_for_again(host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        cable.rate = 3_000_000
        with desk.running("head -c 9000000 /dev/urandom >big; sha256sum <big; exit 6") as client:
            client.shows(b"-")
            killed = wait_for(lambda: tars(host))
            os.kill(killed[0], signal.SIGKILL)
            done = client.ended()
        assert done.code == 6, done.err
        run = desk.runs()[0]
        path = desk.repo / "cvl-runs" / run / "big"
        told = subprocess.run(["sha256sum", path], capture_output=True, check=True).stdout
        assert told.split()[0] == done.out.split()[0]


def tars(host: Sshd) -> list[int]:
    """Return the tars that run on a host for us."""
    found = []
    for pid in host.processes():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "tar":
                found.append(pid)
    return found


def test_results_that_cannot_be_written_are_no_reason_to_wait(tmp_path: Path, host: Sshd) -> None:
    (tmp_path / "file").touch()
    desk = Desk(folder=tmp_path / "desk", options=("--ssh", host.name), env=host.env)
    began = time.monotonic()
    done = desk.sh("echo a >a", "-o", str(tmp_path / "file"))
    assert done.code in {2, 125}
    assert str(tmp_path / "file") in done.err
    assert time.monotonic() - began < 30


def test_fetch_error_says_where_the_results_still_are() -> None:
    assert issubclass(Blocked, FetchError)
    assert issubclass(BrokenOff, FetchError)


def test_a_find_that_lists_something_else_is_told_at_once(tmp_path: Path) -> None:
    """What it says each time is no list that was cut short: asking again does not help."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "find").write_text("#!/bin/sh\necho this is no find\n")
    (tools / "find").chmod(0o755)
    with Sshd(tmp_path / "host", path=f"{tools}:{os.defpath}") as sshd:
        desk = Desk(folder=tmp_path / "desk", options=("--docker", "testhost"), env=sshd.env)
        done = desk.sh("echo a >a")
        assert done.code == 125
        assert "makes no sense" in done.err
        assert done.err.count("asking again") == 1
