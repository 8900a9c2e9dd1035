"""The end of a run, whatever led to it: results are brought, what is rented is seen gone, noted."""

from __future__ import annotations

from math import inf

from cvl.cleanup.leases import Leases
from cvl.core.bounded import bounded
from cvl.core.errors import Blocked, CvlError, FetchError, StillOpen, said
from cvl.core.interfaces import Execution
from cvl.core.process import me
from cvl.core.retry import AGAIN
from cvl.core.scope import Cancelled, DeadlineExceeded, Hushed, Scope
from cvl.core.spec import EXIT_CODES, Cause, ExitStatus
from cvl.core.units import elapsed
from cvl.ledger import RunState
from cvl.run.progress import Progress

QUIET = 5.0
"""Seconds beyond the grace in which not a byte comes from a host that is to stop its job, and it is
waited for no more."""
LAST_TRY = 3.0
"""The same, when the host has given nothing for long already."""
DOUBT_LIMIT = 60.0
"""Seconds for which results are brought from a host whose job was not seen to end."""
DISCARD_LIMIT = 150.0
"""Seconds that a host may take to remove a workspace."""


class Ending:
    """Brings one run to its end, or leaves it to somebody else."""

    def __init__(
        self, progress: Progress, leases: Leases, work: Scope, *, settle: float, quiet: float
    ) -> None:
        """`work` is cancelled by whoever wants the run stopped, and is then in a hurry.

        `settle`: seconds in which what the provider has made may not be listed yet. `quiet`:
        those in which a host that is to stop its job may give nothing.
        """
        self._progress, self._leases = progress, leases
        self._record, self._options = progress.record, progress.options
        self._work, self.quiet = work, quiet
        self._clean_up = Scope(self._options.clock, tell=progress.tell)
        self._fetching: Scope | None = None
        self.hushed = False
        """Whether the host gave nothing while its job was to be stopped."""
        self.doubted = False
        """Whether the job was not seen to end: its host may never give a result."""
        self.kept = False
        """Whether what is rented stays for a while, because its results have no way here."""
        self._waits = ""
        self._limit = settle + self._options.release_limit

    def scope(self, seconds: float) -> Scope:
        """Return a scope for work on the way to the end: no signal but `rush` cuts it short.

        Nor does it last into the time that the release of what is rented needs.
        """
        return self._clean_up.within(self._leases.within(seconds))

    def rush(self) -> None:
        """Give up everything but the release. Safe in a signal handler."""
        self._clean_up.cancel(Cause.STOPPED)
        if self._fetching:
            self._fetching.cancel(Cause.STOPPED)

    def leave_rest(self) -> bool:
        """Bring no more results, if some are on their way; return whether that was so.

        Safe in a signal handler.
        """
        if self._fetching is None:
            return False
        self._fetching.cancel(Cause.INTERRUPTED)
        return True

    @property
    def rushed(self) -> bool:
        """Whether only the release is wanted."""
        return self._clean_up.cause is not None

    def settle(self, execution: Execution, status: ExitStatus) -> ExitStatus:
        """Bring the results here, release what is rented, close the ledger."""
        if self._taken():
            return status
        self._progress.advance(RunState.FETCHING, status=status)
        try:
            self.kept = self._bring(execution)
        except FetchError as error:
            if status.cause is not Cause.LOST:
                self.kept = self._keeps(error)
                raise
            self._progress.warn(str(error))  # that it is lost says more
        finally:
            if not self.kept:
                self.over(status)
        return status

    def over(self, status: ExitStatus) -> ExitStatus:
        """See everything gone, then close the run. Raises `StillOpen`."""
        self._progress.tell("releasing", self._record.id)
        self._leases.release(self._clean_up.shielded(self._limit))
        return self._finish(status)

    def undone(self, error: CvlError) -> CvlError:
        """End what a launch that failed has rented; return what to raise."""
        try:
            self.over(self._progress.status(Cause.NOT_STARTED, detail=str(error)))
        except StillOpen as still:
            return StillOpen(f"{error}; {still}", still.hint)
        except CvlError as too:
            return CvlError(f"{error}; {too}", too.hint)
        return error

    def left(self, cause: Cause) -> ExitStatus:
        """Let the run go on without us, and say how to get it back."""
        run_id, where = self._record.id, self._record.where
        stop = cause is Cause.HANGUP and self._options.guarded and self._leases.any_open()
        self.leave(stop=stop)
        text = f"{run_id} lives on, on {where}; `cvl attach {run_id}` follows it"
        if stop:
            text = f"the guardian stops {run_id}, fetches, and ends the rent"
        if cause is Cause.HANGUP:
            self._progress.warn(text)
        else:
            self._progress.tell("left", text)
        return self._progress.status(cause)

    def leave(self, *, stop: bool = False) -> None:
        """Give the run up to whoever attaches next, or to the guardian."""
        if not self._progress.watching:
            self._leases.hand_over(stop=stop)

    def _taken(self) -> bool:
        """Return whether somebody else brings this run to its end: the guardian, past a limit."""
        return self._progress.owner() not in {me(), ""}

    def _bring(self, execution: Execution) -> bool:
        """Bring the results here; return whether the rest of the way is another's."""
        run_id = self._record.id
        if not self._options.fetch:
            self._progress.tell("left", f"results {self._there()}; `cvl fetch {run_id}` gets them")
        elif not self._record.fetched and not self.rushed:
            return self._fetch(execution)
        return False

    def _there(self) -> str:
        """Say where a run's files are over there."""
        folder = self._record.handle.get("folder", "")
        return f"in {folder} on {self._record.where}" if folder else f"on {self._record.where}"

    def _fetch(self, execution: Execution) -> bool:
        self._progress.tell("fetching", str(self._options.results))
        options, began = self._options, self._options.clock.monotonic()
        limit = self._leases.within(DOUBT_LIMIT if self.doubted else options.fetch_limit)
        self._fetching = Scope(options.clock, seconds=limit, tell=self._hear)
        scope = self._fetching.patient(self._patience)
        try:
            bounded(lambda: execution.fetch(options.results, scope), scope)
        except Cancelled:
            return False if self.rushed else self._left_rest()
        except DeadlineExceeded as error:
            waited = elapsed(options.clock.monotonic() - began)
            hushed = isinstance(error, Hushed)
            why = f": {self._record.where} gives nothing" if hushed else f" within {waited}"
            raise FetchError(
                f"the results of {self._record.id} did not arrive{why}{self._waits}",
                f"what has arrived is whole; `cvl fetch {self._record.id}` gets the rest",
            ) from error
        except CvlError:
            raise
        except Exception as error:
            raise FetchError(
                f"the results of {self._record.id} could not be fetched: {said(error)}",
                f"`cvl fetch {self._record.id}` tries again",
            ) from error
        finally:
            self._fetching = None
        self._progress.advance(RunState.RELEASING, fetched=True)
        if not options.keep:
            self._discard(execution)
        return False

    def _hear(self, phase: str, text: str) -> None:
        """Pass on what a fetch tells; remember what it waits for, should it wait in vain."""
        self._waits = f" ({text.removesuffix(AGAIN)})" if phase == "waiting" else ""
        self._progress.tell(phase, text)

    def _patience(self) -> float:
        """Return the seconds for which a host may give nothing while results are brought."""
        if self.hushed:
            return LAST_TRY
        return inf if self._work.cause is None else self.quiet

    def _left_rest(self) -> bool:
        """Say where the rest is; return whether the guardian brings it."""
        run_id = self._record.id
        if self._options.guarded and self._leases.any_open():
            self.leave(stop=True)
            self._progress.warn(f"the guardian fetches the rest of {run_id} and ends the rent")
            return True
        self._progress.warn(f"the rest is left {self._there()}; `cvl fetch {run_id}` gets it")
        return False

    def _discard(self, execution: Execution) -> None:
        scope = self.scope(DISCARD_LIMIT).patient(self._patience)
        try:
            bounded(execution.discard, scope)
        except Exception as error:  # noqa: BLE001 - the rest of the end comes all the same
            passed = isinstance(error, (Cancelled, DeadlineExceeded))
            text = "" if passed else f": {said(error)}"
            self._progress.warn(
                f"the workspace of {self._record.id} is still on {self._record.where}{text}"
            )

    def _keeps(self, error: FetchError) -> bool:
        """Keep what holds the only copy of the results, if it was agreed to or somebody can help.

        Return whether it is kept; say so, and for how long.
        """
        if self._options.keep_on_fetch_failure:
            return self._kept()
        helpless = not isinstance(error, Blocked) or not self._options.hold or self.rushed
        if helpless or not self._leases.any_open():
            return False
        left = self._leases.left()
        if left is None:
            return self._held_there()
        seconds = self._leases.within(self._options.fetch_limit)
        if self._record.state is RunState.FETCHING:  # then somebody may have waited before us
            seconds = min(seconds, left)
        return self._options.guarded and seconds > 0 and self._held(seconds)

    def _held_there(self) -> bool:
        """Leave the results where they are kept for a while without us, and at nobody's cost."""
        run_id = self._record.id
        self._progress.warn(
            f"{self._record.where} keeps the results of {run_id} for "
            f"{elapsed(self._options.fetch_limit)}: `cvl fetch {run_id} -o DIR` gets them, "
            f"`cvl attach {run_id}` then ends it"
        )
        self._leases.let_be()
        return True

    def _held(self, seconds: float) -> bool:
        """Keep what is rented for so long; a guardian ends it then. Return whether there is one."""
        run_id = self._record.id
        self._leases.shorten(seconds)
        try:
            self._leases.guarded()
        except CvlError as error:  # what has no way here says more
            self._progress.warn(f"{error}; so what is rented ends now")
            return False
        self._progress.warn(
            f"{self._record.where} {self._stays()} for {elapsed(seconds)}, for its results: "
            f"`cvl fetch {run_id} -o DIR` gets them, `cvl stop {run_id}` ends the rent"
        )
        self._leases.keep()
        return True

    def _kept(self) -> bool:
        """Leave what is rented for another `cvl fetch`, until its deadline."""
        run_id = self._record.id
        self._progress.warn(
            f"{self._record.where} {self._stays()}, until its deadline: `cvl fetch {run_id}`"
            f" tries again, `cvl stop {run_id}` ends the rent"
        )
        self._leases.keep()
        return True

    def _stays(self) -> str:
        rate = self._record.price_per_hour
        return "stays rented" if rate is None else f"stays rented at ${rate}/h"

    def _finish(self, status: ExitStatus) -> ExitStatus:
        cost = self._leases.cost()
        self._progress.finish(status, cost)
        if cost is not None:
            self._progress.tell("cost", f"${cost}")
        elif self._leases.priced() and self._leases.left() is not None:
            self._progress.tell("cost", "not known: a clock was set meanwhile")
        return status


def settled(status: ExitStatus) -> ExitStatus:
    """Return `status` with the exit code that its cause has on this side."""
    return ExitStatus(
        EXIT_CODES.get(status.cause, int(status)),
        cause=status.cause,
        run_id=status.run_id,
        detail=status.detail,
        log_bytes=status.log_bytes,
    )
