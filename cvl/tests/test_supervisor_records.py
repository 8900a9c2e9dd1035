"""Whatever a job writes, removes or empties around it does not change how its run ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cvl.tests import farside
from cvl.tests.farside import Host, finish, kill, processes, read_until, script, wait_for

NAMES = (
    "result open options supervisor session seen place alive reserve marker output errors "
    "job.sh env.sh build.sh action.sh inplace probe action.log docker-used lock.1 lock.9 "
    "ending.stopped.0 ending.timeout.0 bin ws"
)
HARM = {
    "forged": 'for f in {names}; do echo "exited 0 0" >"$1/$f"; done',
    "running": 'for f in {names}; do echo running >"$1/$f"; done',
    "garbage": 'for f in {names}; do head -c 300 /dev/urandom >"$1/$f"; done',
    "emptied": 'for f in {names}; do : >"$1/$f"; done',
    "removed": 'for f in {names}; do rm -rf "$1/$f"; done',
    "folders": 'for f in {names}; do mkdir -p "$1/$f/x"; done',
    "pipes": 'for f in {names}; do mkfifo "$1/$f"; done',
    "all files emptied": 'find "$1" -type f -exec sh -c \'for f; do : >"$f"; done\' sh {{}} +',
    "all removed": 'rm -rf "$1"/* "$1"/.[!.]*',
    "all deleted": 'find "$1" -delete',
}
AROUND = """\
harm() {{ {body}; }} 2>/dev/null
( harm "$CVL_WORK_DIR/.." )
( harm "$PWD/.." )
( harm "$CVL_WORK_DIR" )
"""
"""One up from the work folder and from the workspace's root, where the job is; in the first."""


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def dash(tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, "dash")


def harm(name: str) -> str:
    """Return the sh lines that do one kind of harm wherever a job may reach by accident."""
    return AROUND.format(body=HARM[name].format(names=NAMES))


@pytest.mark.parametrize("name", HARM)
def test_the_code_is_the_jobs_own(name: str, host: Host) -> None:
    reply = host.start("one", f"{harm(name)}echo out\nexit 3\n", follow=1)
    assert (reply.last, reply.body) == ("result exited 3 4", b"out\n"), reply
    assert host.ask("status", id="one").last == "result exited 3 4"


@pytest.mark.parametrize("name", HARM)
def test_a_timeout_holds(name: str, host: Host) -> None:
    job = f"{harm(name)}echo out\nexec sleep 1000\n"
    reply = host.start("one", job, follow=1, timeout=1, grace=0)
    assert (reply.last, reply.body) == ("result timeout 124 4", b"out\n"), reply
    wait_for(lambda: processes(host, "one") == [])


@pytest.mark.parametrize("name", HARM)
def test_a_stop_holds(name: str, host: Host) -> None:
    job = f"{harm(name)}echo out\nexec sleep 1000\n"
    follower = host.open("start", {"id": "one", "follow": 1}, script(job))
    read_until(follower, b"out\n")
    assert host.ask("status", id="one").last == "running"
    assert host.ask("stop", id="one", grace=0).last == "stopping"
    assert finish(follower).last == "result stopped 143 4"
    wait_for(lambda: processes(host, "one") == [])


# --- a record that somebody else has written

FORGED = (
    "exited 0 0\n",
    f"{'exited 0 0':<99}\n5ea1f\n",
    "exited 0 0\n\n",
    "running\n",
    "",
    "exited\n",
    "timeout 124 0\n",
    "\0\n",
    "x" * 5000,
)
WAITS = 'echo up; until [ -e "$CVL_WORK_DIR/go" ]; do sleep 0.02; done; exit 3\n'


def waiting(host: Host) -> None:
    """Start a job that waits until `go`."""
    host.start("one", WAITS)
    wait_for(lambda: host.output("one") == b"up\n")


def end_supervisor(host: Host) -> None:
    pid = farside.supervisor(host, "one")
    kill(pid)
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())


def forge(host: Host, text: str) -> None:
    (host.run("one") / "result").write_text(text)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("text", FORGED, ids=lambda text: repr(text[:12]))
def test_a_forged_record_does_not_end_a_run(text: str, sealed: bool, host: Host) -> None:
    waiting(host)
    asker = host if sealed else replace(host, seal="")
    forge(host, text)
    assert asker.ask("status", id="one").last == "running"
    assert asker.ask("runs").body == b"one running\n"
    assert asker.ask("clean", id="one").last.startswith("fail usage")
    follower = asker.open("follow", {"id": "one", "offset": 0})
    read_until(follower, b"up\n")
    (host.job("one") / "work/go").touch()
    assert finish(follower).last == "result exited 3 3"
    assert asker.ask("status", id="one").last == "result exited 3 3"
    assert replace(host, seal="other").ask("status", id="one").last.startswith("result lost")


@pytest.mark.parametrize("sealed", [True, False])
def test_a_forged_record_does_not_make_a_stop_a_success(sealed: bool, host: Host) -> None:
    waiting(host)
    asker = host if sealed else replace(host, seal="")
    forge(host, "exited 0 0\n")
    assert asker.ask("stop", id="one", grace=0).last == "stopping"
    wait_for(lambda: asker.ask("status", id="one").last != "running")
    assert host.ask("status", id="one").last == "result stopped 143 3"
    wait_for(lambda: processes(host, "one") == [])


def test_a_forged_record_does_not_stop_a_timeout(host: Host) -> None:
    job = f'echo up; echo exited 0 0 >"{host.run("one")}/result"; exec sleep 1000\n'
    reply = host.start("one", job, follow=1, timeout=1, grace=0)
    assert reply.last == "result timeout 124 3"
    wait_for(lambda: processes(host, "one") == [])


