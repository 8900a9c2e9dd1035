"""`cvl logs`, `attach`, `stop`, `fetch`: runs of any runner, from any later process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from signal import SIGTERM

import click

from cvl.cli.console import Console
from cvl.cli.let_in import see_let_in
from cvl.cli.options import FilePath, Grace
from cvl.cli.screen import SCREEN
from cvl.cli.standing import told
from cvl.cli.terminal import complain
from cvl.core.bounded import bounded
from cvl.core.errors import (
    AuthError,
    CvlError,
    Elsewhere,
    FetchError,
    LedgerError,
    LostContact,
    MissingExtra,
    StillOpen,
    UsageError,
    explained,
    said,
)
from cvl.core.interfaces import Execution
from cvl.core.parallel import together
from cvl.core.paths import ledger_file
from cvl.core.process import Life, describe, life, parse
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.core.spec import FETCH_LIMIT, GRACE, Cause, ExitStatus
from cvl.core.units import elapsed
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.foreign_runs import find, foreign
from cvl.operations.refresh import undriven
from cvl.providers import BUILT_IN, reopen
from cvl.run import lifecycle
from cvl.run.log import RunLog, run_folder
from cvl.run.options import stop_limit

CHUNK = 1 << 18
CALL_OFF_LIMIT = 300.0
"""Seconds in which a machine has to be seen gone."""
ALL_LIMIT = 3600.0
"""Seconds that the stopping of several runs may take; each has limits of its own."""


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(run_id: str, follow: bool) -> None:
    """Show what a run has written so far. Ctrl-C leaves the run alone."""
    run = found(run_id)
    log, console = RunLog(run_folder(run.id)), Console(quiet=True)
    try:
        over = run.state in {RunState.ENDED, RunState.RELEASING} and not foreign(run)
        size, cursor = log.whole()
        show(log.path, log.size() if over else size)
        if over:
            return
        with execution_of(run, console) as execution:
            if follow:
                with told(run, console):
                    for chunk in execution.chunks(cursor):
                        console.output(chunk)
            elif undriven(run):
                so_far(execution, cursor, console)
    except KeyboardInterrupt:
        return
    finally:
        console.close()


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
            with execution_of(run, console) as execution:
                so_far(execution, "", console)
        console.ended(run.status)
        return int(run.status)
    count(run, console)
    try:
        with nullcontext() if quiet else told(run, console):
            if undriven(run):  # else a guardian would go on trying for nobody
                with execution_of(run, console) as execution:
                    see_let_in(run, execution, console.phase)
            status = watched(run, console) if foreign(run) else driven(run, console)
    finally:
        console.close()
    console.ended(status)
    return int(status)


def count(run: Run, console: Console) -> None:
    """Let the status line count the time and the money of a run from its beginning."""
    now = time.time()
    if run.started is not None:
        console.since(now - run.started)
    if run.price_per_hour is not None:
        leases = Ledger(ledger_file()).leases(run.id)
        paid = [lease.created for lease in leases if lease.price_per_hour is not None]
        began = min((each for each in paid if each is not None), default=None)
        spent = None if began is None else now - began
        if paid or run.price_per_hour > 0:  # a machine of one's own costs nothing, not $0.00
            console.price(run.price_per_hour, run.currency, spent)


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--grace", type=Grace(), default=GRACE, metavar="10s", help="Between TERM and KILL.")
def stop(run_ids: tuple[str, ...], grace: float) -> int:
    """Stop runs, wherever they are, whoever follows them."""
    console = Console()
    calls = [partial(stop_named, run_id, grace, console) for run_id in run_ids]
    if len(calls) == 1:  # in the main thread, where Ctrl-C can be answered
        return calls[0]()
    results = together(calls, ALL_LIMIT)
    for run_id, result in zip(run_ids, results, strict=True):
        if isinstance(result, Exception):
            complain(f"{run_id}: {said(result)}", f"`cvl stop {run_id}` tries again")
    return max(each if isinstance(each, int) else CvlError.exit_code for each in results)


def stop_named(run_id: str, grace: float, console: Console) -> int:
    """Stop the run that a person means; say what went wrong, and return the exit code for it."""
    try:
        run = found(run_id)
    except LedgerError as error:
        complain(str(error), error.hint)
        stop_tagged(run_id, console)
        return error.exit_code
    except CvlError as error:
        complain(str(error), error.hint)
        return error.exit_code
    try:
        if run.state is RunState.ENDED:
            console.say(f"{run.id} has already ended")
        else:
            with told(run, console):
                stop_one(run, grace, console)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other runs are to be stopped
        again = f"`cvl stop {run.id}` tries again"
        hint = error.hint if isinstance(error, CvlError) else ""
        complain(said(error), hint if run.id in hint else f"{hint}; {again}".lstrip("; "))
        return error.exit_code if isinstance(error, CvlError) else CvlError.exit_code
    return 0


def stop_tagged(run_id: str, console: Console) -> None:
    """End what carries the tag of a run, without the ledger: its job goes with its machine."""
    from cvl.cleanup.until_gone import end
    from cvl.operations import reap
    from cvl.operations.reap_targets import default_owner

    def end_there(name: str) -> None:
        if owner := default_owner(name):
            there = reap.tagged(owner, run_id)
            end(owner, there, Scope(seconds=CALL_OFF_LIMIT, tell=console.phase))
            for each in there:
                console.say(f"ended {each.kind} {each.name}")

    calls = [partial(end_there, name) for name in BUILT_IN]
    for name, result in zip(BUILT_IN, together(calls, ALL_LIMIT), strict=True):
        if isinstance(result, Exception):
            console.say(f"{name}: {explained(result)}")


def stop_one(run: Run, grace: float, console: Console) -> None:
    """Stop one run; if nobody else drives it, bring it to its end as well.

    Where something is rented and its job cannot be stopped, the rent ends all the same.
    """
    ledger = Ledger(ledger_file())
    held = not foreign(run) and bool(ledger.leases(run.id, open_only=True))
    if held and not begun(run):
        given_back(run, ledger, console)
        console.say(f"{run.id} is stopped; its job had not begun")
        return
    try:
        status = stopped(run, grace, ledger, console)
    except MissingExtra:
        raise  # neither could its machine be given back
    except Elsewhere:
        stop_tagged(run.id, console)  # what is seen under its tag is ended, whoever shows it
        raise
    except Exception as error:
        if not held or ledger.run(run.id).state is RunState.ENDED:
            raise
        if isinstance(error, AuthError | UsageError) and not rents(run, ledger):
            raise  # whoever would end the rest does not let us in either
        console.say(f"{run.id} could not be stopped there: {said(error)}")
        console.say(f"{run.id}: its machine is given back now; results may be lost")
        given_back(ledger.run(run.id), ledger, console)
        console.say(f"{run.id} is stopped")
        return
    if status.cause is Cause.STOPPED:
        console.say(f"{run.id} is stopped")
    else:
        console.say(f"{run.id} had ended: {status.cause.value}, exit code {int(status)}")


def rents(run: Run, ledger: Ledger) -> bool:
    """Return whether a run has a machine of its own, which another than its host can end."""
    held = ledger.leases(run.id, open_only=True)
    return any(lease.price_per_hour is not None for lease in held)


def stopped(run: Run, grace: float, ledger: Ledger, console: Console) -> ExitStatus:
    """Stop the job of a run, and see it ended. Raises what keeps that from being known."""
    limit = stop_limit(reopen(run.runner, run.handle), run.handle, grace)
    scope = Scope(seconds=limit)
    with execution_of(run, console, run.reach) as execution, seen_to_end(run):
        bounded(lambda: execution.stop(grace, Cause.STOPPED), scope)
    if not foreign(run) and may_drive(run, ledger):
        return driven(ledger.run(run.id), Console(output=False), hold=False)
    with execution_of(run, console, run.reach) as execution:
        return until_ended(run, execution, scope)


def until_ended(run: Run, execution: Execution, scope: Scope) -> ExitStatus:
    """Wait until the job is seen ended: by us, or by whoever drives the run and ends the rent."""
    with seen_to_end(run):
        while (status := seen_ended(run, execution, scope)) is None:
            scope.sleep(0.2)
    known = noted(run)
    return status if known is None else known


@contextmanager
def seen_to_end(run: Run) -> Iterator[None]:
    """Say what it means that a stop has taken too long. Raises `LostContact`."""
    try:
        yield
    except DeadlineExceeded:
        raise LostContact(
            f"{run.id} was not seen to end on {run.where}",
            f"it may still run there; `cvl stop {run.id}` tries again",
        ) from None


def seen_ended(run: Run, execution: Execution, scope: Scope) -> ExitStatus | None:
    """Return how a run has ended: as noted here, else as its machine tells."""
    known = noted(run)
    return bounded(execution.poll, scope) if known is None else known


def noted(run: Run) -> ExitStatus | None:
    """Return how a run has ended if our ledger knows that by now."""
    return None if foreign(run) else Ledger(ledger_file()).run(run.id).status


def begun(run: Run) -> bool:
    """Return whether the job of a run may have begun."""
    return run.state not in {RunState.PLANNED, RunState.LAUNCHING}


def given_back(run: Run, ledger: Ledger, console: Console) -> None:
    """Call a run off; by its tag where the ledger cannot be written, or its account is another.

    Raises that.
    """
    try:
        call_off(run, ledger)
    except (LedgerError, Elsewhere):
        stop_tagged(run.id, console)
        raise


def call_off(run: Run, ledger: Ledger) -> None:
    """End what is rented, at once, whoever drives the run: its job has not begun, or is lost."""
    keeper = parse(run.guardian)
    if keeper and life(run.guardian) is Life.ALIVE:
        os.kill(keeper.pid, SIGTERM)
    elif may_drive(run, ledger):
        console = Console(output=False)
        provider = reopen(run.runner, run.handle)
        wanted = options(run, console)
        lifecycle.recover(run, provider, ledger, wanted, cause=Cause.STOPPED, at_once=True)
    else:
        raise CvlError(f"{run.id} is driven by {describe(run.owner)}", "stop it there")
    scope = Scope(seconds=CALL_OFF_LIMIT)
    while ledger.run(run.id).state is not RunState.ENDED:
        try:
            scope.sleep(0.2)
        except DeadlineExceeded:
            raise StillOpen(
                f"{run.id} is not over yet", "`cvl ps` shows it; `cvl reap` ends it"
            ) from None


def may_drive(run: Run, ledger: Ledger) -> bool:
    """Become the one who drives a run, if nobody does. Raises `Elsewhere` as the engine does."""
    lifecycle.refuse_strangers(run, reopen(run.runner, run.handle), ledger)
    return lifecycle.adopt(run, ledger)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-o", "--output-dir", type=FilePath(), metavar="DIR", help="Where they land.")
def fetch(run_id: str, output_dir: Path | None) -> None:
    """Bring a run's results here, now; also while it goes on, and more than once."""
    console = Console()
    run = found(run_id)
    into = Path(output_dir or run.results).absolute()
    scope = Scope(seconds=FETCH_LIMIT, tell=console.phase)
    with told(run, console), execution_of(run, console) as execution:
        try:
            see_let_in(run, execution, console.phase)
            execution.fetch(into, scope)
        except DeadlineExceeded:
            raise FetchError(
                f"the results of {run.id} did not arrive within {elapsed(FETCH_LIMIT)}",
                f"what has arrived is whole; `cvl fetch {run.id}` gets the rest",
            ) from None
    if run.state is RunState.FETCHING and not foreign(run):
        note_fetched(run)
    console.close()


