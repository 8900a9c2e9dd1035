"""The life of one run: plan, agree, note, launch, follow, fetch, release.

The same for every provider. Nothing here knows a provider's name, and nothing prints: what
happens is told to an `Observer`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Self, Unpack

from cvl.errors import (
    CvlError,
    FetchError,
    LedgerError,
    LostContact,
    ProviderError,
    StillOpen,
    Unreachable,
    UsageError,
)
from cvl.leases import Guard, Leases
from cvl.ledger import Facts, Ledger, Run, RunState
from cvl.process import Life, life, me
from cvl.provider import Execution, Observer, Provider
from cvl.puller import Puller, bounded
from cvl.pump import Pump
from cvl.release import RELEASE_LIMIT
from cvl.runlog import RunLog, run_folder
from cvl.scope import WARNING, Cancelled, Clock, DeadlineExceeded, Scope, SystemClock, signals
from cvl.spec import EXIT_CODES, FETCH_LIMIT, GRACE, Cause, ExitStatus, JobSpec, Plan, ended
from cvl.units import elapsed

STOP_LIMIT = 60.0
"""Seconds beyond the grace in which a stopped job has to be seen ended."""
SECOND, THIRD = 2, 3
"""Ctrl-C: the second says what is being done, the third leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run does beside its job.

    `agree(plan)` is called before anything happens; it raises to refuse. `results` is where
    results land. `reopen` is what another process needs to find the runner again; no secrets.
    """

    observer: Observer
    results: Path
    agree: Callable[[Plan], None] = lambda _plan: None
    fetch: bool = True
    keep: bool = False
    keep_on_fetch_failure: bool = False
    grace: float = GRACE
    fetch_limit: float = FETCH_LIMIT
    release_limit: float = RELEASE_LIMIT
    guarded: bool = True
    clock: Clock = field(default_factory=SystemClock)


def run(spec: JobSpec, provider: Provider, ledger: Ledger, options: Options) -> ExitStatus:
    """Run `spec` to its end, or until it is left to itself. Raises `CvlError`.

    Returns the script's own exit code, or the code of the cause that we decided.
    """
    if spec.nodes > 1 and not provider.many_nodes:
        raise UsageError(f"{provider.name} runs on one node", "leave --nodes out")
    plan = provider.plan(spec)
    for warning in plan.warnings:
        options.observer.warn(warning)
    options.agree(plan)
    record = noted(spec, provider, plan, options)
    ledger.begin(record)
    drive = Drive(record, provider, ledger, options)
    with signals(drive.scope, drive.again), drive:
        return drive.launch(spec)


def attach(record: Run, provider: Provider, ledger: Ledger, options: Options) -> ExitStatus:
    """Follow a run from where its log ends; whoever is alone with it also brings it to its end.

    Ctrl-C only detaches. Raises `CvlError`.
    """
    drive = Drive(record, provider, ledger, options, watching=not adopt(record, ledger))
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
        results=str(options.results),
        detached=spec.detach,
        owner=me(),
    )


def adopt(record: Run, ledger: Ledger) -> bool:
    """Become the one who drives this run, unless somebody who may be alive does, or is about to."""
    if record.owner and record.owner != me():
        guarded = record.guardian not in {"", me()} and life(record.guardian) is not Life.DEAD
        if guarded or life(record.owner) is not Life.DEAD:
            return False
    return record.owner == me() or ledger.take(record.id, me(), record.owner)


class Drive:
    """Takes one run through its states; each step notes what it did before the next begins."""

    def __init__(
        self,
        record: Run,
        provider: Provider,
        ledger: Ledger,
        options: Options,
        *,
        watching: bool = False,
    ) -> None:
        """`watching`: somebody else drives this run; we only look on."""
        self.record, self.provider, self.ledger, self.options = record, provider, ledger, options
        self.watching = watching
        self.scope = Scope(options.clock, tell=self._tell)
        self._unhurried = Scope(options.clock, tell=self._tell)
        self.leases = Leases(
            ledger,
            record.id,
            provider,
            self.scope,
            guard=self._guard if options.guarded else None,
        )
        self.doing = "starting"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leases.close()

    def launch(self, spec: JobSpec) -> ExitStatus:
        """Start the job, and go on to the end."""
        self._advance(RunState.LAUNCHING)
        self._tell("starting", f"{spec.run_id} on {self.record.where}")
        try:
            execution = self.provider.launch(spec, self.leases, self.scope)
        except Cancelled as cancelled:
            return self._launch_cancelled(cancelled.cause)
        except DeadlineExceeded:
            raise self._undone(
                CvlError(f"the time of {spec.run_id} was up before its job had started")
            ) from None
        except CvlError as error:
            if isinstance(error, LostContact) and not self.leases.any_open():
                self._leave()
                raise
            raise self._undone(error) from error
        self._advance(RunState.RUNNING, handle=execution.handle)
        if spec.detach and self.scope.cause is None:
            execution.close()
            return self._left(Cause.DETACHED)
        return self.follow(execution, stoppable=True)

    def resume(self) -> ExitStatus:
        """Go on with a run that was launched earlier, here or elsewhere."""
        if not self.watching and self.leases.any_open():
            self.leases.guarded()
            if self.record.deadline is not None:
                self.leases.until(max(self.record.deadline - self.options.clock.time(), 0.0))
        return self.follow(self.provider.attach(self.record.handle), stoppable=False)

    def recover(self, cause: Cause | None, *, at_once: bool) -> ExitStatus:
        """As `resume`, but nothing that fails on the way keeps what is rented from its end.

        Without a `cause` to stop the job, what may pass (no network, no answer) is raised
        instead: to be tried again.
        """
        state, known = self.record.state, self.record.status
        if state in {RunState.PLANNED, RunState.LAUNCHING}:
            detail = "its driver was gone before the job had started"
            return self._over(known or self._status(Cause.NOT_STARTED, detail=detail))
        if at_once or state is RunState.RELEASING:
            return self._over(known or self._status(cause or Cause.STOPPED, detail="released"))
        try:
            execution = self.provider.attach(self.record.handle)
            if known:
                return self._settle(execution, known)
            return self.follow(execution, stoppable=True, cause=cause)
        except StillOpen:
            raise
        except CvlError as error:
            passing = isinstance(error, (LostContact, Unreachable, ProviderError))
            if passing and not cause and not known and self.leases.any_open():
                raise
            return self._over(known or self._status(Cause.LOST, detail=str(error)))

    def rush(self) -> None:
        """Give up everything but the release. Safe in a signal handler."""
        self._unhurried.cancel(Cause.STOPPED)
        self.scope.cancel(Cause.STOPPED)

    def follow(
        self, execution: Execution, *, stoppable: bool, cause: Cause | None = None
    ) -> ExitStatus:
        """Carry the output until the job has ended, then bring everything to its end.

        With `cause`, or when a signal comes and the job is ours to stop, it is stopped first.
        """
        log = RunLog(run_folder(self.record.id))
        observer = self.options.observer
        rented = not self.watching and self.leases.any_open()
        with (
            Puller(
                execution,
                self.options.results,
                Scope(self.options.clock),
                wanted=rented and self.options.fetch,
            ),
            Pump(
                execution, observer, log=None if self.watching else log, after=log.cursor()
            ) as pump,
        ):
            try:
                if cause:
                    raise Cancelled(cause)
                self._tell("running", self.record.id)
                status = pump.wait(self.scope.within(self.leases.left()))
            except DeadlineExceeded:
                status = self._stopped(execution, pump, Cause.TIMEOUT)
            except Cancelled as cancelled:
                if self._unhurried.cause:
                    return self._over(self._status(cancelled.cause, detail="released"))
                if not stoppable or cancelled.cause is Cause.HANGUP:
                    return self._left(cancelled.cause if stoppable else Cause.DETACHED)
                status = self._stopped(execution, pump, cancelled.cause)
            except CvlError as error:
                raise self._lost(error) from error
            return status if self.watching else self._settle(execution, settled(status))

    def again(self, count: int) -> None:
        """Answer the second and further signals.

        In a thread, and not for long: what the signal interrupts may hold the lock of a stream
        or stand in the middle of a write.
        """
        told = Thread(target=self._told, args=(count,), daemon=True)
        told.start()
        told.join(1.0)
        if count >= THIRD:
            os._exit(EXIT_CODES[self.scope.cause or Cause.INTERRUPTED])

    def _told(self, count: int) -> None:
        run_id, warn = self.record.id, self.options.observer.warn
        if count == SECOND:
            warn(f"{self.doing} {run_id}: once more leaves it as it is")
        if count >= THIRD:
            warn(f"left {run_id} while {self.doing}: `cvl attach {run_id}` goes on")
            for line in self.leases.still_open():
                warn(line)

    def _launch_cancelled(self, cause: Cause) -> ExitStatus:
        """Stop what an interrupted launch may have started; nobody knows until asked."""
        if self.leases.any_open():
            return self._over(self._status(cause))
        execution = self.provider.attach(self.record.handle)
        try:
            status = execution.poll()
        except Unreachable:
            status = self._status(Cause.NOT_STARTED)
        if status is None or status.cause not in {Cause.LOST, Cause.NOT_STARTED}:
            self._advance(RunState.RUNNING)
            return self.follow(execution, stoppable=True, cause=cause)
        execution.close()
        return self._over(self._status(cause))

    def _undone(self, error: CvlError) -> CvlError:
        """End what a launch that failed has rented; return what to raise."""
        try:
            self._over(self._status(Cause.NOT_STARTED, detail=str(error)))
        except StillOpen as still:
            return StillOpen(f"{error}; {still}", still.hint)
        return error

    def _over(self, status: ExitStatus) -> ExitStatus:
        """See everything gone, then close the run."""
        self._tell("releasing", self.record.id)
        self.leases.release(self._release_scope())
        return self._finish(status)

    def _stopped(self, execution: Execution, pump: Pump, cause: Cause) -> ExitStatus:
        """Stop the job over there and follow it to its end."""
        self._tell("stopping", self.record.id)
        scope = self._unhurried.within(self.options.grace + STOP_LIMIT)
        try:
            deliver(execution, self.options.grace, cause, scope)
            return pump.wait(scope)
        except (Cancelled, DeadlineExceeded, CvlError) as error:
            # whoever reads our output may have stopped reading: the pump is no witness then
            if (status := self._asked(execution)) is not None:
                return status
            if self.leases.any_open():
                return self._status(cause, detail=f"not seen to end: {error}".rstrip(": "))
            self._leave()
            said = f": {error}" if str(error) else ""
            raise LostContact(
                f"could not see {self.record.id} end on {self.record.where}{said}",
                f"it may still run there; `cvl stop {self.record.id}` tries again",
            ) from error

    def _asked(self, execution: Execution) -> ExitStatus | None:
        try:
            return execution.poll()
        except CvlError:
            return None

    def _lost(self, error: CvlError) -> LostContact:
        """Give up following: the job lives on, and is always named with what gets it back."""
        run_id = self.record.id
        self._leave()
        back = f"the job lives on; `cvl attach {run_id}` follows it again"
        if isinstance(error, LostContact) and run_id in error.hint:
            back = error.hint
        elif error.hint:
            back = f"{error.hint}; {back}"
        return LostContact(str(error), back)

    def _settle(self, execution: Execution, status: ExitStatus) -> ExitStatus:
        """Bring the results here, release what is rented, close the ledger."""
        if self._taken():
            return status
        self._advance(RunState.FETCHING, status=status)
        kept = False
        try:
            if self.options.fetch and not self.record.fetched and not self._unhurried.cause:
                self._fetch(execution)
            elif not self.options.fetch:
                self._tell(
                    "left", f"results {self._there()}; `cvl fetch {self.record.id}` gets them"
                )
        except FetchError as error:
            if status.cause is not Cause.LOST:
                kept = self.options.keep_on_fetch_failure and self._kept()
                raise
            self.options.observer.warn(str(error))  # that it is lost says more
        finally:
            if not kept:
                self._over(status)
        return status

    def _there(self) -> str:
        """Say where a run's files are over there."""
        folder = self.record.handle.get("folder", "")
        return f"in {folder} on {self.record.where}" if folder else f"on {self.record.where}"

    def _taken(self) -> bool:
        """Return whether somebody else brings this run to its end: the guardian, past a limit."""
        try:
            return self.ledger.run(self.record.id).owner not in {me(), ""}
        except LedgerError:
            return False

    def _kept(self) -> bool:
        """Leave what is rented for another `cvl fetch`, until its deadline."""
        for line in self.leases.still_open():
            self.options.observer.warn(line)
        self.leases.keep()
        return True

    def _fetch(self, execution: Execution) -> None:
        self._tell("fetching", str(self.options.results))
        limit = self.options.fetch_limit
        try:
            scope = self._unhurried.within(limit)
            bounded(lambda: execution.fetch(self.options.results, scope), scope)
        except Cancelled:
            return
        except DeadlineExceeded as error:
            raise FetchError(
                f"the results of {self.record.id} did not arrive within {elapsed(limit)}",
                f"what has arrived is whole; `cvl fetch {self.record.id}` gets the rest",
            ) from error
        self._advance(RunState.RELEASING, fetched=True)
        if not self.options.keep:
            self._discard(execution)

    def _discard(self, execution: Execution) -> None:
        try:
            execution.discard()
        except CvlError as error:
            self.options.observer.warn(
                f"the workspace of {self.record.id} is still on {self.record.where}: {error}"
            )

    def _left(self, cause: Cause) -> ExitStatus:
        run_id, where = self.record.id, self.record.where
        stop = cause is Cause.HANGUP and self.leases.any_open()
        self._leave(stop=stop)
        text = f"{run_id} lives on, on {where}; `cvl attach {run_id}` follows it"
        if stop:
            text = f"the guardian stops {run_id}, fetches, and ends the rent"
        if cause is Cause.HANGUP:
            self.options.observer.warn(text)
        else:
            self._tell("left", text)
        return self._status(cause)

    def _leave(self, *, stop: bool = False) -> None:
        """Give the run up to whoever attaches next, or to the guardian."""
        if not self.watching:
            self.leases.hand_over(stop=stop)

    def _finish(self, status: ExitStatus) -> ExitStatus:
        cost = self.leases.cost()
        self.ledger.finish(self.record.id, status, ended=self.options.clock.time(), cost=cost)
        if cost is not None:
            self._tell("cost", f"${cost}")
        return status

    def _guard(self) -> Guard:
        from cvl.guardian import Guardian

        folder = run_folder(self.record.id)
        return Guardian(self.record.id, self.provider.secrets, folder)

    def _status(self, cause: Cause, detail: str = "") -> ExitStatus:
        return ended(cause, run_id=self.record.id, detail=detail)

    def _release_scope(self) -> Scope:
        return self.scope.shielded(self.provider.settle + self.options.release_limit)

    def _advance(self, state: RunState, **facts: Unpack[Facts]) -> None:
        """Note a step. Somebody may have noted it, or a later one, before: that stays.

        Once something may run, a ledger that cannot be written stops nothing.
        """
        try:
            self.ledger.advance(self.record.id, state, **facts)
        except LedgerError as error:
            if state is RunState.LAUNCHING:
                raise
            self.options.observer.warn(f"{error}; going on without it")

    def _tell(self, phase: str, text: str) -> None:
        if phase == WARNING:
            self.options.observer.warn(text)
        else:
            self.doing = phase
            self.options.observer.phase(phase, text)


def deliver(execution: Execution, grace: float, cause: Cause, scope: Scope) -> None:
    """Tell the job to stop; a host that cannot be reached is tried until the scope ends."""
    while True:
        try:
            return execution.stop(grace, cause)
        except Unreachable:
            scope.sleep(1.0)


def settled(status: ExitStatus) -> ExitStatus:
    """Return `status` with the exit code that its cause has on this side."""
    return ExitStatus(
        EXIT_CODES.get(status.cause, int(status)),
        cause=status.cause,
        run_id=status.run_id,
        detail=status.detail,
        log_bytes=status.log_bytes,
    )
