"""The end of a run, whatever led to it: results are brought, what is rented is seen gone, noted."""

from __future__ import annotations

from math import inf

from cvl.cleanup.guardian_keeper import DONE, FOLLOW, KEEP
from cvl.core.errors import Blocked, CvlError, FetchError, StillOpen, said
from cvl.core.parallel import bounded
from cvl.core.retry import AGAIN
from cvl.core.scope import Cancelled, DeadlineExceeded, Hushed, Scope
from cvl.core.spec import EXIT_CODES, Cause, ExitStatus
from cvl.core.units import elapsed
from cvl.ledger import RunState
from cvl.run.context import Context

LAST_TRY = 3.0
"""Seconds in which not a byte comes from a host that has given nothing for long already, and it is
waited for no more."""
DOUBT_LIMIT = 60.0
"""Seconds for which results are brought from a host whose job was not seen to end."""
DISCARD_LIMIT = 150.0
"""Seconds that a host may take to remove a workspace."""


def finish(ctx: Context) -> ExitStatus:
    """Bring the results here, release what is rented, close the ledger: what is left to do."""
    if ctx.over or ctx.taken():
        return ctx.status
    ctx.advance(RunState.FETCHING, status=ctx.status)
    try:
        ctx.kept = _fetch(ctx)
    except FetchError as error:
        if ctx.status.cause is not Cause.LOST:
            ctx.kept = _keep(ctx, error)
            raise
        ctx.warn(str(error))  # that it is lost says more
    finally:
        if not ctx.kept:
            release(ctx, ctx.status)
    return ctx.status


def release(ctx: Context, status: ExitStatus) -> ExitStatus:
    """See everything gone, then close the run. Raises `StillOpen`."""
    ctx.tell("releasing", ctx.record.id)
    limit = ctx.provider.listing_lag + ctx.options.release_limit
    ctx.leases.release(ctx.clean_up.shielded(limit))
    cost = ctx.leases.cost()
    ctx.ledger.finish(ctx.record.id, status, ended=ctx.options.clock.time(), cost=cost)
    if cost is not None:
        ctx.tell("cost", f"${cost}")
    elif ctx.leases.priced() and ctx.leases.left() is not None:
        ctx.tell("cost", "not known: a clock was set meanwhile")
    ctx.status, ctx.over = status, True
    return status


def undo_launch(ctx: Context, error: CvlError) -> CvlError:
    """End what a launch that failed has rented; return what to raise."""
    try:
        release(ctx, ctx.decided(Cause.NOT_STARTED, str(error)))
    except StillOpen as still:
        return StillOpen(f"{error}; {still}", still.hint)
    except CvlError as too:
        return CvlError(f"{error}; {too}", too.hint)
    return error


def leave_running(ctx: Context, cause: Cause) -> None:
    """Let the run go on without us, and say how to get it back."""
    run_id, where = ctx.record.id, ctx.record.where
    stop = cause is Cause.HANGUP and ctx.options.guarded and ctx.leases.any_open()
    leave(ctx, stop=stop)
    text = f"{run_id} lives on, on {where}; `cvl attach {run_id}` follows it"
    if stop:
        text = f"the guardian stops {run_id}, fetches, and ends the rent"
    if cause is Cause.HANGUP:
        ctx.warn(text)
    else:
        ctx.tell("left", text)
    ctx.status, ctx.over = ctx.decided(cause), True


def leave(ctx: Context, *, stop: bool = False) -> None:
    """Give the run up to whoever attaches next, or to the guardian."""
    if not ctx.watching:
        ctx.leases.give_up("" if stop else FOLLOW)


def local_status(status: ExitStatus) -> ExitStatus:
    """Return `status` with the exit code that its cause has on this side."""
    return ExitStatus(
        EXIT_CODES.get(status.cause, int(status)),
        cause=status.cause,
        run_id=status.run_id,
        detail=status.detail,
        log_bytes=status.log_bytes,
    )


def _there(ctx: Context) -> str:
    """Say where a run's files are over there."""
    folder = ctx.record.handle.get("folder", "")
    return f"in {folder} on {ctx.record.where}" if folder else f"on {ctx.record.where}"


