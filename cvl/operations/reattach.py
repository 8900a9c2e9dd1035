"""A run that was begun earlier, opened again by whoever asks for it; nobody waits in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Timer

from cvl.core.errors import AuthError, CvlError, MissingTool, UsageError
from cvl.core.interfaces import Execution, Observer, completed
from cvl.core.parallel import bounded
from cvl.core.process import Life, describe, life
from cvl.core.scope import DeadlineExceeded, Scope, Tell, silent
from cvl.core.spec import ExitStatus, LogChunk
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.foreign_runs import foreign
from cvl.providers import load, reopen

AFTER = 1.0
"""Seconds after which a person wonders."""
LOGIN_LIMIT = 90.0
"""Seconds in which a login is one: a program that gives credentials has 60 of them."""
DOING = {
    RunState.PLANNED: "being started",
    RunState.LAUNCHING: "being started",
    RunState.RUNNING: "running",
    RunState.FETCHING: "over, its results are to be fetched",
    RunState.RELEASING: "over, what was rented for it is ended",
    RunState.ENDED: "over",
}


@contextmanager
def attached(
    run: Run, tell: Tell = silent, handle: Mapping[str, str] | None = None
) -> Iterator[Execution]:
    """Attach to a run, and let go of it in the end; `tell` hears what is waited for."""
    known = run.handle if handle is None else handle
    execution = completed(reopen(run.runner, run.handle).attach(known, tell), Execution)
    try:
        yield execution
    finally:
        execution.close()


def follow(run: Run, ledger: Ledger, observer: Observer, *, hold: bool = True) -> ExitStatus:
    """Follow a run, and bring it to its end unless somebody else does; `hold` as in `Options`."""
    from cvl.run import lifecycle

    provider = reopen(run.runner, run.handle)
    options = lifecycle.Options(observer=observer, hold=hold)
    return lifecycle.attach(run, provider, ledger, options, watching=foreign(run))


def check_login(run: Run, execution: Execution, tell: Tell) -> None:
    """Raise what is wrong with our login to a provider: `AuthError`, `UsageError`, `MissingTool`.

    Whoever has just begun can log in and try again; who has followed a run for days waits for it.
    What else may be wrong, `tell` hears, and what comes next meets. A machine that is reached by a
    key of the run's own is not asked.
    """
    if not load(run.runner).reach:
        return
    try:
        bounded(execution.poll, Scope(seconds=LOGIN_LIMIT))
    except (AuthError, UsageError, MissingTool):
        raise
    except CvlError as error:
        tell("waiting", f"{error}; the job goes on, asking again")
    except DeadlineExceeded:
        tell("waiting", f"no answer within {LOGIN_LIMIT:g} s; the job goes on, asking again")


@contextmanager
def standing_when_slow(run: Run, say: Callable[[str], None]) -> Iterator[None]:
    """Say how a run stands if the block takes longer than a moment."""
    timer = Timer(AFTER, lambda: say(standing(run)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def standing(run: Run) -> str:
    """Return what is known here of a run, and who brings it to its end."""
    return f"{run.id} was {DOING[run.state]} on {run.where}; {_keeper(run)}"


def _keeper(run: Run) -> str:
    if foreign(run):
        return "whoever started it drives it from elsewhere"
    if run.state is RunState.ENDED:
        return "nothing of it is left to do"
    if run.owner not in {"", run.guardian} and life(run.owner) is not Life.DEAD:
        return f"{describe(run.owner)} drives it"
    if run.guardian and life(run.guardian) is not Life.DEAD:
        kept = run.state is RunState.FETCHING and not run.owner
        doing = "it is kept for its results, until" if kept else "what started it is gone,"
        return f"{doing} its guardian brings it to its end"
    if run.detached:
        return "nobody drives it, it goes on by itself"
    return "what started it is gone, and nobody else drives it"


class WithoutOutput:
    """An `Observer` that passes all on but the job's output."""

    def __init__(self, observer: Observer) -> None:
        self.phase, self.warn = observer.phase, observer.warn

    def output(self, chunk: LogChunk) -> None:
        """Nobody has asked for it."""
