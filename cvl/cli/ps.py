"""`cvl ps`: runs, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cvl.cli.terminal import complain, show_json, show_table
from cvl.core.units import elapsed, sign
from cvl.operations.list import Row, rows, rows_json

if TYPE_CHECKING:
    from cvl.core.errors import Elsewhere
    from cvl.ledger import Run

SHOWN = 20
"""Runs that are shown without -a, beside those that are going on."""
HEAD = ("RUN", "EXAMPLE", "PRESET", "WHERE", "STATE", "TIME", "COST")


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
    limit = None if everything else SHOWN
    if as_json:
        show_json(rows_json(limit, complain_of))
        return
    table = rows(limit, complain_of)
    show_table([HEAD, *map(cells, table)])
    for run in [row.run for row in table if row.unfetched]:
        complain(f"{run.id} has ended; `cvl attach {run.id}` brings its results")


def complain_of(run: Run, error: Elsewhere) -> None:
    """Say that a run is not where it was asked for: what the table has of it may be old."""
    complain(f"{run.id}: {error}", error.hint)


def cells(row: Row) -> tuple[str, ...]:
    """Return one line of the table."""
    run, spent = row.run, "" if row.seconds is None else elapsed(row.seconds)
    cost = "" if row.cost is None else f"{sign(run.currency)}{row.cost}"
    return run.id, run.example.rsplit("/", 1)[-1], run.preset, run.where, row.state, spent, cost
