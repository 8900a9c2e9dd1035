"""The life of one run: plan, agree, note, launch, follow, fetch, release; each a step below.

The same for every provider. Nothing here knows a provider's name, and nothing prints: what
happens is told to an `Observer`. A step that ends the run for us says so (`Context.over`), and
those after it do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cvl.core import identity
from cvl.core.errors import (
    CvlError,
    Elsewhere,
    LedgerError,
    LostContact,
    ProviderError,
    StillOpen,
    Unreachable,
    Unreadable,
    UsageError,
    said,
)
from cvl.core.interfaces import Provider
from cvl.core.process import Life, life, me
from cvl.core.scope import Cancelled, DeadlineExceeded, limits, signals
from cvl.core.spec import RESULTS, Cause, ExitStatus, JobSpec, Plan
from cvl.ledger import EARLY, Ledger, Run, RunState
from cvl.run.context import Context
from cvl.run.follow import ask, follow
from cvl.run.log import RunLog, run_folder
from cvl.run.options import Options
from cvl.run.teardown import finish, leave, leave_running, release, undo_launch

__all__ = ["Context", "Options", "adopt", "attach", "new_record", "recover", "run"]

LOOK = 0.5
"""Seconds between two looks at what another process is doing."""


def run(spec: JobSpec, provider: Provider, ledger: Ledger, options: Options) -> ExitStatus:
    """Run `spec` to its end, or until it is left to itself. Raises `CvlError`.

    Returns the script's own exit code, or the code of the cause that we decided.
    """
    plan = make_plan(spec, provider, options)
    options.agree(plan)
    if plan.obstacle:
        raise plan.obstacle
    ctx = Context(new_record(spec, provider, plan, options), provider, ledger, options)
    with signals(ctx.scope, ctx.again), ctx:
        ledger.begin(ctx.record)
        launch(ctx, spec)
        follow(ctx, stoppable=True)
        return finish(ctx)


def attach(
    record: Run, provider: Provider, ledger: Ledger, options: Options, *, watching: bool = False
) -> ExitStatus:
    """Follow a run from where its log ends; whoever is alone with it also brings it to its end.

    `watching`: only look on, whoever drives it. Ctrl-C only detaches. Raises `CvlError`.
    """
    if not watching:
        refuse_strangers(record, provider, ledger)
    watching = watching or not adopt(record, ledger)
    ctx = Context(record, provider, ledger, options, watching=watching)
    with signals(ctx.scope, ctx.again), ctx:
        reach(ctx)
        follow(ctx, stoppable=False)
        return finish(ctx)


def recover(ctx: Context, cause: Cause | None, *, at_once: bool = False) -> ExitStatus:
    """Bring a run whose driver is gone to its end; the caller has adopted it.

    Stops the job first, unless `cause` is None; fetches what can be had; releases all; `at_once`
    only releases. Nothing that fails on the way keeps what is rented from its end. Raises
    `StillOpen` when something was not seen gone.

    Without a `cause` to stop the job, what may pass (no network, no answer, one that nobody
    can read, or whatever else is no word about the job) is raised instead: to be tried again.
    """
    ctx.leases.expect_noted(ctx.record)
    state, status = ctx.record.state, ctx.record.status
    if state in EARLY:
        detail = "its driver was gone before the job had started"
        return _over(ctx, status, Cause.NOT_STARTED, detail)
    if at_once or state is RunState.RELEASING:
        return _over(ctx, status, cause or Cause.STOPPED, "released")
    try:
        with ctx.stack:
            ctx.execution, ctx.stop_for = ctx.provider.attach(ctx.record.handle, ctx.tell), cause
            if status is None:
                follow(ctx, stoppable=True)
            else:
                ctx.status = status
            return finish(ctx)
    except (StillOpen, LedgerError):
        raise
    except Exception as error:
        undecided = cause is None and status is None
        if ctx.kept or (may_pass(error) and undecided and ctx.leases.any_open()):
            raise
        return _over(ctx, status, Cause.LOST, said(error))


def make_plan(spec: JobSpec, provider: Provider, options: Options) -> Plan:
    """Return what would be done, and say what a person should know before. Raises `UsageError`."""
    if spec.nodes > 1 and not provider.many_nodes:
        raise UsageError(f"{provider.name} runs on one node", "leave --nodes out")
    plan = provider.plan(spec)
    if spec.warnings:
        plan = replace(plan, warnings=(*plan.warnings, *spec.warnings))
    for warning in plan.warnings:
        options.observer.warn(warning)
    return plan


def new_record(spec: JobSpec, provider: Provider, plan: Plan, options: Options) -> Run:
    """Return the ledger's line for a run that is about to begin."""
    results = options.results or RESULTS / spec.run_id
    return Run(
        id=spec.run_id,
        example=spec.example,
        preset=spec.preset,
        args=spec.args,
        runner=provider.name,
        where=plan.where,
        handle=dict(provider.handle(spec)),
        started=options.clock.time(),
        price_per_hour=plan.quote.price_per_hour,
        currency=plan.quote.currency,
        results=str(results.absolute()),
        detached=spec.detach,
        owner=me(),
    )


