"""Names a host that gives no sign of life for long: once, and once more when it is back."""

from __future__ import annotations

from collections.abc import Callable

from cvl.core.scope import BACK, SILENT, Scope, Tell

AFTER = 30.0
"""Seconds without a sign of life from a host that owes us one; then it is named."""
STALE = 60.0
"""Seconds in which nobody waited for the host: what was before counts no more."""


class Silence:
    """How long one host has owed us an answer. Shared by all requests to it, in any thread."""

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where
        self._since = self._looked = 0.0
        self._waiting = False
        self._tell: Tell | None = None

    def wait(self, scope: Scope, why: str = "") -> None:
        """Note that an answer is still waited for; `scope` is told when that is long.

        `why`: what keeps it from coming, as far as anybody knows.
        """
        now = scope.clock.monotonic()
        if not self._waiting or now - self._looked > STALE:
            self._waiting, self._since = True, now
        self._looked = now
        if self._tell is None and now - self._since >= AFTER:
            self._tell = scope.tell
            reason = f": {why}" if why else ""
            text = f"{self._where()} has given no answer for {now - self._since:.0f} s{reason}"
            scope.tell(SILENT, text)

    def heard(self) -> None:
        """Note a sign of life."""
        self._waiting = False
        tell, self._tell = self._tell, None
        if tell:
            tell(BACK, f"{self._where()} answers again")
