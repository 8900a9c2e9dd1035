"""The guardian as a real process: what it weighs, what it hears, and what it does then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cvl.cleanup.guardian_client import LATE, Guardian, environment
from cvl.cleanup.guardian_keeper import DONE, KEEP
from cvl.cleanup.leases import Leases
from cvl.core.paths import ledger_file
from cvl.core.process import me, owner_of
from cvl.core.scope import Scope
from cvl.core.spec import ExitStatus, Resource, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.guardian_listener import Listener
from cvl.providers.lambda_cloud.cloud import LambdaCloud, api
from cvl.run import lifecycle
from cvl.run.log import run_folder
from cvl.testing.cli_harness import wait_for
from cvl.testing.lambda_cloud import FAULTS, Settings
from cvl.testing.lambda_cloud import LambdaCloud as FakeCloud

MIB = 2**20


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    settings = Settings(
        request_interval=0, launch_interval=0, boot_seconds=0, terminate_seconds=0.05
    )
    with FakeCloud(settings) as cloud:
        given = {
            **cloud.env,
            "CVL_STATE_DIR": str(tmp_path / "state"),
            "LAMBDA_API_RPS": "0",
            "LAMBDA_SETTLE": "0.3",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture
def guard(fake: FakeCloud) -> Iterator[Guardian]:
    run = rented(fake)
    guardian = Guardian(run, {"api_key": fake.key}, run_folder(run))
    try:
        yield guardian
    finally:
        guardian.hang_up()
        guardian._process.terminate()
        wait_for(lambda: ended(guardian), 30)


def rented(fake: FakeCloud, owner: str = "") -> str:
    """Begin a run of ours, or of `owner`, that has a key and a machine; return its id."""
    run_id, ledger = new_run_id("guarded"), Ledger(ledger_file())
    ledger.begin(Run(id=run_id, runner="lambda", owner=owner or me(), handle={"run": run_id}))
    ledger.advance(run_id, RunState.LAUNCHING)
    cloud, name = LambdaCloud(api()), f"cvl-{run_id}"
    key = Resource(kind="ssh-key", name=name, run_id=run_id)
    machine = Resource(kind="instance", name=name, run_id=run_id, price_per_hour=Decimal(1))
    body = {
        "region_name": "us-west-1",
        "instance_type_name": "gpu_1x_a10",
        "ssh_key_names": [name],
        "name": name,
        "tags": [{"key": "cvl-run", "value": run_id}],
    }
    line = ledger.intend(run_id, key, provider="lambda")
    assert line
    ledger.confirm(line, cloud._add_key(name, PUBLIC))
    line = ledger.intend(run_id, machine, provider="lambda")
    assert line
    ledger.confirm(line, cloud._launch(body))
    return run_id


PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN+lJwsONkwrdsSnQsu1ydUkIuIg5oOC+Eslvmtt60T"


def only() -> Run:
    return Ledger(ledger_file()).runs()[0]


def ended(guardian: Guardian) -> bool:
    return not guardian.alive()


def nothing_left(fake: FakeCloud) -> bool:
    return not fake.alive() and not fake.keys() and only().state is RunState.ENDED


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_weighs_little_and_stands_alone(fake: FakeCloud, guard: Guardian) -> None:
    assert int(status(guard.pid)["VmRSS"].split()[0]) * 1024 <= 30 * MIB
    assert os.getsid(guard.pid) == guard.pid
    assert Path(f"/proc/{guard.pid}/cwd").readlink() == Path("/")
    environ = Path(f"/proc/{guard.pid}/environ").read_bytes()
    argv = Path(f"/proc/{guard.pid}/cmdline").read_bytes()
    assert fake.key.encode() not in environ + argv
    files = {str(each.readlink()) for each in Path(f"/proc/{guard.pid}/fd").iterdir()}
    assert not [each for each in files if each.startswith(("/dev/pts", "/dev/tty", "socket"))]
    assert "Max core file size        0" in Path(f"/proc/{guard.pid}/limits").read_text()
    assert only().guardian == owner_of(guard.pid) == guard.owner


def test_done_ends_it_and_touches_nothing(fake: FakeCloud, guard: Guardian) -> None:
    guard.hang_up(DONE)
    wait_for(lambda: ended(guard), 10)
    assert len(fake.alive()) == 1


def test_sigterm_releases_at_once(fake: FakeCloud, guard: Guardian) -> None:
    """Though its client lives, and drives the run."""
    before = time.monotonic()
    os.kill(guard.pid, signal.SIGTERM)
    wait_for(lambda: nothing_left(fake), 20)
    assert time.monotonic() - before < 10
    wait_for(lambda: ended(guard), 10)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_closed_terminal_is_nothing_to_it(fake: FakeCloud, guard: Guardian, number: int) -> None:
    os.kill(guard.pid, number)
    time.sleep(0.2)
    assert not ended(guard)
    assert len(fake.alive()) == 1


def test_hanging_up_while_we_live_is_no_reason_to_take_over(
    fake: FakeCloud, guard: Guardian
) -> None:
    """Only a dead owner is replaced; one that lives gives the run away, or is past its limit."""
    guard.hang_up()
    time.sleep(0.5)
    assert len(fake.alive()) == 1
    Ledger(ledger_file()).take(only().id, guard.owner, me())
    wait_for(lambda: nothing_left(fake), 20)


@pytest.mark.parametrize("said", [b"\n", b"\xff\n", b"limit soon\n", b"limit 1\n"])
def test_a_client_that_it_does_not_understand_is_outlived_all_the_same(
    fake: FakeCloud, guard: Guardian, said: bytes
) -> None:
    assert guard._process.stdin
    guard._process.stdin.write(said)
    guard._process.stdin.flush()
    time.sleep(0.3)
    assert len(fake.alive()) == 1
    Ledger(ledger_file()).take(only().id, guard.owner, me())
    guard.hang_up()
    wait_for(lambda: nothing_left(fake), 20)


def test_once_it_has_taken_over_it_is_told_no_other_limit() -> None:
    """A client that was stopped, or slept, may go on where it was."""
    before = signal.getsignal(signal.SIGTERM)
    listener = Listener(os.getpid())
    signal.signal(signal.SIGTERM, before)
    listener.limit(0.0, 5.0)
    assert listener.word() == LATE
    listener._take("limit", "600", "900")
    assert (listener.left(), (listener.last() or 900.0) <= 5.0) == (0.0, True)


def test_past_the_limit_it_takes_over_from_a_client_that_lives(
    fake: FakeCloud, guard: Guardian
) -> None:
    guard.limit(0.5, 0.0)
    assert len(fake.alive()) == 1
    wait_for(lambda: nothing_left(fake), 20)


def test_told_to_keep_it_waits_for_the_limit(fake: FakeCloud, guard: Guardian) -> None:
    guard.limit(1.5, 0.0)
    Ledger(ledger_file()).take(only().id, "", me())
    guard.hang_up(KEEP)
    time.sleep(0.5)
    assert len(fake.alive()) == 1
    wait_for(lambda: nothing_left(fake), 20)


def test_told_to_keep_it_ends_when_somebody_else_has_ended_the_run(
    fake: FakeCloud, guard: Guardian
) -> None:
    guard.hang_up(KEEP)
    ledger = Ledger(ledger_file())
    Leases(ledger, only().id, LambdaCloud(api()), Scope()).release()
    assert ledger.finish(only().id, ExitStatus(0))
    wait_for(lambda: ended(guard), 10)


def test_it_goes_on_until_the_cloud_answers_again(fake: FakeCloud, guard: Guardian) -> None:
    fake.inject(FAULTS["outage"])
    Ledger(ledger_file()).take(only().id, guard.owner, me())
    guard.hang_up()
    wait_for(lambda: nothing_left(fake), 40)
    assert "cannot be reached" in (run_folder(only().id) / "guardian.log").read_text()


def test_without_the_ledger_it_goes_by_tags(fake: FakeCloud, guard: Guardian) -> None:
    ledger_file().write_bytes(b"no database" * 1000)
    guard.hang_up()
    wait_for(lambda: not fake.alive() and not fake.keys(), 30)
    wait_for(lambda: ended(guard), 10)


@pytest.mark.parametrize("sent", [b"", b'{"api_key": "se'])
def test_without_the_keys_it_leaves_the_run_to_who_has_them(fake: FakeCloud, sent: bytes) -> None:
    """The client was killed before it had sent them all: this one could never end anything."""
    run = rented(fake)
    guardian = subprocess.run(
        [sys.executable, "-P", "-m", "cvl.operations.guardian_main", run],
        input=sent,
        capture_output=True,
        env=environment({"api_key": fake.key}),
        timeout=30,
        check=False,
    )
    assert (guardian.returncode, guardian.stdout) == (1, b"")
    assert Ledger(ledger_file()).run(run).guardian == ""


def test_a_client_that_dies_before_it_is_ready_is_one_that_is_dead(fake: FakeCloud) -> None:
    """Nobody hears that it is on duty; it goes to work all the same."""
    child = subprocess.Popen(["sleep", "60"])
    run = rented(fake, owner_of(child.pid))
    child.kill()
    child.wait()
    deaf, end = os.pipe()
    os.close(deaf)
    guardian = subprocess.Popen(
        [sys.executable, "-P", "-m", "cvl.operations.guardian_main", run],
        stdin=subprocess.PIPE,
        stdout=end,
        start_new_session=True,
        env=environment({}),
    )
    os.close(end)
    guardian.communicate(f'{{"api_key": "{fake.key}"}}\n'.encode(), timeout=60)
    assert guardian.returncode == 0
    assert nothing_left(fake)


CLIENT = """
import os, sys, time
from cvl.cleanup.guardian_client import Guardian
from cvl.ledger import Ledger
from cvl.core.paths import ledger_file
from cvl.core.process import me
from cvl.run.log import run_folder
run = sys.argv[1]
assert Ledger(ledger_file()).take(run, me(), "somebody")
guardian = Guardian(run, {"api_key": os.environ["LAMBDA_API_KEY"]}, run_folder(run))
print(guardian.pid, flush=True)
if not os.fork():
    os.close(1)
    time.sleep(30)  # a worker of the caller's, which holds the pipe open