def launch(ctx: Context, spec: JobSpec) -> None:
    """Start the job."""
    ctx.tell("starting", f"{spec.run_id} on {ctx.record.where}")
    ctx.advance(RunState.LAUNCHING, handle=_with_identity(ctx, ctx.record.handle))
    try:
        with limits(ctx.scope):
            ctx.execution = ctx.provider.launch(spec, ctx.leases, ctx.scope)
    except Cancelled as cancelled:
        _launch_cancelled(ctx, cancelled.cause)
        return
    except DeadlineExceeded:
        late = CvlError(f"the time of {spec.run_id} was up before its job had started")
        raise undo_launch(ctx, late) from None
    except Exception as error:
        if isinstance(error, LostContact) and not ctx.leases.any_open():
            leave(ctx)
            raise
        text = f"{spec.run_id} could not be started: {said(error)}"  # what is none of ours is mute
        raise undo_launch(ctx, error if isinstance(error, CvlError) else CvlError(text)) from error
    ctx.advance(RunState.RUNNING, handle=_with_identity(ctx, ctx.execution.handle))
    if spec.detach and ctx.scope.cause is None:
        ctx.execution.close()
        leave_running(ctx, Cause.DETACHED)


def reach(ctx: Context) -> None:
    """Get hold of a job that was launched earlier, here or elsewhere."""
    if not ctx.watching and ctx.leases.any_open():
        ctx.leases.expect_noted(ctx.record)
        ctx.leases.guarded()
    handle, ctx.after = ctx.record.reach, RunLog(run_folder(ctx.record.id)).whole()[1]
    if ctx.watching:
        tell_keeper(ctx)
        try:
            handle = _wait_for_launch(ctx).handle
        except Cancelled:
            leave_running(ctx, Cause.DETACHED)
            return
    try:
        ctx.execution = ctx.provider.attach(handle, ctx.tell)
    except CvlError:
        noted = ctx.noted() if ctx.watching else None
        if noted is None:
            raise
        ctx.status, ctx.over = noted, True  # whoever kept it has brought it to its end meanwhile


def tell_keeper(ctx: Context) -> None:
    """Say who brings a run to its end whose client has died: that may take its time."""
    run = ctx.record
    if run.owner and run.guardian and life(run.owner) is Life.DEAD:
        ctx.tell("waiting", f"its client has died; its guardian brings {run.id} to its end")


def refuse_strangers(record: Run, provider: Provider, ledger: Ledger) -> None:
    """Raise `Elsewhere` where the provider is not whom the run is on: it could end nothing.

    So it must not become the one who drives the run: nobody else would try then. Raises
    `UsageError` where our own configuration leads nowhere.
    """
    open_resources = [lease.resource for lease in ledger.leases(record.id, open_only=True)]
    doubt = identity.stranger(provider, record.handle, open_resources) if open_resources else None
    if isinstance(doubt, (Elsewhere, UsageError)):  # the latter: a context that is not there
        raise doubt


def adopt(record: Run, ledger: Ledger) -> bool:
    """Become the one who drives this run, unless somebody who may be alive does, or is about to."""
    if record.owner and record.owner != me():
        guarded = record.guardian not in {"", me()} and life(record.guardian) is not Life.DEAD
        if guarded or life(record.owner) is not Life.DEAD:
            return False
    return record.owner == me() or ledger.take(record.id, me(), record.owner)


def may_pass(error: Exception) -> bool:
    """Return whether an error says nothing of the job: another time there may be an answer."""
    passing = (LostContact, Unreachable, Unreadable, ProviderError)
    return isinstance(error, passing) or not isinstance(error, CvlError)


def _launch_cancelled(ctx: Context, cause: Cause) -> None:
    """Stop what an interrupted launch may have started; nobody knows until asked."""
    if ctx.leases.any_open():
        _over(ctx, None, cause)
        return
    ctx.execution = ctx.provider.attach(ctx.record.reach, ctx.tell)
    try:
        status = ask(ctx)
    except (Unreachable, DeadlineExceeded):
        status = ctx.decided(Cause.NOT_STARTED)
    except Exception:  # noqa: BLE001 - an answer that nobody can read: it may run
        status = None
    if status is None or status.cause not in {Cause.LOST, Cause.NOT_STARTED}:
        ctx.advance(RunState.RUNNING)
        ctx.stop_for = cause
        return
    ctx.execution.close()
    _over(ctx, None, cause)


def _over(ctx: Context, status: ExitStatus | None, cause: Cause, detail: str = "") -> ExitStatus:
    return release(ctx, ctx.decided(cause, detail) if status is None else status)


def _with_identity(ctx: Context, handle: Mapping[str, str]) -> Mapping[str, str]:
    """Return a handle with whom the run is on, as far as that can be told by now.

    Where it cannot, the launch itself says what is wrong.
    """
    try:
        who = identity.of(ctx.provider)
    except Exception:  # noqa: BLE001 - a library's word about it says no more
        who = ""
    return {**handle, identity.IDENTITY: who} if who else handle


def _wait_for_launch(ctx: Context) -> Run:
    """Return the run once whoever is starting its job has, or has died over it."""
    run = ctx.record
    if run.state in EARLY:
        ctx.tell("waiting", f"for {run.id} to be started")
    while run.state in EARLY and life(run.owner) is not Life.DEAD:
        ctx.scope.sleep(LOOK)
        run = ctx.ledger.run(run.id)
    return run
