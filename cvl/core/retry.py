"""Does again what fails in a way that may pass, for as long as its scope allows: never so often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cvl.core.attempts import Attempts
from cvl.core.errors import (
    Ambiguity,
    AuthError,
    BrokenOff,
    CvlError,
    Denied,
    NoCapacity,
    Rejected,
    Silent,
    Unreachable,
)
from cvl.core.replies import LONGEST_WAIT
from cvl.core.scope import Clock, Scope, nap

T = TypeVar("T")

PAUSES = (0.0, 0.3, 1.0, 3.0, 5.0, 10.0)
"""Seconds between attempts; the last one repeats."""
CREATE_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds behind each attempt to create something whose reply was lost."""
CREATE_LIMIT = 60.0
CONTACT = 5.0
"""Seconds after which a connection that broke had been a good one."""
MOST_WAIT = 1.0 * LONGEST_WAIT
"""Seconds that one request waits in all because it was asked to; then its caller may."""
AGAIN = "; asking again"
"""Behind each failure that is told while it goes on."""
PASSING = (Unreachable, BrokenOff)
"""Failures after which another attempt may succeed."""


def briefly(pauses: Sequence[float], clock: Clock | None = None) -> Attempts:
    """Give attempts to a call that is given no scope: one, and once more behind each of `pauses`.

    Who answers may ask for longer ones, together for `MOST_WAIT`, and no longer than `limits` say.
    """
    waited = 0.0

    def rest(pause: float, asked: float) -> bool:
        nonlocal waited
        waited += asked
        if waited <= MOST_WAIT:
            nap(pause, asked, clock)
        return waited <= MOST_WAIT

    return Attempts(pauses, rest, len(pauses) + 1)


def repeated(step: Callable[[], T], pauses: Sequence[float], clock: Clock | None = None) -> T:
    """Return what `step` returns, again after `Unreachable`, as `briefly` says. Raises as it."""
    for attempt in briefly(pauses, clock):
        try:
            return step()
        except Unreachable as error:
            failure = error
            attempt.asked(error.wait)
    raise failure


def steadily(
    scope: Scope,
    step: Callable[[], T],
    *,
    passing: tuple[type[CvlError], ...] = PASSING,
    between: Callable[[], None] = lambda: None,
) -> T:
    """Return what `step` returns; while it raises what is `passing`, do it again.

    Who answers may ask for a longer pause (`CvlError.wait`). Raises what else `step` raises, and
    what `between` two attempts does; `Cancelled`; and once the scope is over, the last failure.
    """
    clock = scope.clock
    for attempt in scope.attempts(PAUSES):
        began = clock.monotonic()
        try:
            return step()
        except passing as error:
            failure = error
            if clock.monotonic() - began > CONTACT and not isinstance(error, Silent):
                attempt.anew()
            if getattr(error, "answered", False):
                scope.heard()
            scope.tell("waiting", f"{error}{AGAIN}")
            between()
            attempt.asked(error.wait)
    raise failure


def create(ask: Callable[[], str], scope: Scope) -> str:
    """Return the id of what `ask` makes, or has made when it was asked before.

    After a lost reply a refusal proves nothing: the first request may have been the reason. That
    we may not do it proves nothing either. Raises `Unreachable` or `Ambiguity` when nobody can
    say.
    """
    doubt: CvlError | None = None
    for attempt in scope.shielded(CREATE_LIMIT).attempts(CREATE_PAUSES, most=len(CREATE_PAUSES)):
        try:
            return ask()
        except Unreachable as error:
            doubt = error
        except (Denied, AuthError) as error:
            raise doubt or Ambiguity(str(error), error.hint) from error
        except (Rejected, NoCapacity) as error:
            raise doubt or error from error
        scope.tell("waiting", f"{doubt}{AGAIN}")
        attempt.asked(doubt.wait)
    assert doubt is not None
    raise doubt
