"""Brings new results here while the job still runs: a rented machine may vanish at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from cvl.errors import CvlError
from cvl.provider import Execution
from cvl.scope import Bell, Cancelled, DeadlineExceeded, Scope, limits
from cvl.spec import Cause

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


def bounded(call: Callable[[], T], scope: Scope) -> T:
    """Return what `call` returns, but wait no longer than `scope`: it may hang in a dead pipe.

    It goes on in a thread of its own when the scope ends first. Raises as `call` and `scope`.
    """
    bell, results, errors = Bell(), list[T](), list[BaseException]()

    def work() -> None:
        try:
            with limits(scope):
                results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            errors.append(error)
        finally:
            bell.ring()

    threading.Thread(target=work, name="cvl-bounded", daemon=True).start()
    scope.wait(lambda: bool(results or errors), bell)
    if errors:
        raise errors[0]
    return results[0]