time.sleep(60)
"""


def test_kill_9_of_the_client_is_acted_upon_within_two_seconds(fake: FakeCloud) -> None:
    """Also when a child of the client's keeps the pipe open."""
    run = rented(fake, "somebody")
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, run], stdout=subprocess.PIPE, start_new_session=True
    )
    assert client.stdout
    with client.stdout:
        pid = int(client.stdout.readline())
        time.sleep(0.1)
        requests = len(fake.log)
        client.kill()
        client.wait()
        before = time.monotonic()
        wait_for(lambda: len(fake.log) > requests, 10)
        acted = time.monotonic() - before
        wait_for(lambda: nothing_left(fake), 20)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), 10)
    os.killpg(client.pid, signal.SIGKILL)
    assert acted < 2


def test_the_same_cvl_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing relative and nothing empty on the path, no secret in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CVL_STATE_DIR", "state")
    monkeypatch.setenv("LAMBDA_API_KEY", "s3cret")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setattr(sys, "path", ["", "lib", "/usr/lib/python3", "/odd:name"])
    found = environment({"api_key": "s3cret", "none": ""})
    assert found["PYTHONPATH"] == f"{tmp_path}:{tmp_path}/lib:/usr/lib/python3"
    assert found["CVL_STATE_DIR"] == f"{tmp_path}/state"
    assert "LAMBDA_API_KEY" not in found
    assert found["EMPTY"] == ""


