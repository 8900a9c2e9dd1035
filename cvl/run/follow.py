"""Follows one job to its end, and stops it where that is wanted."""

from __future__ import annotations

from contextlib import suppress

from cvl.core.errors import CvlError, LostContact, Unreachable, Unreadable, said
from cvl.core.interfaces import Execution
from cvl.core.parallel import bounded
from cvl.core.scope import Cancelled, DeadlineExceeded, Hushed, Scope
from cvl.core.spec import Cause, ExitStatus
from cvl.run.context import QUIET, Context
from cvl.run.log import RunLog, run_folder
from cvl.run.pump import Pump, pulling
from cvl.run.teardown import leave, leave_running, local_status, release

LOOK_ON = 0.5
"""Seconds between two looks at what the driver of a run has noted, for who only looks on."""
DRAIN = 3.0
"""Seconds for the last output of a run that its driver has brought to its end."""
ASK_LIMIT = 4.0
"""Seconds for the last question to a host that did not tell how its job ended."""
PAUSES = (1.0,)
"""Seconds between two attempts to tell a host to stop its job."""


def follow(ctx: Context, *, stoppable: bool) -> None:
    """Carry the output here until the job has ended; nothing is closed yet, for results follow.

    It begins after the cursor `ctx.after`, else where the log here ends. Where there is something
    to stop it for, or a signal comes and the job is ours to stop, it is stopped first.
    """
    if ctx.over:
        return
    log = RunLog(run_folder(ctx.record.id))
    after = log.whole()[1] if ctx.after is None else ctx.after
    clock, kept = ctx.options.clock, None if ctx.watching else log
    if ctx.options.fetch and not ctx.watching and ctx.leases.any_open():
        ctx.stack.enter_context(pulling(ctx.execution, ctx.results, Scope(clock)))
    pump = ctx.stack.enter_context(
        Pump(ctx.execution, ctx.options.observer, Scope(clock), log=kept, after=after)
    )
    try:
        if ctx.stop_for:
            raise Cancelled(ctx.stop_for)
        ctx.tell("running", ctx.record.id)
        if ctx.watching:
            ctx.status, ctx.over = _look_on(ctx, pump), True
        else:
            ctx.status = local_status(pump.wait(ctx.scope.within(ctx.leases.left())))
    except DeadlineExceeded:
        ctx.status = local_status(_stop(ctx, pump, Cause.TIMEOUT))
    except Cancelled as cancelled:
        if ctx.rushed:
            release(ctx, ctx.decided(cancelled.cause, "released"))
        elif not stoppable or cancelled.cause is Cause.HANGUP:
            leave_running(ctx, cancelled.cause if stoppable else Cause.DETACHED)
        else:
            ctx.status = local_status(_stop(ctx, pump, cancelled.cause))
    except Exception as error:
        raise _lost_contact(ctx, error) from error


def ask(ctx: Context) -> ExitStatus | None:
    """Return how the job ended, if it has. Raises as `poll`, and `DeadlineExceeded`."""
    return bounded(ctx.execution.poll, ctx.within(ASK_LIMIT))


def deliver(execution: Execution, grace: float, cause: Cause, scope: Scope) -> None:
    """Tell the job to stop; a host that cannot be reached is tried until the scope ends."""
    warned = False
    for _ in scope.attempts(PAUSES):
        try:
            bounded(lambda: execution.stop(grace, cause), scope)
            return scope.heard()
        except (Unreachable, Unreadable) as error:
            if isinstance(error, Unreadable) and not warned:
                warned = True
                scope.warn(f"{error}; asking again")
    scope.checkpoint()
    raise DeadlineExceeded


def _look_on(ctx: Context, pump: Pump) -> ExitStatus:
    """Return how a run ended that somebody else drives: as the job tells it, or its driver.

    What is rented may be gone before the job has told us: then the driver knows how it ended.
    """
    status: ExitStatus | None = None
    while True:
        try:
            status = status if status is not None else pump.wait(ctx.scope.within(LOOK_ON))
        except DeadlineExceeded:
            pass
        except CvlError:
            if (noted := ctx.noted()) is None:
                raise
            return noted
        if (noted := ctx.noted()) is not None:
            with suppress(DeadlineExceeded, CvlError):  # the rest of its output
                pump.wait(ctx.scope.within(DRAIN))
            return noted
        if status is not None:
            if status.cause is not Cause.LOST or not ctx.driven():
                return status
            ctx.scope.sleep(LOOK_ON)


def _stop(ctx: Context, pump: Pump, cause: Cause) -> ExitStatus:
    """Stop the job over there and follow it to its end."""
    ctx.tell("stopping", ctx.record.id)
    scope = ctx.within(ctx.stop_limit).patient(lambda: ctx.quiet)
    try:
        deliver(ctx.execution, ctx.options.grace, cause, scope)
        ending = pump.wait(scope)
        never = ending.cause is Cause.NOT_STARTED  # our stop was faster than its start
        return ctx.decided(cause) if never else ending
    except Exception as error:
        # whoever reads our output may have stopped reading: the pump is no witness then
        if (status := _answer(ctx)) is not None:
            return status
        if ctx.leases.any_open():
            ctx.hushed, ctx.doubted = isinstance(error, Hushed), True
            return ctx.decided(cause, f"not seen to end: {_why(error)}".rstrip(": "))
        leave(ctx)
        text = f": {_why(error)}" if _why(error) else ""
        raise LostContact(
            f"could not see {ctx.record.id} end on {ctx.record.where}{text}",
            f"it may still run there; `cvl stop {ctx.record.id}` tries again",
        ) from error


def _why(error: Exception) -> str:
    """Return what kept a job from being seen to end, "" if only time has passed."""
    if isinstance(error, Hushed):
        return f"it gives nothing, not for {QUIET:g} s"
    return "" if isinstance(error, (Cancelled, DeadlineExceeded)) else said(error)


def _answer(ctx: Context) -> ExitStatus | None:
    try:
        return ask(ctx)
    except Exception:  # noqa: BLE001 - no answer is no ending
        return None


def _lost_contact(ctx: Context, error: Exception) -> LostContact:
    """Give up following: the job lives on, and is always named with what gets it back."""
    run_id = ctx.record.id
    leave(ctx)
    back = f"the job lives on; `cvl attach {run_id}` follows it again"
    if isinstance(error, LostContact) and run_id in error.hint:
        back = error.hint
    elif isinstance(error, CvlError) and error.hint:
        back = f"{error.hint}; {back}"
    return LostContact(said(error), back)
