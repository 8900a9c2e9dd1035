"""Follows a run to its end, from any later process; its results land here."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal

from cvl.core.frozen import dataclass
from cvl.core.interfaces import Observer
from cvl.core.paths import ledger_file
from cvl.core.spec import ExitStatus
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.foreign_runs import find, foreign
from cvl.operations.logs import so_far
from cvl.operations.reattach import attached, check_login, follow, standing_when_slow
from cvl.operations.refresh import undriven


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What a run has taken since it began: `seconds` in all, and `paid` ones at that price."""

    seconds: float | None
    price_per_hour: Decimal | None
    currency: str
    paid: float | None


def attach(
    run_id: str, observer: Observer, count: Callable[[Meter], None], *, quiet: bool = False
) -> ExitStatus:
    """Return how a run ends; `count` hears at once what it has taken so far. Raises `CvlError`."""
    ledger = Ledger(ledger_file())
    run = find(run_id, ledger)
    if run.state is RunState.ENDED and run.status is not None:
        if foreign(run):
            with attached(run, observer.phase) as execution:
                for chunk in so_far(execution, "", observer):
                    observer.output(chunk)
        else:
            observer.warn(f"{run.id} has ended; `cvl logs {run.id}` shows its output")
        return run.status
    count(meter(run, ledger))
    with nullcontext() if quiet else standing_when_slow(run, observer.warn):
        if undriven(run):  # else a guardian would go on trying for nobody
            with attached(run, observer.phase) as execution:
                check_login(run, execution, observer.phase)
        return follow(run, ledger, observer)


def meter(run: Run, ledger: Ledger) -> Meter:
    """Return what a run has taken; a machine of one's own costs nothing, not $0.00."""
    now, price, paid = time.time(), run.price_per_hour, list[float | None]()
    if price is not None:
        leases = ledger.leases(run.id)
        paid = [lease.created for lease in leases if lease.price_per_hour is not None]
    began = min((each for each in paid if each is not None), default=None)
    return Meter(
        seconds=None if run.started is None else now - run.started,
        price_per_hour=price if paid or (price is not None and price > 0) else None,
        currency=run.currency,
        paid=None if began is None else now - began,
    )
