"""`cvl stop` of several runs on hosts of the user's own, of which one answers nonsense."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from cvl.cli import main
from cvl.core.errors import LedgerError
from cvl.core.paths import ledger_file
from cvl.core.process import owner_of
from cvl.core.spec import Cause
from cvl.ledger import Ledger, RunState
from cvl.ledger.store import Store
from cvl.operations import stop
from cvl.testing import hostile
from cvl.testing.cli_harness import Desk
from cvl.testing.hostile import HostileHost
from cvl.testing.lambda_cloud import LambdaCloud as FakeCloud
from cvl.tests.test_guardian import fake, rented  # noqa: F401 - a fixture


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["garbage-result", "garbage"])
def test_what_cannot_be_read_is_no_success_and_stops_no_other(tmp_path: Path, name: str) -> None:
    with hostile.host(tmp_path / "bad") as bad, hostile.host(tmp_path / "good") as good:
        first, second = detached(tmp_path, bad), detached(tmp_path, good)
        desk = desk_of(tmp_path, good)
        bad.login.turn(name)
        done = desk.cvl("stop", first, second, "--grace", "1s")
        assert done.code == 125
        assert f"`cvl stop {first}` tries again" in done.err
        assert f"{first} is stopped" not in done.err
        assert f"{second} is stopped" in done.err
        assert "defect" not in done.err
        bad.login.reform()
        assert desk.cvl("stop", first, "--grace", "1s").code == 0


@pytest.mark.parametrize("state", [RunState.LAUNCHING, RunState.RUNNING])
def test_a_ledger_that_cannot_be_written_keeps_no_machine(
    fake: FakeCloud,  # noqa: F811
    state: RunState,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on a full disk: what is rented ends by its tag, and the exit says what is wrong."""
    run = rented(fake, dead())
    if state is RunState.RUNNING:
        Ledger(ledger_file()).advance(run, state)
    monkeypatch.setattr(Store, "writing", refused)
    assert main(["stop", run]) == 125
    assert not fake.alive()
    assert not fake.keys()
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("driven", [True, False])
def test_a_ledger_that_is_locked_takes_no_machine_from_who_brings_its_results(
    fake: FakeCloud,  # noqa: F811
    driven: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What nobody drives any more ends by its tag."""

    class Job:
        def stop(self, _grace: float, _cause: Cause) -> None:
            monkeypatch.setattr(Store, "reading", refused)

    client = subprocess.Popen(["sleep", "60"])
    try:
        run = rented(fake, owner_of(client.pid) if driven else dead())
        Ledger(ledger_file()).advance(run, RunState.RUNNING)
        monkeypatch.setattr(stop, "attached", lambda *_: nullcontext(Job()))
        assert main(["stop", run]) == 125
    finally:
        client.kill()
        client.wait()
    assert bool(fake.alive()) is driven
    assert "the disk is full" in capsys.readouterr().err


def refused(_store: Store) -> None:
    raise LedgerError("cannot write the ledger: the disk is full", "make room")


def dead() -> str:
    """Return an owner that has ended."""
    child = subprocess.Popen(["sleep", "60"])
    owner = owner_of(child.pid)
    child.kill()
    child.wait()
    return owner


def desk_of(folder: Path, there: HostileHost) -> Desk:
    options = ("--ssh", there.sshd.name)
    env = {"CVL_SSH_CONFIG": str(there.sshd.ssh_config)}
    return Desk(folder=folder, options=options, env=env, left=lambda _run: ())


def detached(folder: Path, there: HostileHost) -> str:
    done = desk_of(folder, there).sh("sleep 300", "-d")
    assert done.code == 0, done.err
    return done.out.decode().strip()
