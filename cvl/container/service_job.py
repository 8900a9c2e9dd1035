"""What every `Execution` shares whose job a service runs: contact with that service.

Whatever fails on the way, the job lives on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from cvl.core.errors import (
    AuthError,
    CvlError,
    Denied,
    LostContact,
    Rejected,
    Unreachable,
    UsageError,
    explained,
)
from cvl.core.retry import AGAIN
from cvl.core.scope import Clock, Scope, Tell
from cvl.core.spec import Cause, ExitStatus

PATIENCE, BARRED = 1800.0, 10.0
"""Seconds without an answer, or while we may not ask, after which we stop; the job lives on."""
PASSING = (Unreachable, AuthError, UsageError, Rejected)
"""What is waited out while a job is followed."""


class ServiceJob:
    """One job of a `service`. `tell` hears what is waited for."""

    service: ClassVar[str]

    def __init__(
        self, handle: Mapping[str, str], clock: Clock, tell: Tell, *, answered: bool
    ) -> None:
        """`answered`: the service has just answered us."""
        self._handle, self._tell, self._answered = handle, tell, answered
        self.run_id = handle["run"]
        self._nodes = int(handle.get("nodes") or 1)
        self._scope = Scope(clock)
        self._status: ExitStatus | None = None
        self._silent_since: float | None = None

    @property
    def handle(self) -> Mapping[str, str]:
        return self._handle

    def written(self, after: str = "") -> None:
        del after

    def close(self) -> None:
        self._scope.cancel(Cause.STOPPED)

    @contextmanager
    def _login_waited_for(self) -> Iterator[None]:
        """Have a login that is good no more pass for what may pass, if it was good before.

        Whoever follows a job for days may have to log in again: that is waited for. A command that
        begins with it has nothing to wait for.
        """
        try:
            yield
        except (AuthError, UsageError) as error:
            if not self._answered:
                raise
            raise Unreachable(f"{error}; {error.hint}") from error

    def _heard(self) -> None:
        """Note that the service has answered."""
        self._answered, self._silent_since = True, None

    def _wait_on(self, error: CvlError) -> None:
        """Say what is waited for.

        Raises `LostContact` when that has taken too long since the first question that had no
        answer, and `error` itself if it is about our own login or configuration and nothing was
        good before.
        """
        if not self._answered and not isinstance(error, Unreachable | Rejected):
            raise error
        self._tell("waiting", f"{explained(error)}{AGAIN}")
        now = self._scope.clock.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since > (BARRED if isinstance(error, Denied) else PATIENCE):
            raise LostContact(
                f"lost contact with {self.service}: {error}",
                f"{error.hint}; the job lives on".removeprefix("; ")
                + f": `cvl attach {self.run_id}` follows it again",
            ) from error
