"""Which runs there are, the newest first, and how each of them stands."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal
from math import inf

from cvl.core.errors import said
from cvl.core.frozen import dataclass
from cvl.core.paths import ledger_file
from cvl.core.process import Life, life, parse
from cvl.core.spec import Cause
from cvl.ledger import Ledger, Run, RunState, ps_json
from cvl.operations.foreign_runs import put_here, visitors
from cvl.operations.refresh import Hear, latest, undriven


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run of a list. `state` is in words; `seconds` and `cost` are what it has taken so far."""

    run: Run
    state: str
    seconds: float | None = None
    cost: Decimal | None = None
    unfetched: bool = False


def rows(limit: int | None, hear: Hear) -> list[Row]:
    """Return the newest runs and all that go on; see `_runs`."""
    ledger = Ledger(ledger_file())
    return [_row(run, ledger) for run in _runs(ledger, limit, hear)]


def rows_json(limit: int | None, hear: Hear) -> list[dict[str, object]]:
    """Return the same for a program."""
    ledger = Ledger(ledger_file())
    return [ps_json(run, ledger.leases(run.id)) for run in _runs(ledger, limit, hear)]


def row_json(run_id: str) -> dict[str, object]:
    """Return one run of our own for a program, as the ledger has it."""
    return ps_json(Ledger(ledger_file()).find(run_id))


def unfetched(run: Run) -> bool:
    """Return whether a run is over and nobody is bringing here what it may have made."""
    over = run.exit_code is not None and run.state is not RunState.ENDED
    return over and run.cause is not Cause.NOT_STARTED and undriven(run)


def _runs(ledger: Ledger, limit: int | None, hear: Hear) -> list[Run]:
    """Return at most `limit` runs and all that go on, the newest first.

    Runs from elsewhere follow our own, and only if all are wanted: but a cvl that was put here
    from elsewhere is there to show them. `hear` is told of one that is not where it was asked for.
    """
    own = {run.id: run for run in [*ledger.runs(limit), *ledger.runs(active_only=True)]}
    runs = _newest(latest([*own.values()], ledger, hear=hear), limit)
    if limit is None or put_here() is not None:
        runs += _newest(visitors(lambda: {run.id for run in ledger.runs()}), limit)
    return runs


def _newest(runs: Iterable[Run], limit: int | None) -> list[Run]:
    ordered = sorted(runs, key=lambda run: -inf if run.started is None else run.started)[::-1]
    older = [] if limit is None else ordered[limit:]
    return ordered[:limit] + [run for run in older if run.state is not RunState.ENDED]


def _row(run: Run, ledger: Ledger) -> Row:
    """Return one line of the list, whatever its run is like: it hides none of the others."""
    until = time.time() if run.ended is None else run.ended
    seconds = None if run.started is None else until - run.started
    try:
        state, cost, left = _state(run), _cost(run, ledger), unfetched(run)
    except Exception as error:  # noqa: BLE001 - a defect in one line is none in the list
        return Row(run=Run(id=run.id, where=run.where), state=f"unreadable: {said(error)}")
    return Row(run=run, state=state, seconds=seconds, cost=cost, unfetched=left)


def _state(run: Run) -> str:
    """Return how a run stands, with the guardian that watches over one that goes on."""
    state = "unknown" if run.detail and run.exit_code is None else run.state.value
    if run.exit_code is not None:
        state = f"{run.cause or 'exited'} {run.exit_code}"
    if run.damage:
        state = f"unreadable: {', '.join(run.damage)}"
    keeper = parse(run.guardian)
    return (
        f"{state}, guardian {keeper.pid}" if keeper and life(run.guardian) is Life.ALIVE else state
    )


def _cost(run: Run, ledger: Ledger) -> Decimal | None:
    if run.state is RunState.ENDED or run.price_per_hour is None:
        return run.cost
    from cvl.cleanup.leases import last_of, spent

    return spent(ledger.leases(run.id), time.time(), last_of(run))