@pytest.mark.parametrize("text", FORGED, ids=lambda text: repr(text[:12]))
def test_whoever_knows_the_seal_finds_a_forged_record_lost(text: str, host: Host) -> None:
    waiting(host)
    end_supervisor(host)
    forge(host, text)
    assert host.ask("status", id="one").last == "result lost 125 3"
    wait_for(lambda: processes(host, "one") == [])
    assert replace(host, seal="").ask("status", id="one").last == "result lost 125 3"


def test_what_lies_in_the_place_of_a_record_does_not_hold_anybody_up(host: Host) -> None:
    waiting(host)
    os.mkfifo(host.run("one") / "result")
    assert host.ask("status", id="one").last == "running"
    assert host.ask("runs").body == b"one running\n"
    (host.job("one") / "work/go").touch()
    assert host.ask("follow", id="one", offset=0).last == "result exited 3 3"


@pytest.mark.parametrize("name", ["result", "reserve", "output"])
@pytest.mark.parametrize("made", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_nor_does_it_where_the_job_put_it(
    name: str, made: Callable[[Path], None], host: Host
) -> None:
    waiting(host)
    (host.run("one") / name).unlink(missing_ok=True)
    made(host.run("one") / name)
    (host.job("one") / "work/go").touch()
    size = 0 if name == "output" else 3
    assert wait_for(lambda: ended(host)) == f"result exited 3 {size}"
    assert host.ask("follow", id="one", offset=0).last == f"result exited 3 {size}"


def ended(host: Host) -> str:
    """Return how the run ended, "" while it goes on."""
    said = host.ask("status", id="one").last
    return "" if said == "running" else said


def test_the_seal_is_nowhere_where_the_job_could_see_it(host: Host) -> None:
    seal = "deadbeef0123"
    mine = replace(host, seal=seal, env={**host.env, "_seal": "x"})
    files = {"run/build.sh": b"env; set\n"}
    mine.start("one", f"env; set; {WAITS}", files, timeout=60)
    wait_for(lambda: host.output("one").endswith(b"up\n"))
    for pid in processes(host, "one"):
        for file in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # a `sleep` that is over
                assert seal.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
    kept = [path for path in host.base.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if seal.encode() in path.read_bytes()]
    (host.job("one") / "work/go").touch()
    assert mine.ask("follow", id="one", offset=0).last.startswith("result exited 3 ")


# --- who was told no seal: logged in over there, or a run that an older cvl has started


def test_without_a_seal_a_run_that_has_ended_has_ended(host: Host) -> None:
    bare = replace(host, seal="")
    host.start("one", "exit 3\n", follow=1)
    bare.start("two", "exit 4\n", follow=1)
    for asker in (bare, host):
        assert asker.ask("status", id="one").last == "result exited 3 0"
    assert bare.ask("status", id="two").last == "result exited 4 0"
    assert bare.ask("follow", id="one", offset=0).last == "result exited 3 0"
    assert bare.ask("clean", id="one").last == "result exited 3 0"
    assert host.ask("status", id="one").last == "result exited 3 0"


def test_without_a_seal_a_timeout_action_holds_nobody_up(host: Host) -> None:
    gate = host.base / "gate"
    action = {"run/action.sh": f"until [ -e {gate} ]; do sleep 0.02; done\n".encode()}
    bare = replace(host, seal="")
    data = script("exec sleep 1000\n", action)
    reply = finish(bare.open("start", {"id": "one", "follow": 1, "timeout": 0.2, "grace": 0}, data))
    assert reply.last == "result timeout 124 0"
    assert bare.ask("status", id="one").last == "result timeout 124 0"
    gate.touch()


def test_a_cause_that_there_is_not_is_refused(dash: Host) -> None:
    waiting(dash)
    for cause in ("exited", "x", "detached", "out-of-memory"):
        assert dash.ask("stop", id="one", cause=cause).last == f"fail usage cause: {cause}"
    assert dash.ask("status", id="one").last == "running"


def older(host: Host, job: str) -> None:
    """Leave a run as an older cvl has: all in one folder, and a record without a seal."""
    run = host.run("one")
    for folder in ("work", "ws", "bin"):
        (run / folder).mkdir(parents=True)
    for name in ("output", "marker", "place", "open"):
        (run / name).touch()
    (run / "work/made").write_text(job)


def test_a_run_of_an_older_cvl_is_fetched_and_cleaned_as_it_is(host: Host) -> None:
    older(host, "x")
    forge(host, f"{'exited 3 0':<99}\n")
    bare = replace(host, seal="")
    assert bare.ask("status", id="one").last == "result exited 3 0"
    changed = bare.ask("changed", id="one")
    assert changed.answers == []
    assert b"\tw\tmade\0" in changed.body
    assert bare.ask("pack", b"work/made\0", id="one").body
    assert bare.ask("clean", id="one").last == "result exited 3 0"
    assert [path.name for path in host.run("one").iterdir()] == ["result"]


def test_what_a_job_left_of_which_nothing_is_known_goes_in_time(dash: Host) -> None:
    dash.start("one", "exit 0\n", follow=1)
    (dash.base / "jobs/stray/work").mkdir(parents=True)
    assert dash.ask("sweep", days=30).body == b""
    os.utime(dash.base / "jobs/stray", (0, 0))
    assert dash.ask("sweep", days=30).body == b"jobs/stray removed\n"
    assert (dash.base / "jobs/one/work").exists()
