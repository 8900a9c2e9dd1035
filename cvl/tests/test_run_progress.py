"""What whoever attaches to a run hears of those who keep it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cvl.core.process import me
from cvl.core.spec import Cause, ExitStatus, new_run_id
from cvl.host.provider import HostProvider
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.list import unfetched
from cvl.providers.base import Callbacks
from cvl.providers.sagemaker.registry import _remedy
from cvl.run.context import Context
from cvl.run.lifecycle import tell_keeper
from cvl.run.options import Options
from cvl.transports.local import Local

HERE = HostProvider("local", Local())
ME = "from cvl.core.process import me; print(me(), end='')"


@pytest.fixture
def dead() -> str:
    return subprocess.check_output([sys.executable, "-c", ME], text=True)


def test_a_guardian_that_took_over_is_named(tmp_path: Path, dead: str) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for owner, guardian, said in ((dead, me(), 1), (me(), me(), 0), (dead, "", 0)):
        heard: list[tuple[str, str]] = []
        ear = Callbacks({"on_event": lambda *words, heard=heard: heard.append(words)})
        run = ledger.begin(
            Run(id=new_run_id("one"), runner="lambda", owner=owner, guardian=guardian)
        )
        tell_keeper(Context(run, HERE, ledger, Options(observer=ear), watching=True))
        told = [text for name, text in heard if name == "waiting"]
        assert len(told) == said
        assert all("its client has died; its guardian" in text for text in told)


def test_how_a_run_has_ended_is_known_also_when_that_is_0(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    run = ledger.begin(Run(id=new_run_id("one"), runner="lambda", owner=me()))
    ctx = Context(run, HERE, ledger, Options(observer=Callbacks({})), watching=True)
    assert ctx.noted() is None
    ledger.finish(run.id, ExitStatus(0, cause=Cause.EXITED, run_id=run.id))
    known = ctx.noted()
    assert known is not None
    assert (int(known), known.cause) == (0, Cause.EXITED)


@pytest.mark.parametrize("cause", list(Cause))
def test_nobody_is_asked_to_fetch_what_a_run_that_never_started_made(
    dead: str, cause: Cause
) -> None:
    run = Run(
        id=new_run_id("one"),
        runner="ssh",
        owner=dead,
        state=RunState.FETCHING,
        exit_code=0,
        cause=cause,
    )
    assert unfetched(run) == (cause is not Cause.NOT_STARTED)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("tag invalid: The image tag 'x' already exists and is immutable", "make its tags mutable"),
        ("ImageTagAlreadyExistsException: the repository is IMMUTABLE", "make its tags mutable"),
        ("denied: User is not authorized to perform ecr:PutImage", "ecr:PutImage"),
        ("received unexpected HTTP status: 403 Forbidden", "ecr:PutImage"),
        ("connection refused", "trying again"),
    ],
)
def test_a_refused_push_gets_the_remedy_that_fits(said: str, remedy: str) -> None:
    found = _remedy(said)
    assert remedy in found
    assert ("ecr:PutImage" in found) == (remedy == "ecr:PutImage")
