"""A start that is still on its way when somebody stops the run, or asks whether there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvl.tests import farside
from cvl.tests.farside import Host, finish, processes, script, wait_for

JOB = 'echo ran >"$CVL_WORK_DIR/ran"; exec sleep 1000\n'
HELD = """\
#!/bin/sh
for last; do :; done
case $last in */runs/one) ;; *) exec busybox {name} "$@" ;; esac
if [ {name} = mkdir ]; then
    busybox mkdir "$@" && touch {folder}/made
    until [ -e {folder}/moved ]; do sleep 0.01; done
else
    busybox mkdir {folder}/at-mv 2>/dev/null && until [ -e {folder}/made ]; do sleep 0.01; done
    python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$@"
    code=$?
    touch {folder}/moved
    exit $code
fi
"""
"""Holds a start's last rename until a folder is made there, and who makes that until then."""


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.mark.parametrize(
    ("verb", "more", "result"),
    [
        ("status", {}, "result not-started 125 0"),
        ("stop", {"cause": "interrupted"}, "result interrupted 130 0"),
        ("stop", {"cause": "stopped"}, "result stopped 143 0"),
    ],
)
def test_who_settles_it_is_told_what_stays_true(
    verb: str, more: dict[str, Any], result: str, host: Host
) -> None:
    assert host.ask(verb, id="one", **more).answers == ["unknown"]
    assert host.ask(verb, id="one", settle=1, **more).answers == [result]
    late = host.start("one", JOB, follow=1)
    assert (late.code, late.answers, late.body) == (0, ["started", result], b"")
    assert host.ask("status", id="one").answers == [result]
    assert not (host.job("one") / "work/ran").exists()
    assert processes(host, "one") == []


def test_a_run_that_is_there_is_not_touched_by_a_question(host: Host) -> None:
    assert host.start("one", JOB).answers == ["started"]
    assert host.ask("status", id="one", settle=1).answers == ["running"]
    assert host.ask("stop", id="one", settle=1, cause="stopped", grace=0).last == "stopping"
    assert host.result("one")[:2] == ["stopped", "143"]
    assert host.ask("status", id="one", settle=1).last.startswith("result stopped 143")


def test_what_was_never_started_is_listed_fetched_and_cleaned_as_any_run(host: Host) -> None:
    host.ask("status", id="one", settle=1)
    assert host.ask("runs").body == b"one result not-started 125 0\n"
    assert host.ask("follow", id="one", offset=0).answers == ["result not-started 125 0"]
    changed = host.ask("changed", id="one")
    assert (changed.code, changed.body) == (0, b"")
    assert host.ask("clean", id="one").answers == ["result not-started 125 0"]
    assert host.ask("sweep", days=0).body == b"one removed\n"


def test_a_start_cannot_take_the_place_that_a_stop_is_making(tmp_path: Path) -> None:
    """rename(2) replaces an empty folder: only GNU's mv asks the kernel not to."""
    [host] = farside.hosted(tmp_path, "dash")
    for name in ("mv", "mkdir"):
        (tmp_path / "bin" / name).write_text(HELD.format(name=name, folder=tmp_path))
        (tmp_path / "bin" / name).chmod(0o755)
    starting = host.open("start", {"id": "one", "follow": 1}, script(JOB))
    wait_for((tmp_path / "at-mv").exists)
    stop = {"id": "one", "settle": 1, "cause": "interrupted", "grace": 0}
    stopping = host.open("stop", stop)
    wait_for(lambda: (tmp_path / "made").exists() or stopping.poll() is not None)
    (tmp_path / "made").touch()
    assert finish(starting).last.startswith("result interrupted 130 0")
    assert finish(stopping).last == "result interrupted 130 0"
    assert not (host.job("one") / "work/ran").exists()
    assert processes(host) == []
    assert list(host.base.glob("new/*")) == []


@pytest.mark.parametrize("delay", range(8))
def test_a_start_and_a_stop_at_once(delay: int, host: Host) -> None:
    """Whoever is first: in the end nothing runs, and both have been told the same."""
    starting = host.open("start", {"id": "one", "follow": 1}, script(JOB))
    if delay:
        wait_for(lambda: delay < 4 or (host.base / "new").exists())
    stopped = host.ask("stop", id="one", settle=1, cause="interrupted", grace=0)
    assert stopped.last in {"stopping", "result interrupted 130 0"}
    told = finish(starting)
    assert list(host.base.glob("new/*")) == []
    assert told.answers[0] == "started"
    assert told.last.startswith("result interrupted 130 0")
    assert host.result("one")[:2] == ["interrupted", "130"]
    wait_for(lambda: processes(host, "one") == [])
