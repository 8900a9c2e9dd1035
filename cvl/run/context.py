"""One run while it goes on: what is known, noted and told of it, who is asked, what limits it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Self, Unpack

from cvl.cleanup.guardian_keeper import Guard
from cvl.cleanup.leases import Leases
from cvl.core.errors import CvlError, LedgerError
from cvl.core.interfaces import Execution, Provider
from cvl.core.process import Life, life, me
from cvl.core.scope import BACK, SILENT, WARNING, Scope
from cvl.core.spec import EXIT_CODES, STOP_LIMIT, Cause, ExitStatus, ended
from cvl.ledger import Facts, Ledger, Run, RunState
from cvl.run.log import run_folder
from cvl.run.options import Options, stop_limit

QUIET = 5.0
"""Seconds beyond the grace in which not a byte comes from a host that is to stop its job, and it is
waited for no more."""
SECOND, THIRD = 2, 3
"""Ctrl-C: the second says what is being done, or leaves the results there; the third leaves."""


class Context:
    """What every step of one run works with; `with` it, all that they opened is closed."""

    execution: Execution
    """The job, from when it was started or found again."""
    status: ExitStatus
    """How it ended, from when that is known; or how we left it."""

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
        self.options = replace(options, guarded=options.guarded and provider.guarded)
        self.scope = Scope(options.clock, tell=self.tell)
        """The work; whoever wants the run stopped cancels it, and is then in a hurry."""
        self.clean_up = Scope(options.clock, tell=self.tell)
        """The way to the end; cancelled where only the release is wanted."""
        self.fetching: Scope | None = None
        self.stack = ExitStack()
        self.doing, self.over = "starting", False
        """What we do, in a word; whether there is nothing more for us to do."""
        self.stop_for: Cause | None = None
        """Why the job is to be stopped before it is followed."""
        self.after: str | None = None
        """The cursor after which its output is followed; None: where the log here ends."""
        self.hushed = self.doubted = self.kept = False
        """Whether the host gave nothing while its job was to be stopped; whether that was not seen
        to end, so that there may never be a result; whether what is rented stays for a while,
        because its results have no way here."""
        self.ledger, self.provider, self.watching = ledger, provider, watching
        self.record = record
        self.stop_limit = stop_limit(provider, record.handle, options.grace)
        guard = self._guard if self.options.guarded else None
        self.leases = Leases(ledger, record.id, provider, self.scope, guard=guard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stack.close()
        finally:
            self.leases.close()

    @property
    def results(self) -> Path:
        """Where they land."""
        return Path(self.record.results)

    @property
    def quiet(self) -> float:
        """The seconds in which a host that is to stop its job may give nothing."""
        return max(self.options.grace, self.stop_limit - STOP_LIMIT) + QUIET

    @property
    def rushed(self) -> bool:
        """Whether only the release is wanted."""
        return self.clean_up.cause is not None

    def within(self, seconds: float) -> Scope:
        """Return a scope for work on the way to the end: no signal but `rush` cuts it short.

        Nor does it last into the time that the release of what is rented needs.
        """
        return self.clean_up.within(self.leases.within(seconds))

    def rush(self) -> None:
        """Give up everything but the release. Safe in a signal handler."""
        self.clean_up.cancel(Cause.STOPPED)
        if self.fetching:
            self.fetching.cancel(Cause.STOPPED)
        self.scope.cancel(Cause.STOPPED)

    def again(self, count: int) -> None:
        """Answer the second and further signals.

        In a thread, and not for long: what the signal interrupts may hold the lock of a stream
        or stand in the middle of a write.
        """
        answer = Thread(target=self._answer, args=(count,), daemon=True)
        answer.start()
        answer.join(1.0)
        if count >= THIRD:
            os._exit(EXIT_CODES[self.scope.cause or Cause.INTERRUPTED])

    def tell(self, phase: str, text: str) -> None:
        """Tell of a phase, which is what we are doing from now on; or of a warning."""
        if phase == WARNING:
            self.warn(text)
            return
        if phase not in {SILENT, BACK}:
            self.doing = phase
        self.options.observer.phase(phase, text)

    def warn(self, text: str) -> None:
        """Tell what the user should know, though the run goes on."""
        self.options.observer.warn(text)

    def advance(self, state: RunState, **facts: Unpack[Facts]) -> None:
        """Note a step. Somebody may have noted it, or a later one, before: that stays.

        Once something may run, a ledger that cannot be written stops nothing.
        """
        try:
            self.ledger.advance(self.record.id, state, **facts)
        except LedgerError as error:
            if state is RunState.LAUNCHING:
                raise
            self.warn(f"{error}; going on without it")

    def decided(self, cause: Cause, detail: str = "") -> ExitStatus:
        """Return the status of an ending that we decided."""
        return ended(cause, run_id=self.record.id, detail=detail)

    def noted(self) -> ExitStatus | None:
        """Return how the run has ended, once its driver has noted that."""
        run = self._line()
        return run.status if run and run.state is RunState.ENDED else None

    def driven(self) -> bool:
        """Return whether somebody brings the run to its end who may be alive."""
        run = self._line()
        keepers = (run.owner, run.guardian) if run else ()
        return any(keeper and life(keeper) is not Life.DEAD for keeper in keepers)

    def taken(self) -> bool:
        """Return whether somebody else brings this run to its end: the guardian, past a limit.

        Where the ledger cannot say, we do.
        """
        run = self._line()
        return run is not None and run.owner not in {me(), ""}

    def _line(self) -> Run | None:
        try:
            return self.ledger.run(self.record.id)
        except CvlError:  # a run of somebody else's is not in it
            return None

    def _answer(self, count: int) -> None:
        run_id = self.record.id
        if count == SECOND and (fetching := self.fetching):
            fetching.cancel(Cause.INTERRUPTED)  # the rest of the results stays there
        elif count == SECOND:
            self.warn(f"{self.doing} {run_id}: once more leaves it as it is")
        if count >= THIRD:
            self.warn(f"left {run_id} while {self.doing}: `cvl attach {run_id}` goes on")
            for line in self.leases.still_open():
                self.warn(line)

    def _guard(self) -> Guard:
        from cvl.cleanup.guardian_client import Guardian

        return Guardian(self.record.id, self.provider.secrets, run_folder(self.record.id))
