"""Says how a run stands when a command has to wait for it: nobody waits in silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from cvl.cli.console import Console
from cvl.core.process import Life, describe, life
from cvl.ledger import Run, RunState
from cvl.operations.foreign_runs import foreign

AFTER = 1.0
"""Seconds after which a person wonders."""
DOING = {
    RunState.PLANNED: "being started",
    RunState.LAUNCHING: "being started",
    RunState.RUNNING: "running",
    RunState.FETCHING: "over, its results are to be fetched",
    RunState.RELEASING: "over, what was rented for it is ended",
    RunState.ENDED: "over",
}


@contextmanager
def told(run: Run, console: Console) -> Iterator[None]:
    """Say how a run stands if the block takes longer than a moment."""
    timer = Timer(AFTER, lambda: console.say(standing(run)))
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
