"""One thread that carries a job's output to whoever listens, until the job has ended."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from cvl.core.errors import LostContact, Unreachable, Unreadable
from cvl.core.interfaces import Execution, Observer
from cvl.core.scope import Bell, Scope
from cvl.core.spec import ExitStatus, LogChunk
from cvl.run.log import RunLog

PAUSE = 0.2
"""Seconds between two questions to a service whose stream ended before its job."""
PATIENCE = 600.0
"""Seconds without any answer after which we stop asking; the job lives on."""


class Pump:
    """Follows an execution from a cursor on. Use as a context manager; `wait` for the end."""

    def __init__(
        self, execution: Execution, observer: Observer, *, log: RunLog | None, after: str
    ) -> None:
        """`log` is None for whoever only watches."""
        self._execution, self._observer = execution, observer
        self._log, self._cursor = log, after
        self._over = False
        self._scope: Scope | None = None
        self._news = Bell()
        self._closed = threading.Event()
        self._status: ExitStatus | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._carry, name="cvl-pump", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._execution.close()
        self._thread.join(5.0)
        if self._log:
            self._log.close()

    def wait(self, scope: Scope) -> ExitStatus:
        """Return how the job ended. Raises as `scope.checkpoint`, and what broke the following.

        All output is `heard` by the scope.
        """
        self._scope = scope
        scope.wait(lambda: self._over, self._news)
        if self._error:
            raise self._error
        assert self._status is not None
        return self._status

    def _carry(self) -> None:
        try:
            while self._status is None and not self._closed.is_set():
                for chunk in self._execution.chunks(self._cursor):
                    self._deliver(chunk)
                self._status = self._polled()
                if self._status is None:
                    self._closed.wait(PAUSE)
        except Exception as error:  # noqa: BLE001 - kept for the thread that waits
            self._error = error
        finally:
            self._over = True
            self._news.ring()

    def _deliver(self, chunk: LogChunk) -> None:
        # Shown first, noted second: after a kill -9 in between, `attach` repeats the chunk
        # rather than losing it.
        if self._scope:
            self._scope.heard()
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

    def _polled(self) -> ExitStatus | None:
        began, pause, told = time.monotonic(), 1.0, False
        while True:
            try:
                return self._execution.poll()
            except (Unreachable, Unreadable) as error:
                spent = time.monotonic() - began
                if spent > PATIENCE or self._closed.wait(pause):
                    raise LostContact(
                        str(error), "the job lives on; `cvl attach` asks again"
                    ) from error
                if isinstance(error, Unreadable) and not told:
                    told = True
                    self._observer.warn(f"{error}; asking again")
                pause = min(1.0 + spent / 4, 15.0)
