"""What has become of the runs that nobody drives: asks where they are, all at once, briefly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from cvl.core.errors import CvlError, Elsewhere
from cvl.core.parallel import together
from cvl.core.process import Life, life
from cvl.core.spec import Cause, ExitStatus
from cvl.ledger import Ledger, Run, RunState

LIMIT = 2.0
"""Seconds that all questions together may take."""
MOST = 16
"""Runs that are asked about, the newest first."""

OPEN = frozenset({RunState.LAUNCHING, RunState.RUNNING})
Ask = Callable[[Run], ExitStatus | None]
Hear = Callable[[Run, Elsewhere], None]


def silent(_run: Run, _error: Elsewhere) -> None:
    """Hear nothing."""


def latest(
    runs: Sequence[Run], ledger: Ledger, ask: Ask | None = None, hear: Hear = silent
) -> list[Run]:
    """Return `runs` with what is new about them, which the ledger then knows too.

    A run whose driver is gone is asked about; what does not answer in time stays as it was. `hear`
    is told of one that was asked for where it is not.
    """
    unknown = [run for run in runs if run.state in OPEN and run.exit_code is None]
    unheard = [run for run in unknown if undriven(run)][:MOST]
    ends = _ends(unheard, ask or poll, hear) if unheard else {}
    return [_noted(ledger, run, ends[run.id]) if run.id in ends else run for run in runs]


def undriven(run: Run) -> bool:
    """Return whether nobody drives this run, so that what is known of it here may lag behind."""
    return all(keeper == "" or life(keeper) is Life.DEAD for keeper in (run.owner, run.guardian))


def poll(run: Run) -> ExitStatus | None:
    """Return how a run has ended, asking the machine that it is on."""
    from cvl.operations.reattach import attached

    with attached(run, handle=run.reach) as execution:
        return execution.poll()


def _ends(runs: Sequence[Run], ask: Ask, hear: Hear) -> dict[str, ExitStatus]:
    ends = dict[str, ExitStatus]()
    answers = together([partial(ask, run) for run in runs], LIMIT)
    for run, answer in zip(runs, answers, strict=True):
        if isinstance(answer, Elsewhere):
            hear(run, answer)
        elif isinstance(answer, ExitStatus):  # whatever else it is, it is no news
            ends[run.id] = answer
    return ends


def _noted(ledger: Ledger, run: Run, status: ExitStatus) -> Run:
    """Note that only the results are still to be fetched; what never started has none."""
    over = replace(run, state=RunState.FETCHING, exit_code=int(status), cause=status.cause)
    try:
        if status.cause is Cause.NOT_STARTED and ledger.finish(run.id, status, by=run.owner):
            return ledger.run(run.id)
        ledger.advance(run.id, RunState.FETCHING, status=status)
    except CvlError:
        pass
    return over