def _fetch(ctx: Context) -> bool:
    """Bring the results here; return whether the rest of the way is another's."""
    if not ctx.options.fetch:
        ctx.tell("left", f"results {_there(ctx)}; `cvl fetch {ctx.record.id}` gets them")
    if not ctx.options.fetch or ctx.record.fetched or ctx.rushed:
        return False
    ctx.tell("fetching", ctx.record.results)
    options, began, waits = ctx.options, ctx.options.clock.monotonic(), ""

    def hear(phase: str, text: str) -> None:
        nonlocal waits
        waits = f" ({text.removesuffix(AGAIN)})" if phase == "waiting" else ""
        ctx.tell(phase, text)

    limit = ctx.leases.within(DOUBT_LIMIT if ctx.doubted else options.fetch_limit)
    ctx.fetching = Scope(options.clock, seconds=limit, tell=hear)
    scope = ctx.fetching.patient(lambda: _patience(ctx))
    try:
        bounded(lambda: ctx.execution.fetch(ctx.results, scope), scope)
    except Cancelled:
        return False if ctx.rushed else _leave_rest(ctx)
    except DeadlineExceeded as error:
        hushed, waited = isinstance(error, Hushed), elapsed(options.clock.monotonic() - began)
        why = f": {ctx.record.where} gives nothing" if hushed else f" within {waited}"
        raise FetchError(
            f"the results of {ctx.record.id} did not arrive{why}{waits}",
            f"what has arrived is whole; `cvl fetch {ctx.record.id}` gets the rest",
        ) from error
    except CvlError:
        raise
    except Exception as error:
        raise FetchError(
            f"the results of {ctx.record.id} could not be fetched: {said(error)}",
            f"`cvl fetch {ctx.record.id}` tries again",
        ) from error
    finally:
        ctx.fetching = None
    ctx.advance(RunState.RELEASING, fetched=True)
    if not options.keep:
        _discard(ctx)
    return False


def _patience(ctx: Context) -> float:
    """Return the seconds for which a host may give nothing while results are brought."""
    if ctx.hushed:
        return LAST_TRY
    return inf if ctx.scope.cause is None else ctx.quiet


def _leave_rest(ctx: Context) -> bool:
    """Say where the rest is; return whether the guardian brings it."""
    run_id = ctx.record.id
    if ctx.options.guarded and ctx.leases.any_open():
        leave(ctx, stop=True)
        ctx.warn(f"the guardian fetches the rest of {run_id} and ends the rent")
        return True
    ctx.warn(f"the rest is left {_there(ctx)}; `cvl fetch {run_id}` gets it")
    return False


def _discard(ctx: Context) -> None:
    scope = ctx.within(DISCARD_LIMIT).patient(lambda: _patience(ctx))
    try:
        bounded(ctx.execution.discard, scope)
    except Exception as error:  # noqa: BLE001 - the rest of the end comes all the same
        passed = isinstance(error, (Cancelled, DeadlineExceeded))
        text = "" if passed else f": {said(error)}"
        ctx.warn(f"the workspace of {ctx.record.id} is still on {ctx.record.where}{text}")


def _keep(ctx: Context, error: FetchError) -> bool:
    """Keep what holds the only copy of the results, if it was agreed to or somebody can help.

    Return whether it is kept; say so, and for how long.
    """
    run_id, where, leases = ctx.record.id, ctx.record.where, ctx.leases
    if ctx.options.keep_on_fetch_failure:
        ctx.warn(
            f"{where} {_stays(ctx)}, until its deadline: `cvl fetch {run_id}` tries again, "
            f"`cvl stop {run_id}` ends the rent"
        )
        leases.give_up(KEEP)
        return True
    helpless = not isinstance(error, Blocked) or not ctx.options.hold or ctx.rushed
    if helpless or not leases.any_open():
        return False
    if (left := leases.left()) is None:  # it costs nothing, and ends without us
        ctx.warn(
            f"{where} keeps the results of {run_id} for {elapsed(ctx.options.fetch_limit)}: "
            f"`cvl fetch {run_id} -o DIR` gets them, `cvl attach {run_id}` then ends it"
        )
        leases.give_up(DONE)
        return True
    seconds = leases.within(ctx.options.fetch_limit)
    if ctx.record.state is RunState.FETCHING:  # then somebody may have waited before us
        seconds = min(seconds, left)
    return ctx.options.guarded and seconds > 0 and _hold(ctx, seconds)


def _hold(ctx: Context, seconds: float) -> bool:
    """Keep what is rented for so long; a guardian ends it then. Return whether there is one."""
    run_id = ctx.record.id
    ctx.leases.shorten(seconds)
    try:
        ctx.leases.guarded()
    except CvlError as error:  # what has no way here says more
        ctx.warn(f"{error}; so what is rented ends now")
        return False
    ctx.warn(
        f"{ctx.record.where} {_stays(ctx)} for {elapsed(seconds)}, for its results: "
        f"`cvl fetch {run_id} -o DIR` gets them, `cvl stop {run_id}` ends the rent"
    )
    ctx.leases.give_up(KEEP)
    return True


def _stays(ctx: Context) -> str:
    rate = ctx.record.price_per_hour
    return "stays rented" if rate is None else f"stays rented at ${rate}/h"
