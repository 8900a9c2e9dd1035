"""`cvl ps`: runs, the newest first."""

from __future__ import annotations

import time

import click

from cvl.errors import said
from cvl.ledger import Ledger, Run, RunState, ps_json
from cvl.news import latest, undriven
from cvl.paths import ledger_file
from cvl.process import Life, life, parse
from cvl.remote.visitors import visitors
from cvl.terminal import complain, show_json, show_table
from cvl.units import elapsed, sign

SHOWN = 20
"""Runs that are shown without -a, beside those that are going on."""


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Ended runs too, all of them.")
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
    """Return the newest runs and all that go on, our own and those from elsewhere."""
    own = {run.id: run for run in [*ledger.runs(limit), *ledger.runs(active_only=True)]}
    others = visitors(lambda: {run.id for run in ledger.runs()})
    runs = [*latest([*own.values()], ledger), *others]
    runs.sort(key=lambda run: run.started or 0.0, reverse=True)
    return [
        run
        for place, run in enumerate(runs)
        if limit is None or place < limit or run.state is not RunState.ENDED
    ]


HEAD = ("RUN", "EXAMPLE", "PRESET", "WHERE", "STATE", "TIME", "COST")


def readable(run: Run, ledger: Ledger) -> tuple[str, ...]:
    """Return one line of the table, whatever its run is like: it hides none of the others."""
    try:
        return row(run, ledger)
    except Exception as error:  # noqa: BLE001 - a defect in one line is none in the table
        return run.id, "", "", run.where, f"unreadable: {said(error)}", "", ""


def row(run: Run, ledger: Ledger) -> tuple[str, ...]:
    """Return one line of the table: with the guardian that watches over a run that goes on."""
    spent = "" if run.started is None else elapsed((run.ended or time.time()) - run.started)
    state = "unknown" if run.detail and run.exit_code is None else run.state.value
    if run.exit_code is not None:
        state = f"{run.cause or 'exited'} {run.exit_code}"
    if run.damage:
        state = f"unreadable: {', '.join(run.damage)}"
    amount, keeper = run.cost, parse(run.guardian)
    if run.state is not RunState.ENDED and run.price_per_hour is not None:
        from cvl.leases import last_of
        from cvl.leases import spent as so_far

        amount = so_far(ledger.leases(run.id), time.time(), last_of(run))
    if keeper and life(run.guardian) is Life.ALIVE:
        state += f", guardian {keeper.pid}"
    cost = "" if amount is None else f"{sign(run.currency)}{amount}"
    return run.id, run.example.rsplit("/", 1)[-1], run.preset, run.where, state, spent, cost


def unfetched(run: Run) -> bool:
    """Return whether a run is over and nobody is bringing its results here."""
    return run.exit_code is not None and run.state is not RunState.ENDED and undriven(run)
