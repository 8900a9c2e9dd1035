"""Makes something out there once, however often that has to be asked for: its name is its token."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from cvl.core.errors import (
    Ambiguity,
    AuthError,
    CvlError,
    Denied,
    NoCapacity,
    Rejected,
    Unreachable,
)
from cvl.core.scope import DeadlineExceeded, Scope

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts to create something whose reply was lost."""
LIMIT = 60.0


def create(ask: Callable[[], str], scope: Scope) -> str:
    """Return the id of what `ask` makes, or has made when it was asked before.

    After a lost reply a refusal proves nothing: the first request may have been the reason. That
    we may not do it proves nothing either. Raises `Unreachable` or `Ambiguity` when nobody can
    say.
    """
    doubt: CvlError | None = None
    waiting = scope.shielded(LIMIT)
    for pause in PAUSES:
        try:
            return ask()
        except Unreachable as error:
            doubt = error
        except (Denied, AuthError) as error:
            raise doubt or Ambiguity(str(error), error.hint) from error
        except (Rejected, NoCapacity) as error:
            raise doubt or error from error
        scope.tell("waiting", f"{doubt}; asking again")
        with suppress(DeadlineExceeded):
            waiting.sleep(max(pause, doubt.wait))
    assert doubt is not None
    raise doubt
