"""Stops runs, wherever they are, whoever follows them; what is rented for them ends as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from signal import SIGTERM

from cvl.cleanup.until_gone import end
from cvl.core.errors import (
    AuthError,
    CvlError,
    Elsewhere,
    LedgerError,
    LostContact,
    MissingExtra,
    StillOpen,
    UsageError,
    explained,
    said,
)
from cvl.core.interfaces import Execution, Observer
from cvl.core.parallel import bounded, together
from cvl.core.paths import ledger_file
from cvl.core.process import Life, describe, life, parse
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.core.spec import Cause, ExitStatus
from cvl.ledger import EARLY, Ledger, Run, RunState
from cvl.operations.foreign_runs import find, foreign
from cvl.operations.reap_findings import tagged
from cvl.operations.reattach import WithoutOutput, attached, follow, standing_when_slow
from cvl.operations.refresh import undriven
from cvl.providers import BUILT_IN, load, reopen
from cvl.run import lifecycle
from cvl.run.context import Context
from cvl.run.options import stop_limit

CALL_OFF_LIMIT = 300.0
"""Seconds in which a machine has to be seen gone."""
ALL_LIMIT = 3600.0
"""Seconds that the stopping of several runs may take; each has limits of its own."""
Complain = Callable[[str, str], None]


def stop(run_ids: Sequence[str], grace: float, observer: Observer, complain: Complain) -> int:
    """Stop runs side by side; return the exit code of the one that went worst.

    `complain(message, hint)` hears at once what went wrong with each.
    """
    calls = [partial(_stop, run_id, grace, observer, complain) for run_id in run_ids]
    if len(calls) == 1:  # in the main thread, where Ctrl-C can be answered
        return calls[0]()
    results = together(calls, ALL_LIMIT)
    for run_id, result in zip(run_ids, results, strict=True):
        if isinstance(result, Exception):
            complain(f"{run_id}: {said(result)}", f"`cvl stop {run_id}` tries again")
    return max(each if isinstance(each, int) else CvlError.exit_code for each in results)


def _stop(run_id: str, grace: float, observer: Observer, complain: Complain) -> int:
    """Stop the run that a person means; say what went wrong, and return the exit code for it."""
    ledger = Ledger(ledger_file())
    try:
        run = find(run_id, ledger)
    except CvlError as error:
        complain(str(error), error.hint)
        if isinstance(error, LedgerError):
            _end_tagged(run_id, observer)
        return error.exit_code
    try:
        if run.state is RunState.ENDED:
            observer.warn(f"{run.id} has already ended")
        else:
            with standing_when_slow(run, observer.warn):
                _stop_one(run, grace, ledger, observer)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other runs are to be stopped
        if isinstance(error, (LedgerError, Elsewhere)):
            _end_tagged(run.id, observer)  # what is seen under its tag, whoever shows it
        again = f"`cvl stop {run.id}` tries again"
        hint = error.hint if isinstance(error, CvlError) else ""
        complain(said(error), hint if run.id in hint else f"{hint}; {again}".lstrip("; "))
        return error.exit_code if isinstance(error, CvlError) else CvlError.exit_code
    return 0


def _end_tagged(run_id: str, observer: Observer) -> None:
    """End what carries the tag of a run, without the ledger: its job goes with its machine."""

    def end_there(name: str) -> None:
        if owner := load(name).owner():
            there = tagged(owner, run_id)
            end(owner, there, Scope(seconds=CALL_OFF_LIMIT, tell=observer.phase))
            for each in there:
                observer.warn(f"ended {each.kind} {each.name}")

    calls = [partial(end_there, name) for name in BUILT_IN]
    for name, result in zip(BUILT_IN, together(calls, ALL_LIMIT), strict=True):
        if isinstance(result, Exception):
            observer.warn(f"{name}: {explained(result)}")


def _stop_one(run: Run, grace: float, ledger: Ledger, observer: Observer) -> None:
    """Stop one run; if nobody else drives it, bring it to its end as well.

    Where something is rented and its job cannot be stopped, the rent ends all the same.
    """
    held = [] if foreign(run) else ledger.leases(run.id, open_only=True)
    if held and run.state in EARLY:
        _call_off(run, ledger, observer)
        observer.warn(f"{run.id} is stopped; its job had not begun")
        return
    try:
        status = _stopped(run, grace, ledger, observer)
    except (MissingExtra, Elsewhere):
        raise  # neither could its machine be given back
    except LedgerError as error:
        if undriven(run):
            raise
        text = f"{run.id} was told to stop, and not seen to end: {error}"
        raise LostContact(text, error.hint) from error  # whoever drives it brings its results
    except Exception as error:
        if not held or ledger.run(run.id).state is RunState.ENDED:
            raise
        rented = any(lease.price_per_hour is not None for lease in held)
        if isinstance(error, AuthError | UsageError) and not rented:
            raise  # whoever would end the rest does not let us in either
        observer.warn(f"{run.id} could not be stopped there: {said(error)}")
        observer.warn(f"{run.id}: its machine is given back now; results may be lost")
        _call_off(ledger.run(run.id), ledger, observer)
        observer.warn(f"{run.id} is stopped")
        return
    if status.cause is Cause.STOPPED:
        observer.warn(f"{run.id} is stopped")
    else:
        observer.warn(f"{run.id} had ended: {status.cause.value}, exit code {int(status)}")


def _stopped(run: Run, grace: float, ledger: Ledger, observer: Observer) -> ExitStatus:
    """Stop the job of a run, and see it ended. Raises what keeps that from being known."""
    scope = Scope(seconds=stop_limit(reopen(run.runner, run.handle), run.handle, grace))
    with attached(run, observer.phase, run.reach) as execution, _seen_to_end(run):
        bounded(lambda: execution.stop(grace, Cause.STOPPED), scope)
    if not foreign(run) and _may_drive(run, ledger):
        return follow(ledger.run(run.id), ledger, WithoutOutput(observer), hold=False)
    with attached(run, observer.phase, run.reach) as execution, _seen_to_end(run):
        return _until_ended(run, execution, ledger, scope)


@contextmanager
def _seen_to_end(run: Run) -> Iterator[None]:
    """Say what it means that a stop has taken too long. Raises `LostContact`."""
    try:
        yield
    except DeadlineExceeded:
        raise LostContact(
            f"{run.id} was not seen to end on {run.where}",
            f"it may still run there; `cvl stop {run.id}` tries again",
        ) from None


def _until_ended(run: Run, execution: Execution, ledger: Ledger, scope: Scope) -> ExitStatus:
    """Wait until the job is seen ended: by us, or by whoever drives the run and ends the rent."""

    def noted() -> ExitStatus | None:
        return None if foreign(run) else ledger.run(run.id).status

    seen: ExitStatus | None = None
    while (known := noted()) is None:
        if seen is not None:
            return seen
        seen = bounded(execution.poll, scope)
        if seen is None:
            scope.sleep(0.2)
    return known


def _call_off(run: Run, ledger: Ledger, observer: Observer) -> None:
    """End what is rented, at once, whoever drives the run: its job has not begun, or is lost."""
    keeper = parse(run.guardian)
    if keeper and life(run.guardian) is Life.ALIVE:
        os.kill(keeper.pid, SIGTERM)
    elif _may_drive(run, ledger):
        provider = reopen(run.runner, run.handle)
        options = lifecycle.Options(observer=WithoutOutput(observer))
        lifecycle.recover(Context(run, provider, ledger, options), Cause.STOPPED, at_once=True)
    else:
        raise CvlError(f"{run.id} is driven by {describe(run.owner)}", "stop it there")
    for _ in Scope(seconds=CALL_OFF_LIMIT).attempts((0.2,)):
        if ledger.run(run.id).state is RunState.ENDED:
            return
    raise StillOpen(f"{run.id} is not over yet", "`cvl ps` shows it; `cvl reap` ends it")


def _may_drive(run: Run, ledger: Ledger) -> bool:
    """Become the one who drives a run, if nobody does. Raises `Elsewhere` as the engine does."""
    lifecycle.refuse_strangers(run, reopen(run.runner, run.handle), ledger)
    return lifecycle.adopt(run, ledger)
