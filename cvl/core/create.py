"""Makes something out there once, however often that has to be asked for: its name is its token."""

from __future__ import annotations

from collections.abc import Callable

from cvl.core.errors import (
    Ambiguity,
    AuthError,
    CvlError,
    Denied,
    NoCapacity,
    Rejected,
    Unreachable,
)
from cvl.core.retry import AGAIN
from cvl.core.scope import Scope

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds behind each attempt to create something whose reply was lost."""
LIMIT = 60.0


def create(ask: Callable[[], str], scope: Scope) -> str:
    """Return the id of what `ask` makes, or has made when it was asked before.

    After a lost reply a refusal proves nothing: the first request may have been the reason. That
    we may not do it proves nothing either. Raises `Unreachable` or `Ambiguity` when nobody can
    say.
    """
    doubt: CvlError | None = None
    for attempt in scope.shielded(LIMIT).attempts(PAUSES, most=len(PAUSES)):
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
