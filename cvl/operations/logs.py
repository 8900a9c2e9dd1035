"""What a run has written: here already, and, as long as it goes on, over there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cvl.core.frozen import dataclass
from cvl.core.interfaces import Execution, Observer
from cvl.core.paths import ledger_file
from cvl.core.spec import LogChunk
from cvl.ledger import Ledger, Run, RunState
from cvl.operations.foreign_runs import find, foreign
from cvl.operations.reattach import attached, standing_when_slow
from cvl.operations.refresh import undriven
from cvl.run.log import RunLog, run_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The first `size` bytes of the file `path`, then `rest`: nothing twice, nothing left out."""

    path: Path
    size: int
    rest: Iterator[LogChunk]


def logs(run_id: str, observer: Observer, *, follow: bool) -> Log:
    """Return what a run has written so far, or (`follow`) until it ends. Raises `CvlError`."""
    run = find(run_id, Ledger(ledger_file()))
    log = RunLog(run_folder(run.id))
    over = run.state in {RunState.ENDED, RunState.RELEASING} and not foreign(run)
    size, cursor = log.whole()
    if over:
        return Log(path=log.path, size=log.size(), rest=iter(()))
    return Log(path=log.path, size=size, rest=_rest(run, cursor, observer, follow=follow))


def _rest(run: Run, cursor: str, observer: Observer, *, follow: bool) -> Iterator[LogChunk]:
    with attached(run, observer.phase) as execution:
        if follow:
            with standing_when_slow(run, observer.warn):
                yield from execution.chunks(cursor)
        elif undriven(run):
            yield from so_far(execution, cursor, observer)


def so_far(execution: Execution, after: str, observer: Observer) -> Iterator[LogChunk]:
    """Yield what the run has written by now beyond what is here."""
    written = execution.written(after)
    if written is None:
        observer.warn("the rest is still over there: `cvl logs -f` or `cvl attach` shows it")
        return
    yield from written
