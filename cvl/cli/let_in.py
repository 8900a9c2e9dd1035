"""Says at once that a login is none, where a command would otherwise wait for a better one."""

from __future__ import annotations

from cvl.core.bounded import bounded
from cvl.core.errors import AuthError, CvlError, MissingTool, UsageError
from cvl.core.interfaces import Execution
from cvl.core.scope import DeadlineExceeded, Scope, Tell
from cvl.ledger import Run
from cvl.providers import load

LIMIT = 90.0
"""Seconds in which a login is one: a program that gives credentials has 60 of them."""


def see_let_in(run: Run, execution: Execution, tell: Tell) -> None:
    """Raise what is wrong with our login to a provider: `AuthError`, `UsageError`, `MissingTool`.

    Whoever has just begun can log in and try again; who has followed a run for days waits for it.
    What else may be wrong, `tell` hears, and what comes next meets. A machine that is reached by a
    key of the run's own is not asked.
    """
    if not hasattr(load(run.runner), "reach"):
        return
    try:
        bounded(execution.poll, Scope(seconds=LIMIT))
    except (AuthError, UsageError, MissingTool):
        raise
    except CvlError as error:
        tell("waiting", f"{error}; the job goes on, asking again")
    except DeadlineExceeded:
        tell("waiting", f"no answer within {LIMIT:g} s; the job goes on, asking again")
