"""The spare copy of what the cache holds: made beside one run, for the next one to move."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cvl.tests import farside
from cvl.tests.farside import Content, Host, Reply, kill, processes, wait_for

FILES: dict[str, Content] = {"tree/d/f": b"1", "tree/g": b"2"}
SHOW = "cat d/f g; ls d\n"
SLOW_CP = """#!/bin/sh
case "$*" in *spare/tree) touch "$SLOW/began"; until [ -e "$SLOW/go" ]; do sleep 0.01; done ;; esac
exec /bin/cp "$@"
"""


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Host]:
    """A host on which the copy for the spare waits for `slow/go`; `slow/began` says it does."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "cp").write_text(SLOW_CP)
    (folder / "cp").chmod(0o755)
    [there] = farside.hosted(tmp_path, "dash")
    path = f"{folder}:{there.env['PATH']}"
    yield replace(there, env={**there.env, "PATH": path, "SLOW": str(folder)})
    (folder / "go").touch()
    wait_for(lambda: not processes(there))


def start(host: Host, run: str, base: str = "t1", tree: str = "t1", **more: object) -> Reply:
    sent = FILES if base == "-" else {}
    return host.start(run, SHOW, sent, follow=1, cache="c", base=base, tree=tree, **more)


def spare(host: Host) -> Path:
    """Wait for the spare, and for whoever made it."""
    wait_for(lambda: not processes(host))
    return host.base / "cache/c/spare"


def test_the_next_run_moves_the_spare(host: Host) -> None:
    start(host, "r1", "-", spare=1)
    there = spare(host)
    assert (there / "id").read_text() == "t1\n"
    inode = (there / "tree/d/f").stat().st_ino
    assert start(host, "r2").body == b"12f\n"
    assert (host.job("r2") / "ws/d/f").stat().st_ino == inode
    assert not there.exists()
    assert (host.base / "cache/c/tree/d/f").stat().st_ino != inode
    assert not any((host.base / "new").iterdir())


def test_nobody_asks_for_one_no_spare(host: Host) -> None:
    start(host, "r1", "-")
    assert not spare(host).exists()


def test_a_job_that_starts_from_the_spare_has_changed_nothing_yet(host: Host) -> None:
    start(host, "r1", "-", spare=1)
    spare(host)
    host.start("r2", "echo 3 >g\n", follow=1, cache="c", base="t1", tree="t1")
    body = host.ask("changed", id="r2").body
    assert [record.split(b"\t")[-1] for record in body.split(b"\0")[:-1]] == [b"g"]


def test_differences_reach_the_spare_and_the_cache(host: Host) -> None:
    start(host, "r1", "-", spare=1)
    inode = (spare(host) / "tree/g").stat().st_ino
    delta = {"gone": b"d/f\0", "tree/d/new": b"3"}
    show = "cat d/new g; ls d\n"
    second = host.start("r2", show, delta, follow=1, cache="c", base="t1", tree="t2", spare=1)
    assert second.body == b"32new\n"
    assert (host.job("r2") / "ws/g").stat().st_ino == inode
    assert (spare(host) / "id").read_text() == "t2\n"
    for run in ("r3", "r4"):  # from the spare, and from the cache itself
        again = host.start(run, show, follow=1, cache="c", base="t2", tree="t2")
        assert again.body == second.body


@pytest.mark.parametrize("what", farside.SPOILT)
def test_a_spare_that_somebody_has_changed_is_not_used_but_made_anew(host: Host, what: str) -> None:
    start(host, "r1", "-", spare=1)
    there = spare(host)
    farside.spoil(there / "tree", what)
    assert start(host, "r2", spare=1).body == b"12f\n"
    assert spare(host).is_dir()
    assert start(host, "r3").body == b"12f\n"
    assert not there.exists(), "the new one was not used"


def test_a_spare_of_another_tree_is_made_anew(host: Host) -> None:
    start(host, "r1", "-", spare=1)
    spare(host)
    files = {"tree/d/f": b"5", "tree/g": b"6"}
    whole = host.start("r2", SHOW, files, follow=1, cache="c", base="-", tree="t2", spare=1)
    assert whole.body == b"56f\n"
    assert (spare(host) / "id").read_text() == "t2\n"
    assert start(host, "r3", "t2", "t2").body == b"56f\n"


def test_no_spare_where_it_would_take_more_than_a_tenth_of_what_is_free(host: Host) -> None:
    free = os.statvfs(host.base.parent).f_bavail * os.statvfs(host.base.parent).f_frsize >> 10
    start(host, "r1", "-", spare=free // 9)
    assert not spare(host).exists()


def test_nobody_waits_for_a_spare_and_one_that_is_late_is_none(slow: Host) -> None:
    folder = Path(slow.env["SLOW"])
    start(slow, "r1", "-", spare=1)
    wait_for((folder / "began").exists)
    delta: dict[str, Content] = {"tree/g": b"3"}
    second = slow.start("r2", SHOW, delta, follow=1, cache="c", base="t1", tree="t2")
    assert second.body == b"13f\n"
    (folder / "go").touch()
    assert not spare(slow).exists()
    assert not any((slow.base / "new").iterdir())


def test_a_spare_that_is_killed_over_leaves_nothing_that_counts(slow: Host) -> None:
    folder = Path(slow.env["SLOW"])
    start(slow, "r1", "-", spare=1)
    wait_for((folder / "began").exists)
    for pid in processes(slow):
        kill(pid)
    (folder / "go").touch()
    assert not spare(slow).exists()
    assert start(slow, "r2", spare=1).body == b"12f\n"
    assert (spare(slow) / "id").read_text() == "t1\n"
    slow.ask("sweep")
    assert not any((slow.base / "new").iterdir())
