"""What is known, noted and told of one run while it goes on."""

from __future__ import annotations

from decimal import Decimal
from typing import Unpack

from cvl.core.errors import CvlError, LedgerError
from cvl.core.process import Life, life, me
from cvl.core.scope import BACK, SILENT, WARNING, Scope
from cvl.core.spec import Cause, ExitStatus, ended
from cvl.ledger import EARLY, Facts, Ledger, Run, RunState
from cvl.run.options import Options

LOOK = 0.5
"""Seconds between two looks at what another process is doing."""


class Progress:
    """One run's line in the ledger, and the ear of whoever listens to it."""

    def __init__(
        self, record: Run, ledger: Ledger, options: Options, *, watching: bool = False
    ) -> None:
        """`watching`: somebody else drives this run; we only look on."""
        self.record, self.options, self.watching = record, options, watching
        self._ledger = ledger
        self.doing = "starting"

    def advance(self, state: RunState, **facts: Unpack[Facts]) -> None:
        """Note a step. Somebody may have noted it, or a later one, before: that stays.

        Once something may run, a ledger that cannot be written stops nothing.
        """
        try:
            self._ledger.advance(self.record.id, state, **facts)
        except LedgerError as error:
            if state is RunState.LAUNCHING:
                raise
            self.warn(f"{error}; going on without it")

    def finish(self, status: ExitStatus, cost: Decimal | None) -> None:
        """Close the run's line. Raises `LedgerError`."""
        now = self.options.clock.time()
        self._ledger.finish(self.record.id, status, ended=now, cost=cost)

    def owner(self) -> str:
        """Return who drives the run now; we do, where the ledger cannot say."""
        try:
            return self._ledger.run(self.record.id).owner
        except LedgerError:
            return me()

    def noted(self) -> ExitStatus | None:
        """Return how the run has ended, once its driver has noted that."""
        try:
            run = self._ledger.run(self.record.id)
        except CvlError:  # a run of somebody else's is not in it
            return None
        return run.status if run.state is RunState.ENDED else None

    def driven(self) -> bool:
        """Return whether somebody brings the run to its end who may be alive."""
        try:
            run = self._ledger.run(self.record.id)
        except CvlError:
            return False
        return any(keeper and life(keeper) is not Life.DEAD for keeper in (run.owner, run.guardian))

    def launched(self, scope: Scope) -> Run:
        """Return the run once whoever is starting its job has, or has died over it."""
        run = self.record
        if run.state in EARLY:
            self.tell("waiting", f"for {run.id} to be started")
        while run.state in EARLY and life(run.owner) is not Life.DEAD:
            scope.sleep(LOOK)
            run = self._ledger.run(run.id)
        return run

    def tell_keeper(self) -> None:
        """Say who brings a run to its end whose client has died: that may take its time."""
        run = self.record
        if run.owner and run.guardian and life(run.owner) is Life.DEAD:
            self.tell("waiting", f"its client has died; its guardian brings {run.id} to its end")

    def known(self) -> ExitStatus | None:
        """Return how the run has ended, if that is noted by now."""
        try:
            run = self._ledger.run(self.record.id)
        except LedgerError:
            return None
        return run.status if run.state is RunState.ENDED else None

    def status(self, cause: Cause, detail: str = "") -> ExitStatus:
        """Return the status of an ending that we decided."""
        return ended(cause, run_id=self.record.id, detail=detail)

    def tell(self, phase: str, text: str) -> None:
        """Tell of a phase, which is what we are doing from now on; or of a warning."""
        if phase == WARNING:
            self.warn(text)
        elif phase in {SILENT, BACK}:
            self.options.observer.phase(phase, text)
        else:
            self.doing = phase
            self.options.observer.phase(phase, text)

    def warn(self, text: str) -> None:
        """Tell what the user should know, though the run goes on."""
        self.options.observer.warn(text)
