"""Brings new results here while the job still runs: a rented machine may vanish at any time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self, TypeVar

from cvl.core.errors import CvlError
from cvl.core.interfaces import Execution
from cvl.core.scope import Cancelled, DeadlineExceeded, Scope
from cvl.core.spec import Cause

T = TypeVar("T")

EVERY = 300.0
"""Seconds between two pulls."""
LET_GO = 5.0
"""Seconds that a pull under way has to end, when the job has."""


class Puller:
    """Fetches now and then, as a context manager; what fails is left to the last fetch."""

    def __init__(self, execution: Execution, into: Path, scope: Scope, *, wanted: bool) -> None:
        """`scope` limits a single pull; it is cancelled in the end. Not `wanted`: do nothing."""
        self._execution, self._into, self._scope = execution, into, scope
        self._thread = threading.Thread(target=self._pull, name="cvl-pull", daemon=True)
        self._wanted = wanted

    def __enter__(self) -> Self:
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.cancel(Cause.STOPPED)
        if self._wanted:
            self._thread.join(LET_GO)

    def _pull(self) -> None:
        while True:
            try:
                self._scope.sleep(EVERY)
                self._execution.fetch(self._into, self._scope)
            except (Cancelled, DeadlineExceeded):
                return
            except (CvlError, OSError):
                continue
