"""`cvl logs`, `attach`, `stop`, `fetch`: runs of any runner, from any later process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

import click

from cvl import engine
from cvl.cli.options import FilePath, Grace
from cvl.console import Console, complain
from cvl.errors import CvlError, StillOpen
from cvl.ledger import Ledger, Run, RunState
from cvl.news import undriven
from cvl.paths import ledger_file
from cvl.process import Life, describe, life, parse
from cvl.provider import Execution
from cvl.remote.visitors import find, foreign
from cvl.runlog import RunLog, run_folder
from cvl.runners import reopen
from cvl.scope import DeadlineExceeded, Scope
from cvl.spec import GRACE, Cause, ExitStatus

CHUNK = 1 << 18
CALL_OFF_LIMIT = 300.0
"""Seconds in which a machine that was not up yet has to be seen gone."""


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(run_id: str, follow: bool) -> None:
    """Show what a run has written so far. Ctrl-C leaves the run alone."""
    run = found(run_id)
    log, console = RunLog(run_folder(run.id)), Console(quiet=True)
    try:
        size, cursor = log.whole()
        show(log.path, size)
        if run.state in {RunState.ENDED, RunState.RELEASING} and not foreign(run):
            return
        with execution_of(run) as execution:
            if follow:
                for chunk in execution.chunks(cursor):
                    console.output(chunk)
            elif undriven(run):
                so_far(execution, cursor, console)
    except KeyboardInterrupt:
        return


def so_far(execution: Execution, after: str, console: Console) -> None:
    """Show what the run has written by now beyond what is here."""
    written = getattr(execution, "written", None)  # what only follows has nothing to ask
    if written is None:
        console.say("the rest is still over there: `cvl logs -f` or `cvl attach` shows it")
        return
    for chunk in written(after):
        console.output(chunk)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but the job's output and errors.")
def attach(run_id: str, quiet: bool) -> int:
    """Follow a run to its end: shows the rest of its output, fetches, gives its exit code.

    Ctrl-C only detaches.
    """
    console = Console(quiet=quiet)
    run = found(run_id)
    if run.state is RunState.ENDED and run.status is not None:
        if not foreign(run):
            console.say(f"{run.id} has ended; `cvl logs {run.id}` shows its output")
        else:
            with execution_of(run) as execution:
                so_far(execution, "", console)
        console.ended(run.status)
        return int(run.status)
    try:
        status = watched(run, console) if foreign(run) else driven(run, console)
    finally:
        console.close()
    console.ended(status)
    return int(status)


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--grace", type=Grace(), default=GRACE, metavar="10s", help="Between TERM and KILL.")
def stop(run_ids: tuple[str, ...], grace: float) -> int:
    """Stop runs, wherever they are, whoever follows them."""
    console, worst = Console(), 0
    for run_id in run_ids:
        try:
            run = found(run_id)
            if run.state is RunState.ENDED:
                console.say(f"{run.id} has already ended")
                continue
            stop_one(run, grace, console)
        except CvlError as error:
            complain(str(error), error.hint)
            worst = max(worst, error.exit_code)
    return worst


def stop_one(run: Run, grace: float, console: Console) -> None:
    """Stop one run; if nobody else drives it, bring it to its end as well."""
    ledger = Ledger(ledger_file())
    if not foreign(run) and not begun(run) and ledger.leases(run.id, open_only=True):
        call_off(run, ledger)
        console.say(f"{run.id} is stopped; its job had not begun")
        return
    with execution_of(run, run.reach) as execution:
        execution.stop(grace, Cause.STOPPED)
    if not foreign(run) and engine.adopt(run, ledger):
        status = driven(ledger.run(run.id), Console(output=False))
    else:
        scope = Scope(seconds=grace + engine.STOP_LIMIT)
        with execution_of(run, run.reach) as execution:
            status = until_ended(run, execution, scope)
    if status.cause is Cause.STOPPED:
        console.say(f"{run.id} is stopped")
    else:
        console.say(f"{run.id} had ended: {status.cause.value}, exit code {int(status)}")


def until_ended(run: Run, execution: Execution, scope: Scope) -> ExitStatus:
    """Wait until the job is seen ended: by us, or by whoever drives the run and ends the rent."""
    while (status := noted(run) or execution.poll()) is None:
        scope.sleep(0.2)
    return noted(run) or status


def noted(run: Run) -> ExitStatus | None:
    """Return how a run has ended if our ledger knows that by now."""
    return None if foreign(run) else Ledger(ledger_file()).run(run.id).status


def begun(run: Run) -> bool:
    """Return whether the job of a run may have begun."""
    return run.state not in {RunState.PLANNED, RunState.LAUNCHING}


def call_off(run: Run, ledger: Ledger) -> None:
    """End what is rented for a job that has not begun, whoever is waiting for it to come up."""
    keeper = parse(run.guardian)
    if keeper and life(run.guardian) is Life.ALIVE:
        os.kill(keeper.pid, SIGTERM)
    elif engine.adopt(run, ledger):
        console = Console(output=False)
        provider = reopen(run.runner, run.handle)
        engine.recover(run, provider, ledger, options(run, console), cause=Cause.STOPPED)
    else:
        raise CvlError(f"{run.id} is being started by {describe(run.owner)}", "stop it there")
    scope = Scope(seconds=CALL_OFF_LIMIT)
    while ledger.run(run.id).state is not RunState.ENDED:
        try:
            scope.sleep(0.2)
        except DeadlineExceeded:
            raise StillOpen(
                f"{run.id} is not over yet", "`cvl ps` shows it; `cvl reap` ends it"
            ) from None


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-o", "--output-dir", type=FilePath(), metavar="DIR", help="Where they land.")
def fetch(run_id: str, output_dir: Path | None) -> None:
    """Bring a run's results here, now; also while it goes on, and more than once."""
    console = Console()
    run = found(run_id)
    into = Path(output_dir or run.results).absolute()
    scope = Scope(tell=console.phase)
    with execution_of(run) as execution:
        execution.fetch(into, scope)
    console.close()


def found(run_id: str) -> Run:
    """Return the run that a person means. Raises `NotFound` and `Ambiguous`."""
    return find(run_id, Ledger(ledger_file()))


def driven(run: Run, console: Console) -> ExitStatus:
    """Follow a run, and bring it to its end unless somebody else does."""
    provider = reopen(run.runner, run.handle)
    return engine.attach(run, provider, Ledger(ledger_file()), options(run, console))


def watched(run: Run, console: Console) -> ExitStatus:
    """Follow a run that somebody elsewhere will bring to its end."""
    provider, ledger = reopen(run.runner, run.handle), Ledger(ledger_file())
    return engine.attach(run, provider, ledger, options(run, console), watching=True)


def options(run: Run, console: Console) -> engine.Options:
    """Return how a run that was noted earlier is brought to its end."""
    return engine.Options(observer=console, results=Path(run.results))


@contextmanager
def execution_of(run: Run, handle: Mapping[str, str] | None = None) -> Iterator[Execution]:
    """Attach to a run, and let go of it in the end."""
    execution = reopen(run.runner, run.handle).attach(handle or run.handle)
    try:
        yield execution
    finally:
        execution.close()


def show(path: Path, size: int) -> None:
    """Copy the first `size` bytes of a log to stdout, byte for byte."""
    if not size:
        return
    with path.open("rb") as log:
        while data := log.read(min(size, CHUNK)):
            size -= len(data)
            left = memoryview(data)
            while left:
                left = left[os.write(1, left) :]
