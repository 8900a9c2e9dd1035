"""`cvl reap --host`: what dead runs have left on a machine of the user's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.sshd import Sshd

MONTH = 31 * 86400


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "host") as sshd:
        yield sshd


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=("--docker", "testhost"), env=host.env)


def left(base: Path) -> set[str]:
    """Return what is left of runs and caches in a base."""
    return {
        str(path.relative_to(base))
        for kind in ("runs", "jobs", "cache", "new")
        for path in (base / kind).glob("*")
    }


def aged(base: Path) -> None:
    """Make all that lies there a month older."""
    past = time.time() - MONTH
    for path in [*base.glob("runs/*/result"), *base.glob("cache/*/used")]:
        os.utime(path, (past, past))


def test_what_ended_without_us_comes_home(desk: Desk, host: Sshd) -> None:
    gate, base = host.home / "gate", host.home / ".cvl"
    script = f"echo 1 >made; echo up; until [ -e {gate} ]; do sleep 0.05; done; exit 3"
    with desk.start("run", *desk.options, "one", "sh", script) as client:
        client.shows(b"up")
        client.process.kill()
        client.process.wait()
    (run,) = desk.runs()
    still = desk.cvl("reap", "--host", "testhost")
    assert (still.code, still.out.decode()) == (0, f"{run}: is still running\n")
    gate.touch()
    wait_for((base / "runs" / run / "result").exists)
    seen = desk.cvl("reap", "--host", "testhost", "--dry-run")
    assert seen.out.decode() == f"{run}: has ended\n"
    assert (base / "jobs" / run / "ws").exists()
    done = desk.cvl("reap", "--host", "testhost")
    assert done.code == 0, done.err
    assert desk.result("made") == b"1\n"
    kept = list((base / "runs" / run).iterdir())
    assert {path.name for path in kept} == {"result", "meta.json"}
    assert sum(path.stat().st_size for path in kept) < 4096
    assert desk.ps()[0]["exit_code"] == 3
    aged(base)
    assert desk.cvl("reap", "--host", "testhost").code == 0
    assert not {each for each in left(base) if run in each}


def test_one_run_of_which_nothing_can_be_learned_keeps_no_other(desk: Desk, host: Sshd) -> None:
    elsewhere, base = host.home / "elsewhere", host.home / ".cvl"
    for options in (("--remote-workdir", str(elsewhere)), ()):
        words = ("run", *desk.options, *options, "one", "sh", "echo up; sleep 1; exit 3")
        with desk.start(*words) as client:
            client.shows(b"up")
            client.process.kill()
            client.process.wait()
    second, first = [str(line["id"]) for line in desk.ps()]
    wait_for((elsewhere / "runs" / first / "result").exists)
    wait_for((base / "runs" / second / "result").exists)
    elsewhere.rename(host.home / "moved")
    elsewhere.write_text("no folder any more")
    done = desk.cvl("reap", "--host", "testhost")
    assert done.code == 125
    assert f"{first}: unknown: cannot write to {elsewhere} on testhost" in done.err
    assert f"{second}: has ended\n" in done.out.decode()
    states = {line["id"]: line["state"] for line in desk.ps()}
    assert (states[first] == "ended", states[second] == "ended") == (False, True)


@pytest.mark.parametrize("workdir", ["", "elsewhere", "~/else where"])
def test_what_is_old_goes_wherever_it_lies(desk: Desk, host: Sshd, workdir: str) -> None:
    base = host.home / ".cvl"
    options: tuple[str, ...] = ()
    if workdir:
        base = host.home / workdir.removeprefix("~/")
        options = ("--remote-workdir", workdir if "~" in workdir else str(base))
    kept = desk.sh("echo 1 >made", *options, "--keep")
    assert kept.code == 0, kept.err
    assert len(left(base)) == 3
    young = desk.cvl("reap", "--host", "testhost")
    assert (young.code, young.out) == (0, b"")
    aged(base)
    done = desk.cvl("reap", "--host", "testhost")
    prefix = f"{options[1]}: " if options else "testhost: "
    run, cache = sorted(done.out.decode().splitlines(), key=lambda line: "cache/" in line)
    assert run == f"{prefix}{desk.runs()[0]} removed"
    assert cache.startswith(f"{prefix}cache/")
    assert left(base) == set()


def test_a_base_can_be_named_that_only_another_ledger_knows(
    desk: Desk, host: Sshd, tmp_path: Path
) -> None:
    base = host.home / "elsewhere"
    assert desk.sh("true", "--remote-workdir", str(base)).code == 0
    other = Desk(folder=tmp_path / "other", options=desk.options, env=host.env)
    words = ("reap", "--host", "testhost", "--days", "0")
    assert other.cvl(*words).out == b""
    found = other.cvl(*words, "--remote-workdir", str(base))
    assert found.out.count(b"removed") == 2
    assert left(base) == set()


def test_nothing_is_made_where_nothing_was(desk: Desk, host: Sshd) -> None:
    words = ("reap", "--host", "testhost", "--remote-workdir", str(host.home / "never"))
    done = desk.cvl(*words)
    assert (done.code, done.out) == (0, b"")
    assert not (host.home / "never").exists()
    assert not (host.home / ".cvl").exists()


def test_what_still_runs_is_left_alone(desk: Desk, host: Sshd) -> None:
    with desk.running("echo up; exec sleep 1000") as client:
        client.shows(b"up")
        done = desk.cvl("reap", "--host", "testhost", "--days", "0")
        assert done.code == 0, done.err
        assert desk.runs()[0].encode() not in done.out
        assert desk.left(desk.runs()[0])
