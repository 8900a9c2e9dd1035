"""What the ledger knows of a run that nobody drives, once its machine has said how it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cvl.core.spec import Cause, ExitStatus, Resource, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.refresh import latest


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def launched(ledger: Ledger) -> Run:
    """Note a run whose driver died while it launched it."""
    run_id = new_run_id("one")
    ledger.begin(Run(id=run_id, runner="ssh", where="there", handle={"run": run_id}))
    ledger.advance(run_id, RunState.LAUNCHING)
    return ledger.run(run_id)


def says(status: ExitStatus) -> Callable[[Run], ExitStatus]:
    return lambda _run: status


NEVER = ExitStatus(125, cause=Cause.NOT_STARTED)


def test_one_that_never_started_is_closed(ledger: Ledger) -> None:
    run = launched(ledger)
    (shown,) = latest([run], ledger, says(NEVER))
    assert (shown.state, shown.exit_code, shown.cause) == (RunState.ENDED, 125, Cause.NOT_STARTED)
    assert shown.ended is not None
    assert ledger.run(run.id) == shown
    assert ledger.runs(active_only=True) == []


def test_one_that_holds_something_is_not_closed(ledger: Ledger) -> None:
    run = launched(ledger)
    thing = Resource(kind="job", name="cvl-j", run_id=run.id)
    assert ledger.intend(run.id, thing, provider="k8s")
    (shown,) = latest([run], ledger, says(NEVER))
    assert (shown.state, ledger.run(run.id).state) == (RunState.FETCHING, RunState.FETCHING)
    assert ledger.leases(run.id, open_only=True)


def test_nor_one_that_somebody_has_taken_over_meanwhile(ledger: Ledger) -> None:
    run = launched(ledger)

    def taken(run: Run) -> ExitStatus:
        assert ledger.take(run.id, "another", run.owner)
        return NEVER

    latest([run], ledger, taken)
    assert ledger.run(run.id).state is not RunState.ENDED


@pytest.mark.parametrize("code", [0, 3])
def test_one_that_ran_waits_for_its_results(ledger: Ledger, code: int) -> None:
    (shown,) = latest([launched(ledger)], ledger, says(ExitStatus(code, cause=Cause.EXITED)))
    assert (shown.state, shown.exit_code) == (RunState.FETCHING, code)
    assert ledger.run(shown.id).exit_code == code
