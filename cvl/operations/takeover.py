"""What a guardian does once nobody else does: brings its run to its end.

Two threads. One has to do with the host: it attaches, stops the job and brings results, and then
releases, as every cvl does; a host may make it wait, fail, or hang. The other waits for nothing
but the clock and SIGTERM, and then sees gone what is rented, with no host in its way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from threading import Thread

from cvl.cleanup.guardian_client import GONE, LATE, RELEASE
from cvl.cleanup.guardian_keeper import FOLLOW
from cvl.cleanup.leases import room_of
from cvl.core.attempts import Attempts
from cvl.core.errors import FetchError, LedgerError, said
from cvl.core.paths import ledger_file
from cvl.core.printable import one_line
from cvl.core.process import me
from cvl.core.scope import Scope
from cvl.core.secrets import clean
from cvl.core.spec import FETCH_LIMIT, Cause
from cvl.ledger import Ledger, Run, RunState
from cvl.ledger.store import PATIENCE
from cvl.operations.guardian_listener import Listener
from cvl.providers import reopen
from cvl.run import lifecycle
from cvl.run.context import Context
from cvl.run.options import Options

PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between two attempts to bring a run to its end; the last one repeats."""
RELEASE_LIMIT = 3600.0
"""Seconds that one attempt to see everything gone may take; then the next begins."""
GIVE_WAY = 3.0
"""Seconds for the work under way to come to its own release, when there is time for no more."""
BRIEFLY = 5.0
"""Seconds to wait for the ledger, when there is time for no more."""
ANY_END = FETCH_LIMIT + 60.0
"""Seconds, beside those of its stop, after which a job that was to be stopped is waited for no
more."""
CAUSES = {FOLLOW: None, GONE: Cause.STOPPED, RELEASE: Cause.STOPPED, LATE: Cause.TIMEOUT}
"""What the job is told when it is stopped for that reason; None: it is not stopped."""

STABLE = frozenset({"handle", "results"})
"""What counts as it was when the guardian began, where the ledger has been damaged since."""


def take_over(record: Run, word: str, secrets: Mapping[str, str], listener: Listener) -> int:
    """Bring the run to its end, as `word` asks for; return 0 once nothing of it is open.

    `record` is the run as it was when the guardian began: what is known of it without the ledger.
    """
    if listener.last() is None and record.deadline is not None:
        # noted before our time, and its client was killed before it had told us
        left = max(record.deadline - time.time(), 0.0)
        listener.limit(left, left + room_of(record))
    work = Work(record, word, secrets, listener)
    thread = Thread(target=work.go, name="cvl-work", daemon=True)
    with suppress(RuntimeError):  # no more threads to be had: what is rented ends without
        thread.start()
    while thread.is_alive() and not (work.over or listener.hurried or listener.last() == 0):
        listener.hear()
    if thread.is_alive() and not work.over:
        work.rush()
        thread.join(GIVE_WAY)
    if not work.over:
        Work(record, RELEASE, secrets, listener).go()
    return 0


def meant(record: Run, word: str) -> str:
    """Return what a word means for this run: a detached one outlives its client."""
    return FOLLOW if word == GONE and record.detached else word


class Work:
    """The attempts to bring a run to its end, from its host on. `over` once there is no more."""

    def __init__(
        self, record: Run, word: str, secrets: Mapping[str, str], listener: Listener
    ) -> None:
        self._record, self._word, self._secrets, self._listener = record, word, secrets, listener
        self._rush: Callable[[], None] | None = None
        self.over = False

    def go(self) -> None:
        """Try until nothing is open, ever less often."""
        for _ in Attempts(PAUSES, self._rest):
            try:
                self.over = self._attempted(self._now())
            except Exception as error:  # noqa: BLE001 - nothing may keep it from trying again
                Log().warn(f"{said(error)}; trying again")
            if self.over:
                break
        self._listener.wake()

    def rush(self) -> None:
        """Give up everything but the release."""
        if rush := self._rush:
            rush()

    def _rest(self, seconds: float, _asked: float) -> bool:
        """Wait, but not past the limit, for then there is more to do."""
        left = self._listener.left()
        Scope().sleep(seconds if left is None or left <= 0 else min(seconds, left))
        return True

    def _now(self) -> str:
        """Return what is to be done by now: the limit may have passed, or SIGTERM come."""
        if self._listener.hurried or self._listener.last() == 0:
            return RELEASE
        return LATE if self._listener.left() == 0 and self._word != RELEASE else self._word

    def _attempted(self, word: str) -> bool:
        """Try once; return whether it is all over."""
        ledger = Ledger(ledger_file(), patience=BRIEFLY if word == RELEASE else PATIENCE)
        try:
            record = ledger.run(self._record.id)
            if record.state is RunState.ENDED:
                return True
            if word in {RELEASE, LATE}:
                ledger.take(record.id, me(), record.owner)
            if not lifecycle.adopt(ledger.run(record.id), ledger):
                return False
            try:
                self._recover(ledger.run(record.id), ledger, meant(self._record, word))
            except FetchError as error:
                if ledger.run(record.id).guardian == me():
                    raise
                Log().warn(f"{error}; another guardian goes on")
                return True
            return ledger.run(record.id).state is RunState.ENDED
        except LedgerError as error:
            Log().warn(f"{error}; going on without it")
            return self._is_over_without(ledger, word)

    def _is_over_without(self, ledger: Ledger, word: str) -> bool:
        """Do the same by what was known at the start: the handle, and the tag in the end.

        Whether the job has begun is not known then: it is asked for. Return whether all is gone.
        """
        known = replace(self._record, state=RunState.RUNNING)
        try:
            self._recover(known, ledger, meant(known, word), hold=False)
        except LedgerError as error:
            Log().warn(str(error))
            return True
        return False  # the ledger can be read again

    def _recover(self, record: Run, ledger: Ledger, word: str, *, hold: bool = True) -> None:
        """Drive the run to its end; SIGTERM and the limit reach us there too."""
        lost = STABLE if word == RELEASE else STABLE & {*record.damage}
        record = replace(record, **{name: getattr(self._record, name) for name in lost})
        options = Options(
            observer=Log(),
            fetch=word != RELEASE and bool(record.results),
            hold=hold,
            release_limit=RELEASE_LIMIT,
        )
        provider = reopen(self._record.runner, record.handle, self._secrets)
        work = Context(record, provider, ledger, options)
        left, last = self._listener.left(), self._listener.last()
        if left is not None and last is not None:
            work.leases.expect(left, max(last - left, 0.0))
        if CAUSES[word]:
            self._listener.at_the_latest(work.stop_limit + ANY_END)
        self._rush = work.rush
        try:
            if self._now() == RELEASE:
                work.rush()
            lifecycle.recover(work, CAUSES[word], at_once=word == RELEASE)
        finally:
            self._rush = None


class Log:
    """The `Observer` of a process without a terminal: lines in its log."""

    def phase(self, name: str, text: str) -> None:
        self.warn(f"{name} {text}")

    def output(self, chunk: object) -> None:
        del chunk  # the run's own log has it

    def warn(self, text: str) -> None:
        line = f"{time.strftime('%m-%d %H:%M:%S')} {one_line(clean(text))}\n"
        with suppress(OSError):  # a full disk is no reason to stop
            sys.stderr.write(line)
