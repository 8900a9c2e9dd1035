"""Carries a job's output here, and now and then its results, while it runs; each in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from cvl.core.errors import CvlError, LostContact, Unreachable, Unreadable
from cvl.core.interfaces import Execution, Observer
from cvl.core.scope import Bell, Cancelled, DeadlineExceeded, Scope
from cvl.core.spec import Cause, ExitStatus, LogChunk
from cvl.run.log import RunLog

PAUSES = (0.2,)
"""Seconds between two questions to a service whose stream ended before its job."""
ASK_AGAIN = (1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.5, 9.5, 12.0, 15.0)
"""The same, to one that does not answer."""
PATIENCE = 600.0
"""Seconds without any answer after which we stop asking; the job lives on."""
EVERY = 300.0
"""Seconds between two pulls of results."""
LET_GO = 5.0
"""Seconds that a thread has to end, when the job has."""


class Pump:
    """Follows an execution from a cursor on. Use as a context manager; `wait` for the end."""

    def __init__(
        self,
        execution: Execution,
        observer: Observer,
        scope: Scope,
        *,
        log: RunLog | None,
        after: str,
    ) -> None:
        """`scope` is cancelled in the end. `log` is None for whoever only watches."""
        self._execution, self._observer, self._scope = execution, observer, scope
        self._log, self._cursor = log, after
        self._over = False
        self._waiting: Scope | None = None
        self._news = Bell()
        self._status: ExitStatus | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._carry, name="cvl-pump", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.cancel(Cause.STOPPED)
        self._execution.close()
        self._thread.join(LET_GO)
        if self._log:
            self._log.close()

    def wait(self, scope: Scope) -> ExitStatus:
        """Return how the job ended. Raises as `scope.checkpoint`, and what broke the following.

        All output is `heard` by the scope.
        """
        self._waiting = scope
        scope.wait(lambda: self._over, self._news)
        if self._error:
            raise self._error
        assert self._status is not None
        return self._status

    def _carry(self) -> None:
        try:
            for _ in self._scope.attempts(PAUSES):
                for chunk in self._execution.chunks(self._cursor):
                    self._deliver(chunk)
                self._status = self._poll()
                if self._status is not None:
                    return
        except Exception as error:  # noqa: BLE001 - kept for the thread that waits
            self._error = error
        finally:
            self._over = True
            self._news.ring()

    def _deliver(self, chunk: LogChunk) -> None:
        # Shown first, noted second: after a kill -9 in between, `attach` repeats the chunk
        # rather than losing it.
        if self._waiting:
            self._waiting.heard()
        self._observer.output(chunk)
        if self._log:
            try:
                self._log.append(chunk)
            except OSError as error:
                self._observer.warn(
                    f"the log {self._log.path} cannot be written ({error.strerror}): it ends "
                    "here; `cvl logs` asks the machine for the rest"
                )
                self._log = None
        self._cursor = chunk.cursor

    def _poll(self) -> ExitStatus | None:
        warned, failure = False, Exception()
        for _ in self._scope.attempts(ASK_AGAIN, limit=PATIENCE):
            try:
                return self._execution.poll()
            except (Unreachable, Unreadable) as error:
                failure = error
                if isinstance(error, Unreadable) and not warned:
                    warned = True
                    self._observer.warn(f"{error}; asking again")
        raise LostContact(str(failure), "the job lives on; `cvl attach` asks again") from failure


@contextmanager
def pulling(execution: Execution, into: Path, scope: Scope) -> Iterator[None]:
    """Fetch now and then, for a rented machine may vanish; what fails is left to the last fetch.

    `scope` limits a single pull; it is cancelled in the end.
    """

    def pull() -> None:
        with suppress(Cancelled, DeadlineExceeded):
            while True:
                scope.sleep(EVERY)
                with suppress(CvlError, OSError):
                    execution.fetch(into, scope)

    thread = threading.Thread(target=pull, name="cvl-pull", daemon=True)
    thread.start()
    try:
        yield
    finally:
        scope.cancel(Cause.STOPPED)
        thread.join(LET_GO)