def note_fetched(run: Run) -> None:
    """Note that all results are here, where only a release is to follow."""
    ledger = Ledger(ledger_file())
    with suppress(LedgerError):  # then they are only fetched once more
        if ledger.leases(run.id, open_only=True):
            ledger.note(run.id, fetched=True)


def found(run_id: str) -> Run:
    """Return the run that a person means. Raises `NotFound` and `Ambiguous`."""
    return find(run_id, Ledger(ledger_file()))


def driven(run: Run, console: Console, *, hold: bool = True) -> ExitStatus:
    """Follow a run, and bring it to its end unless somebody else does; `hold` as in `Options`."""
    provider = reopen(run.runner, run.handle)
    wanted = options(run, console, hold=hold)
    return lifecycle.attach(run, provider, Ledger(ledger_file()), wanted)


def watched(run: Run, console: Console) -> ExitStatus:
    """Follow a run that somebody elsewhere will bring to its end."""
    provider, ledger = reopen(run.runner, run.handle), Ledger(ledger_file())
    return lifecycle.attach(run, provider, ledger, options(run, console), watching=True)


def options(run: Run, console: Console, *, hold: bool = True) -> lifecycle.Options:
    """Return how a run that was noted earlier is brought to its end."""
    return lifecycle.Options(observer=console, results=Path(run.results), hold=hold)


@contextmanager
def execution_of(
    run: Run, console: Console, handle: Mapping[str, str] | None = None
) -> Iterator[Execution]:
    """Attach to a run, and let go of it in the end; `console` hears what is waited for."""
    known = run.handle if handle is None else handle
    execution = reopen(run.runner, run.handle).attach(known, console.phase)
    try:
        yield execution
    finally:
        execution.close()


def show(path: Path, size: int) -> None:
    """Copy the first `size` bytes of a log to stdout, byte for byte."""
    if size == 0:
        return
    with path.open("rb") as log:
        while data := log.read(min(size, CHUNK)):
            size -= len(data)
            SCREEN.job(data)
