"""`cvl ps`, `logs`, `attach`, `stop`, `fetch`: runs of any runner, from any later process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click

from cvl import engine
from cvl.cli.options import Grace
from cvl.console import Console, complain
from cvl.errors import CvlError
from cvl.ledger import Ledger, Run, RunState, ps_json
from cvl.paths import ledger_file
from cvl.provider import Execution
from cvl.runlog import RunLog, run_folder
from cvl.runners import reopen
from cvl.scope import Scope
from cvl.spec import GRACE, Cause
from cvl.units import elapsed

CHUNK = 1 << 18
SHOWN = 20
"""Runs that `ps` shows without -a, beside those that are going on."""


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Ended runs too, all of them.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def ps(everything: bool, as_json: bool) -> None:
    """List runs, newest first: where they are, how they ended, what they cost."""
    ledger = Ledger(ledger_file())
    found = ledger.runs(limit=None if everything else SHOWN)
    if as_json:
        click.echo(json.dumps([ps_json(run, ledger.leases(run.id)) for run in found], indent=2))
        return
    rows = [row(run) for run in found]
    widths = [max(len(cells[i]) for cells in [HEAD, *rows]) for i in range(len(HEAD))]
    for cells in [HEAD, *rows]:
        click.echo("  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())


HEAD = ("RUN", "EXAMPLE", "PRESET", "WHERE", "STATE", "TIME", "COST")


def row(run: Run) -> tuple[str, ...]:
    """Return one line of the table."""
    import time

    spent = "" if run.started is None else elapsed((run.ended or time.time()) - run.started)
    state = run.state.value
    if run.exit_code is not None:
        state = f"{run.cause or 'exited'} {run.exit_code}"
    cost = "" if run.cost is None else f"${run.cost}"
    return run.id, run.example.rsplit("/", 1)[-1], run.preset, run.where, state, spent, cost


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(run_id: str, follow: bool) -> None:
    """Show what a run has written. Ctrl-C leaves the run alone."""
    run = Ledger(ledger_file()).find(run_id)
    log, console = RunLog(run_folder(run.id)), Console(quiet=True)
    show(log.path)
    if run.state in {RunState.ENDED, RunState.RELEASING} or not (run.handle and follow):
        return
    with_execution(run, lambda execution: forward(execution, log.cursor(), console))


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but the job's output and errors.")
def attach(run_id: str, quiet: bool) -> int:
    """Follow a run to its end: shows the rest of its output, fetches, gives its exit code.

    Ctrl-C only detaches.
    """
    ledger, console = Ledger(ledger_file()), Console(quiet=quiet)
    run = ledger.find(run_id)
    if run.state is RunState.ENDED and run.status is not None:
        console.say(f"{run.id} has ended; `cvl logs {run.id}` shows its output")
        console.ended(run.status)
        return int(run.status)
    try:
        status = engine.attach(run, reopen(run.runner, run.handle), ledger, options(run, console))
    finally:
        console.close()
    console.ended(status)
    return int(status)


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--grace", type=Grace(), default=GRACE, metavar="10s", help="Between TERM and KILL.")
def stop(run_ids: tuple[str, ...], grace: float) -> int:
    """Stop runs, wherever they are, whoever follows them."""
    ledger, console, worst = Ledger(ledger_file()), Console(), 0
    for run_id in run_ids:
        try:
            run = ledger.find(run_id)
            if run.state is RunState.ENDED:
                console.say(f"{run.id} has already ended")
                continue
            stop_one(run, ledger, grace, console)
        except CvlError as error:
            complain(str(error), error.hint)
            worst = max(worst, error.exit_code)
    return worst


def stop_one(run: Run, ledger: Ledger, grace: float, console: Console) -> None:
    """Stop one run; if nobody else drives it, bring it to its end as well."""
    with_execution(run, lambda execution: execution.stop(grace, Cause.STOPPED))
    if engine.adopt(run, ledger):
        run = ledger.run(run.id)
        engine.attach(
            run, reopen(run.runner, run.handle), ledger, options(run, Console(output=False))
        )
    else:
        scope = Scope(seconds=grace + engine.STOP_LIMIT)
        with_execution(run, lambda execution: until_ended(execution, scope))
    console.say(f"{run.id} is stopped")


def until_ended(execution: Execution, scope: Scope) -> None:
    """Wait until the job is seen ended."""
    while execution.poll() is None:
        scope.sleep(0.2)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), metavar="DIR")
def fetch(run_id: str, output_dir: Path | None) -> None:
    """Bring a run's results here, now; also while it goes on, and more than once."""
    ledger, console = Ledger(ledger_file()), Console()
    run = ledger.find(run_id)
    into = Path(output_dir or run.results).absolute()
    scope = Scope(tell=console.phase)
    with_execution(run, lambda execution: execution.fetch(into, scope))
    console.close()


def options(run: Run, console: Console) -> engine.Options:
    """Return how a run that was noted earlier is brought to its end."""
    return engine.Options(observer=console, results=Path(run.results))


def with_execution(run: Run, use: Callable[[Execution], None]) -> None:
    """Attach to a run, use it, let go of it."""
    execution = reopen(run.runner, run.handle).attach(run.handle)
    try:
        use(execution)
    finally:
        execution.close()


def forward(execution: Execution, after: str, console: Console) -> None:
    """Show the output that follows the cursor `after`."""
    for chunk in execution.chunks(after):
        console.output(chunk)


def show(path: Path) -> None:
    """Copy a log to stdout, byte for byte."""
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return
    with log:
        while data := log.read(CHUNK):
            os.write(1, data)
