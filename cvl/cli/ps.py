"""`cvl ps`: runs, the newest first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf

import click

from cvl.cli.terminal import complain, show_json, show_table
from cvl.core.errors import Elsewhere, said
from cvl.core.paths import ledger_file
from cvl.core.process import Life, life, parse
from cvl.core.spec import Cause
from cvl.core.units import elapsed, sign
from cvl.ledger import Ledger, Run, RunState, ps_json
from cvl.operations.foreign_runs import put_here, visitors
from cvl.operations.refresh import latest, undriven

SHOWN = 20
"""Runs that are shown without -a, beside those that are going on."""


@click.command()
@click.option(
    "-a",
    "--all",
    "everything",
    is_flag=True,
    help="All that have ended, too, and those that came to this machine from elsewhere.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def ps(everything: bool, as_json: bool) -> None:
    """List runs, newest first: where they are, how they ended, what they cost."""
    ledger = Ledger(ledger_file())
    found = listed(ledger, None if everything else SHOWN)
    if as_json:
        show_json([ps_json(run, ledger.leases(run.id)) for run in found])
        return
    show_table([HEAD, *(readable(run, ledger) for run in found)])
    for run in found:
        if unfetched(run):
            complain(f"{run.id} has ended; `cvl attach {run.id}` brings its results")


def listed(ledger: Ledger, limit: int | None) -> list[Run]:
    """Return the newest runs and all that go on, the newest first.

    Runs from elsewhere follow our own, and only if all are wanted: but a cvl that was put here
    from elsewhere is there to show them.
    """
    own = {run.id: run for run in [*ledger.runs(limit), *ledger.runs(active_only=True)]}
    runs = newest(latest([*own.values()], ledger, hear=told), limit)
    if limit is None or put_here() is not None:
        runs += newest(visitors(lambda: {run.id for run in ledger.runs()}), limit)
    return runs


def newest(runs: Iterable[Run], limit: int | None) -> list[Run]:
    """Return at most `limit` runs, the newest first, and all that go on."""
    ordered = sorted(runs, key=lambda run: -inf if run.started is None else run.started)[::-1]
    return [
        run
        for place, run in enumerate(ordered)
        if limit is None or place < limit or run.state is not RunState.ENDED
    ]


def told(run: Run, error: Elsewhere) -> None:
    """Say that a run is not where it was asked for: what the table has of it may be old."""
    complain(f"{run.id}: {error}", error.hint)


HEAD = ("RUN", "EXAMPLE", "PRESET", "WHERE", "STATE", "TIME", "COST")


def readable(run: Run, ledger: Ledger) -> tuple[str, ...]:
    """Return one line of the table, whatever its run is like: it hides none of the others."""
    try:
        return row(run, ledger)
    except Exception as error:  # noqa: BLE001 - a defect in one line is none in the table
        return run.id, "", "", run.where, f"unreadable: {said(error)}", "", ""


def row(run: Run, ledger: Ledger) -> tuple[str, ...]:
    """Return one line of the table: with the guardian that watches over a run that goes on."""
    until = time.time() if run.ended is None else run.ended
    spent = "" if run.started is None else elapsed(until - run.started)
    state = "unknown" if run.detail and run.exit_code is None else run.state.value
    if run.exit_code is not None:
        state = f"{run.cause or 'exited'} {run.exit_code}"
    if run.damage:
        state = f"unreadable: {', '.join(run.damage)}"
    amount, keeper = run.cost, parse(run.guardian)
    if run.state is not RunState.ENDED and run.price_per_hour is not None:
        from cvl.cleanup.leases import last_of
        from cvl.cleanup.leases import spent as so_far

        amount = so_far(ledger.leases(run.id), time.time(), last_of(run))
    if keeper and life(run.guardian) is Life.ALIVE:
        state += f", guardian {keeper.pid}"
    cost = "" if amount is None else f"{sign(run.currency)}{amount}"
    return run.id, run.example.rsplit("/", 1)[-1], run.preset, run.where, state, spent, cost


def unfetched(run: Run) -> bool:
    """Return whether a run is over and nobody is bringing here what it may have made."""
    over = run.exit_code is not None and run.state is not RunState.ENDED
    return over and run.cause is not Cause.NOT_STARTED and undriven(run)
