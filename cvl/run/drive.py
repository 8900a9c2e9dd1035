"""Drives one run: launch, follow, stop, and on to its end; or picks it up where another left it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from typing import Self

from cvl.cleanup.guardian_keeper import Guard
from cvl.cleanup.leases import Leases
from cvl.core import identity
from cvl.core.bounded import bounded
from cvl.core.errors import (
    CvlError,
    LedgerError,
    LostContact,
    ProviderError,
    StillOpen,
    Unreachable,
    Unreadable,
    said,
)
from cvl.core.interfaces import Execution, Provider
from cvl.core.scope import Cancelled, DeadlineExceeded, Hushed, Scope, limits
from cvl.core.spec import EXIT_CODES, STOP_LIMIT, Cause, ExitStatus, JobSpec
from cvl.ledger import EARLY, Ledger, Run, RunState
from cvl.run.log import RunLog, run_folder
from cvl.run.options import Options, stop_limit
from cvl.run.progress import Progress
from cvl.run.puller import Puller
from cvl.run.pump import Pump
from cvl.run.teardown import QUIET, Ending, settled

LOOK_ON = 0.5
"""Seconds between two looks at what the driver of a run has noted, for who only looks on."""
DRAIN = 3.0
"""Seconds for the last output of a run that its driver has brought to its end."""
ASK_LIMIT = 4.0
"""Seconds for the last question to a host that did not tell how its job ended."""
SECOND, THIRD = 2, 3
"""Ctrl-C: the second says what is being done, or leaves the results there; the third leaves."""


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
        options = replace(options, guarded=options.guarded and provider.guarded)
        self._record, self._provider, self._options = record, provider, options
        self._stop_limit = stop_limit(provider, record.handle, options.grace)
        quiet = max(options.grace, self._stop_limit - STOP_LIMIT) + QUIET
        self._progress = Progress(record, ledger, options, watching=watching)
        self.scope = Scope(options.clock, tell=self._progress.tell)
        guard = self._guard if options.guarded else None
        self.leases = Leases(ledger, record.id, provider, self.scope, guard=guard)
        self._ending = Ending(
            self._progress, self.leases, self.scope, settle=provider.settle, quiet=quiet
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leases.close()

    def launch(self, spec: JobSpec) -> ExitStatus:
        """Start the job, and go on to the end."""
        self._progress.tell("starting", f"{spec.run_id} on {self._record.where}")
        self._progress.advance(RunState.LAUNCHING, handle=self._identified(self._record.handle))
        try:
            with limits(self.scope):
                execution = self._provider.launch(spec, self.leases, self.scope)
        except Cancelled as cancelled:
            return self._launch_cancelled(cancelled.cause)
        except DeadlineExceeded:
            raise self._ending.undone(
                CvlError(f"the time of {spec.run_id} was up before its job had started")
            ) from None
        except Exception as error:
            if isinstance(error, LostContact) and not self.leases.any_open():
                self._ending.leave()
                raise
            raise self._ending.undone(self._not_started(error)) from error
        self._progress.advance(RunState.RUNNING, handle=self._identified(execution.handle))
        if spec.detach and self.scope.cause is None:
            execution.close()
            return self._ending.left(Cause.DETACHED)
        return self.follow(execution, stoppable=True)

    def resume(self) -> ExitStatus:
        """Go on with a run that was launched earlier, here or elsewhere."""
        if not self._progress.watching and self.leases.any_open():
            self.leases.expect_noted(self._record)
            self.leases.guarded()
        log = RunLog(run_folder(self._record.id))
        handle, after = self._record.reach, log.whole()[1]
        if self._progress.watching:
            self._progress.tell_keeper()
            try:
                handle = self._progress.launched(self.scope).handle
            except Cancelled:
                return self._ending.left(Cause.DETACHED)
        try:
            execution = self._attached(handle)
        except CvlError:
            known = self._progress.known() if self._progress.watching else None
            if known is None:
                raise
            return known  # whoever kept it has brought it to its end meanwhile
        return self.follow(execution, stoppable=False, after=after)

    def recover(self, cause: Cause | None, *, at_once: bool) -> ExitStatus:
        """As `resume`, but nothing that fails on the way keeps what is rented from its end.

        Without a `cause` to stop the job, what may pass (no network, no answer, one that nobody
        can read, or whatever else is no word about the job) is raised instead: to be tried again.
        """
        self.leases.expect_noted(self._record)
        state, known = self._record.state, self._record.status
        if state in EARLY:
            detail = "its driver was gone before the job had started"
            return self._over(known, Cause.NOT_STARTED, detail)
        if at_once or state is RunState.RELEASING:
            return self._over(known, cause or Cause.STOPPED, "released")
        try:
            execution = self._attached()
            if known is not None:
                return self._ending.settle(execution, known)
            return self.follow(execution, stoppable=True, cause=cause)
        except (StillOpen, LedgerError):
            raise
        except Exception as error:
            undecided = cause is None and known is None
            if self._ending.kept or (may_pass(error) and undecided and self.leases.any_open()):
                raise
            return self._over(known, Cause.LOST, said(error))

    def rush(self) -> None:
        """Give up everything but the release. Safe in a signal handler."""
        self._ending.rush()
        self.scope.cancel(Cause.STOPPED)

    def follow(
        self,
        execution: Execution,
        *,
        stoppable: bool,
        cause: Cause | None = None,
        after: str | None = None,
    ) -> ExitStatus:
        """Carry the output until the job has ended, then bring everything to its end.

        It begins after the cursor `after`, else where the log here ends.
        With `cause`, or when a signal comes and the job is ours to stop, it is stopped first.
        """
        watching, options = self._progress.watching, self._options
        log = RunLog(run_folder(self._record.id))
        kept = None if watching else log
        after = log.whole()[1] if after is None else after
        pulls = options.fetch and not watching and self.leases.any_open()
        with (
            Puller(execution, options.results, Scope(options.clock), wanted=pulls),
            Pump(execution, options.observer, log=kept, after=after) as pump,
        ):
            try:
                if cause:
                    raise Cancelled(cause)
                self._progress.tell("running", self._record.id)
                status = (
                    self._looked_on(pump)
                    if watching
                    else pump.wait(self.scope.within(self.leases.left()))
                )
            except DeadlineExceeded:
                status = self._stopped(execution, pump, Cause.TIMEOUT)
            except Cancelled as cancelled:
                if self._ending.rushed:
                    return self._over(None, cancelled.cause, "released")
                if not stoppable or cancelled.cause is Cause.HANGUP:
                    return self._ending.left(cancelled.cause if stoppable else Cause.DETACHED)
                status = self._stopped(execution, pump, cancelled.cause)
            except Exception as error:
                raise self._lost(error) from error
            return status if watching else self._ending.settle(execution, settled(status))

    def _looked_on(self, pump: Pump) -> ExitStatus:
        """Return how a run ended that somebody else drives: as the job tells it, or its driver.

        What is rented may be gone before the job has told us: then the driver knows how it ended.
        """
        status: ExitStatus | None = None
        while True:
            try:
                status = status if status is not None else pump.wait(self.scope.within(LOOK_ON))
            except DeadlineExceeded:
                pass
            except CvlError:
                if (noted := self._progress.noted()) is None:
                    raise
                return noted
            if (noted := self._progress.noted()) is not None:
                with suppress(DeadlineExceeded, CvlError):  # the rest of its output
                    pump.wait(self.scope.within(DRAIN))
                return noted
            if status is not None:
                if status.cause is not Cause.LOST or not self._progress.driven():
                    return status
                self.scope.sleep(LOOK_ON)

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
        run_id, warn = self._record.id, self._progress.warn
        if count == SECOND and not self._ending.leave_rest():
            warn(f"{self._progress.doing} {run_id}: once more leaves it as it is")
        if count >= THIRD:
            warn(f"left {run_id} while {self._progress.doing}: `cvl attach {run_id}` goes on")
            for line in self.leases.still_open():
                warn(line)

    def _identified(self, handle: Mapping[str, str]) -> Mapping[str, str]:
        """Return a handle with whom the run is on, as far as that can be told by now.

        Where it cannot, the launch itself says what is wrong.
        """
        try:
            found = identity.of(self._provider)
        except Exception:  # noqa: BLE001 - a library's word about it says no more
            found = ""
        return {**handle, identity.IDENTITY: found} if found else handle

    def _launch_cancelled(self, cause: Cause) -> ExitStatus:
        """Stop what an interrupted launch may have started; nobody knows until asked."""
        if self.leases.any_open():
            return self._over(None, cause)
        execution = self._attached(self._record.reach)
        try:
            status = bounded(execution.poll, self._ending.scope(ASK_LIMIT))
        except (Unreachable, DeadlineExceeded):
            status = self._progress.status(Cause.NOT_STARTED)
        except Exception:  # noqa: BLE001 - an answer that nobody can read: it may run
            status = None
        if status is None or status.cause not in {Cause.LOST, Cause.NOT_STARTED}:
            self._progress.advance(RunState.RUNNING)
            return self.follow(execution, stoppable=True, cause=cause)
        execution.close()
        return self._over(None, cause)

    def _stopped(self, execution: Execution, pump: Pump, cause: Cause) -> ExitStatus:
        """Stop the job over there and follow it to its end."""
        self._progress.tell("stopping", self._record.id)
        scope = self._ending.scope(self._stop_limit).patient(lambda: self._ending.quiet)
        try:
            deliver(execution, self._options.grace, cause, scope)
            seen = pump.wait(scope)
            never = seen.cause is Cause.NOT_STARTED  # our stop was faster than its start
            return self._progress.status(cause) if never else seen
        except Exception as error:
            # whoever reads our output may have stopped reading: the pump is no witness then
            if (status := self._asked(execution)) is not None:
                return status
            if self.leases.any_open():
                self._ending.hushed = isinstance(error, Hushed)
                self._ending.doubted = True
                detail = f"not seen to end: {why(error)}".rstrip(": ")
                return self._progress.status(cause, detail=detail)
            self._ending.leave()
            text = f": {why(error)}" if why(error) else ""
            raise LostContact(
                f"could not see {self._record.id} end on {self._record.where}{text}",
                f"it may still run there; `cvl stop {self._record.id}` tries again",
            ) from error

    def _attached(self, handle: Mapping[str, str] | None = None) -> Execution:
        known = self._record.handle if handle is None else handle
        return self._provider.attach(known, self._progress.tell)

    def _over(self, known: ExitStatus | None, cause: Cause, detail: str = "") -> ExitStatus:
        status = self._progress.status(cause, detail) if known is None else known
        return self._ending.over(status)

    def _asked(self, execution: Execution) -> ExitStatus | None:
        try:
            return bounded(execution.poll, self._ending.scope(ASK_LIMIT))
        except Exception:  # noqa: BLE001 - no answer is no ending
            return None

    def _not_started(self, error: Exception) -> CvlError:
        """Return why a job was not started: an error that is none of ours says no more itself."""
        if isinstance(error, CvlError):
            return error
        return CvlError(f"{self._record.id} could not be started: {said(error)}")

    def _lost(self, error: Exception) -> LostContact:
        """Give up following: the job lives on, and is always named with what gets it back."""
        run_id = self._record.id
        self._ending.leave()
        back = f"the job lives on; `cvl attach {run_id}` follows it again"
        if isinstance(error, LostContact) and run_id in error.hint:
            back = error.hint
        elif isinstance(error, CvlError) and error.hint:
            back = f"{error.hint}; {back}"
        return LostContact(said(error), back)

    def _guard(self) -> Guard:
        from cvl.cleanup.guardian_client import Guardian

        folder = run_folder(self._record.id)
        return Guardian(self._record.id, self._provider.secrets, folder)


def deliver(execution: Execution, grace: float, cause: Cause, scope: Scope) -> None:
    """Tell the job to stop; a host that cannot be reached is tried until the scope ends."""
    told = False
    while True:
        try:
            bounded(lambda: execution.stop(grace, cause), scope)
            return scope.heard()
        except (Unreachable, Unreadable) as error:
            if isinstance(error, Unreadable) and not told:
                told = True
                scope.warn(f"{error}; asking again")
            scope.sleep(1.0)


def may_pass(error: Exception) -> bool:
    """Return whether an error says nothing of the job: another time there may be an answer."""
    passing = (LostContact, Unreachable, Unreadable, ProviderError)
    return isinstance(error, passing) or not isinstance(error, CvlError)


def why(error: Exception) -> str:
    """Return what kept a job from being seen to end, "" if only time has passed."""
    if isinstance(error, Hushed):
        return f"it gives nothing, not for {QUIET:g} s"
    return "" if isinstance(error, (Cancelled, DeadlineExceeded)) else said(error)