def test_it_starts_from_a_zipapp(
    fake: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    import cvl

    package = Path(cvl.__file__).parent
    archive = tmp_path / "cvl.pyz"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in sorted(package.rglob("*")):
            inner = file.relative_to(package.parent)
            if file.suffix in {".py", ".sh"} and "tests" not in inner.parts:
                zipped.write(file, str(inner))
    run = rented(fake, "somebody")
    script = CLIENT.partition("print(")[0] + "print(Guardian.__module__, guardian.alive())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'cvl.pyz'){script}", run],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "cvl.cleanup.guardian_client True\n", done.stderr
    wait_for(lambda: nothing_left(fake), 20)


@pytest.mark.parametrize(
    ("owner", "guarded", "adopts"),
    [("", True, True), ("dead", True, False), ("dead", False, True), ("alive", True, False)],
)
def test_who_attaches_drives_only_what_nobody_else_does_or_will(
    fake: FakeCloud, guard: Guardian, owner: str, guarded: bool, adopts: bool
) -> None:
    """A live guardian is about to take over from a dead owner; given away is given away."""
    ledger, run = Ledger(ledger_file()), only()
    child = subprocess.Popen(["sleep", "30"])
    keeper = {"": "", "dead": owner_of(child.pid), "alive": owner_of(child.pid)}[owner]
    try:
        ledger.take(run.id, keeper, me())
        if not guarded:
            ledger.note(run.id, guardian="")
        if owner == "dead":
            child.kill()
            child.wait()
        assert lifecycle.adopt(only(), ledger) is adopts
    finally:
        child.kill()
        child.wait()
