"""The life of one run: plan, agree, note, launch, follow, fetch, release.

The same for every provider. Nothing here knows a provider's name, and nothing prints: what
happens is told to an `Observer`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cvl.errors import CvlError, LostContact, Unreachable, UsageError
from cvl.leases import Leases
from cvl.ledger import Ledger, Run, RunState
from cvl.paths import run_folder
from cvl.provider import Execution, Observer, Provider
from cvl.pump import Pump
from cvl.runlog import RunLog
from cvl.scope import Cancelled, Clock, DeadlineExceeded, Scope, SystemClock, signals
from cvl.spec import EXIT_CODES, Cause, ExitStatus, JobSpec, Plan, ended

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
    grace: float = 10.0
    fetch_limit: float = 1800.0
    clock: Clock = field(default_factory=SystemClock)


def run(spec: JobSpec, provider: Provider, ledger: Ledger, options: Options) -> ExitStatus:
    """Run `spec` to its end, or until it is left to itself. Raises `CvlError`.

    Returns the script's own exit code, or the code of the cause that we decided.
    """
    if spec.nodes > 1 and not provider.many_nodes:
        raise UsageError(f"{provider.name} runs on one node", "leave --nodes out")
    plan = provider.plan(spec)
    options.agree(plan)
    for warning in plan.warnings:
        options.observer.warn(warning)
    record = noted(spec, provider, plan, options)
    ledger.begin(record)
    drive = Drive(record, ledger, options)
    with signals(drive.scope, drive.again), drive:
        return drive.launch(spec, provider)


def attach(record: Run, provider: Provider, ledger: Ledger, options: Options) -> ExitStatus:
    """Follow a run from where its log ends; whoever is alone with it also brings it to its end.

    Ctrl-C only detaches. Raises `CvlError`.
    """
    drive = Drive(record, ledger, options, watching=not ledger.adopt(record.id))
    with signals(drive.scope, drive.again), drive:
        return drive.follow(provider.attach(record.handle), stoppable=False)


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
    )


class Drive:
    """Takes one run through its states; each step notes what it did before the next begins."""

    def __init__(
        self, record: Run, ledger: Ledger, options: Options, *, watching: bool = False
    ) -> None:
        """`watching`: somebody else drives this run; we only look on."""
        self.record, self.ledger, self.options, self.watching = record, ledger, options, watching
        self.scope = Scope(options.clock, tell=self._tell)
        self.leases = Leases(ledger, record.id, self.scope)
        self.doing = "starting"

    def __enter__(self) -> Drive:
        return self

    def __exit__(self, *_: object) -> None:
        self.leases.close()

    def launch(self, spec: JobSpec, provider: Provider) -> ExitStatus:
        """Start the job, and go on to the end."""
        self._advance(RunState.LAUNCHING)
        self._tell("starting", f"{spec.run_id} on {self.record.where}")
        try:
            execution = provider.launch(spec, self.leases, self.scope)
        except Cancelled as cancelled:
            return self._launch_cancelled(provider, cancelled.cause)
        except LostContact:
            self._leave()
            raise
        except CvlError as error:
            self._finish(ended(Cause.NOT_STARTED, run_id=spec.run_id, detail=str(error)))
            raise
        self._advance(RunState.RUNNING)
        if spec.detach:
            execution.close()
            return self._left(Cause.DETACHED)
        return self.follow(execution, stoppable=True)

    def follow(
        self, execution: Execution, *, stoppable: bool, cause: Cause | None = None
    ) -> ExitStatus:
        """Carry the output until the job has ended, then bring everything to its end.

        With `cause`, or when a signal comes and the job is ours to stop, it is stopped first.
        """
        log = RunLog(run_folder(self.record.id))
        observer = self.options.observer
        with Pump(execution, observer, log=None if self.watching else log, after=log.cursor()) as pump:
            try:
                if cause:
                    raise Cancelled(cause)
                self._tell("running", self.record.id)
                status = pump.wait(self.scope)
            except Cancelled as cancelled:
                if not stoppable or cancelled.cause is Cause.HANGUP:
                    return self._left(cancelled.cause if stoppable else Cause.DETACHED)
                status = self._stopped(execution, pump, cancelled.cause)
            except LostContact:
                self._leave()
                raise
            return status if self.watching else self._settle(execution, settled(status))

    def again(self, count: int) -> None:
        """Answer the second and further signals."""
        run_id, warn = self.record.id, self.options.observer.warn
        if count == SECOND:
            warn(f"{self.doing} {run_id}: once more leaves it as it is")
        if count >= THIRD:
            warn(f"left {run_id} while {self.doing}: `cvl attach {run_id}` goes on")
            for line in self.leases.still_open():
                warn(line)
            os._exit(EXIT_CODES[self.scope.cause or Cause.INTERRUPTED])

    def _launch_cancelled(self, provider: Provider, cause: Cause) -> ExitStatus:
        """Stop what an interrupted launch may have started; nobody knows until asked."""
        execution = provider.attach(self.record.handle)
        try:
            status = execution.poll()
        except Unreachable:
            status = ended(Cause.NOT_STARTED)
        if status is None:
            self._advance(RunState.RUNNING)
            return self.follow(execution, stoppable=True, cause=cause)
        execution.close()
        self.leases.release()
        return self._finish(ended(cause, run_id=self.record.id))

    def _stopped(self, execution: Execution, pump: Pump, cause: Cause) -> ExitStatus:
        """Stop the job over there and follow it to its end."""
        self._tell("stopping", self.record.id)
        scope = self.scope.shielded(self.options.grace + STOP_LIMIT)
        try:
            deliver(execution, self.options.grace, cause, scope)
            return pump.wait(scope)
        except (DeadlineExceeded, Unreachable) as error:
            self._leave()
            raise LostContact(
                f"could not see {self.record.id} end on {self.record.where}"
                + (f": {error}" if str(error) else ""),
                f"it may still run there; `cvl stop {self.record.id}` tries again",
            ) from error

    def _settle(self, execution: Execution, status: ExitStatus) -> ExitStatus:
        """Bring the results here, release what is rented, close the ledger."""
        self._advance(RunState.FETCHING, status)
        try:
            if self.options.fetch:
                self._fetch(execution)
        finally:
            self.leases.release()
        return self._finish(status)

    def _fetch(self, execution: Execution) -> None:
        self._tell("fetching", str(self.options.results))
        execution.fetch(self.options.results, self.scope.shielded(self.options.fetch_limit))
        self._advance(RunState.RELEASING)
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
        self._leave()
        return ended(cause, run_id=self.record.id)

    def _leave(self) -> None:
        """Give the run up to whoever attaches next, or to the guardian."""
        if not self.watching:
            self.ledger.disown(self.record.id)
            self.leases.hand_over()

    def _finish(self, status: ExitStatus) -> ExitStatus:
        self.ledger.finish(self.record.id, status, ended=self.options.clock.time())
        return status

    def _advance(self, state: RunState, status: ExitStatus | None = None) -> None:
        self.ledger.advance(self.record.id, state, status=status)

    def _tell(self, phase: str, text: str) -> None:
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
