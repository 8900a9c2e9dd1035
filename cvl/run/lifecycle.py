"""The life of one run: plan, agree, note, launch, follow, fetch, release.

The same for every provider. Nothing here knows a provider's name, and nothing prints: what
happens is told to an `Observer`.
"""

from __future__ import annotations

from dataclasses import replace

from cvl.core import identity
from cvl.core.errors import Elsewhere, UsageError
from cvl.core.interfaces import Provider
from cvl.core.process import Life, life, me
from cvl.core.scope import signals
from cvl.core.spec import Cause, ExitStatus, JobSpec, Plan
from cvl.ledger import Ledger, Run
from cvl.run.drive import Drive
from cvl.run.options import Options

__all__ = ["Options", "adopt", "attach", "noted", "recover", "run"]


def run(spec: JobSpec, provider: Provider, ledger: Ledger, options: Options) -> ExitStatus:
    """Run `spec` to its end, or until it is left to itself. Raises `CvlError`.

    Returns the script's own exit code, or the code of the cause that we decided.
    """
    if spec.nodes > 1 and not provider.many_nodes:
        raise UsageError(f"{provider.name} runs on one node", "leave --nodes out")
    plan = provider.plan(spec)
    if spec.warnings:
        plan = replace(plan, warnings=(*plan.warnings, *spec.warnings))
    for warning in plan.warnings:
        options.observer.warn(warning)
    options.agree(plan)
    if plan.obstacle:
        raise plan.obstacle
    record = noted(spec, provider, plan, options)
    drive = Drive(record, provider, ledger, options)
    with signals(drive.scope, drive.again), drive:
        ledger.begin(record)
        return drive.launch(spec)


def attach(
    record: Run, provider: Provider, ledger: Ledger, options: Options, *, watching: bool = False
) -> ExitStatus:
    """Follow a run from where its log ends; whoever is alone with it also brings it to its end.

    `watching`: only look on, whoever drives it. Ctrl-C only detaches. Raises `CvlError`.
    """
    if not watching:
        refuse_strangers(record, provider, ledger)
    watching = watching or not adopt(record, ledger)
    drive = Drive(record, provider, ledger, options, watching=watching)
    with signals(drive.scope, drive.again), drive:
        return drive.resume()


def recover(
    record: Run,
    provider: Provider,
    ledger: Ledger,
    options: Options,
    *,
    cause: Cause | None,
    at_once: bool = False,
) -> ExitStatus:
    """Bring a run whose driver is gone to its end; the caller has adopted it.

    Stops the job first, unless `cause` is None; fetches what can be had; releases all; `at_once`
    only releases. Raises `StillOpen` when something was not seen gone.
    """
    return Drive(record, provider, ledger, options).recover(cause, at_once=at_once)


def noted(spec: JobSpec, provider: Provider, plan: Plan, options: Options) -> Run:
    """Return the ledger's line for a run that is about to begin."""
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
        results=str(options.results),
        detached=spec.detach,
        owner=me(),
    )


def refuse_strangers(record: Run, provider: Provider, ledger: Ledger) -> None:
    """Raise `Elsewhere` where the provider is not whom the run is on: it could end nothing.

    So it must not become the one who drives the run: nobody else would try then. Raises
    `UsageError` where our own configuration leads nowhere.
    """
    held = [lease.resource for lease in ledger.leases(record.id, open_only=True)]
    doubt = identity.stranger(provider, record.handle, held) if held else None
    if isinstance(doubt, (Elsewhere, UsageError)):  # the latter: a context that is not there
        raise doubt


def adopt(record: Run, ledger: Ledger) -> bool:
    """Become the one who drives this run, unless somebody who may be alive does, or is about to."""
    if record.owner and record.owner != me():
        guarded = record.guardian not in {"", me()} and life(record.guardian) is not Life.DEAD
        if guarded or life(record.owner) is not Life.DEAD:
            return False
    return record.owner == me() or ledger.take(record.id, me(), record.owner)
