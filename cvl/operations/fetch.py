"""Brings a run's results here, also while it goes on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cvl.core.errors import FetchError, LedgerError
from cvl.core.interfaces import Observer
from cvl.core.paths import ledger_file
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.core.spec import FETCH_LIMIT
from cvl.core.units import elapsed
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.foreign_runs import find, foreign
from cvl.operations.reattach import attached, check_login, standing_when_slow


def fetch(run_id: str, into: Path | None, observer: Observer) -> None:
    """Bring everything new or changed into `into`, else where the run says. Raises `CvlError`."""
    ledger = Ledger(ledger_file())
    run = find(run_id, ledger)
    folder = Path(into or run.results).absolute()
    scope = Scope(seconds=FETCH_LIMIT, tell=observer.phase)
    with standing_when_slow(run, observer.warn), attached(run, observer.phase) as execution:
        try:
            check_login(run, execution, observer.phase)
            execution.fetch(folder, scope)
        except DeadlineExceeded:
            raise FetchError(
                f"the results of {run.id} did not arrive within {elapsed(FETCH_LIMIT)}",
                f"what has arrived is whole; `cvl fetch {run.id}` gets the rest",
            ) from None
    if run.state is RunState.FETCHING and not foreign(run):
        _note_fetched(run, ledger)


def _note_fetched(run: Run, ledger: Ledger) -> None:
    """Note that all results are here, where only a release is to follow."""
    with suppress(LedgerError):  # then they are only fetched once more
        if ledger.leases(run.id, open_only=True):
            ledger.note(run.id, fetched=True)
