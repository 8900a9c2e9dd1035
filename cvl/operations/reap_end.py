"""Ends what `cvl reap` has found; what keeps one of them open keeps none of the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from threading import Thread

from cvl.cleanup import until_gone
from cvl.core.bounded import bounded
from cvl.core.errors import (
    AuthError,
    Blocked,
    Elsewhere,
    LedgerError,
    MissingTool,
    StillOpen,
    Unreachable,
    UsageError,
    explained,
)
from cvl.core.interfaces import Provider
from cvl.core.parallel import together
from cvl.core.scope import DeadlineExceeded, Scope, limits
from cvl.core.spec import Resource
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import reap
from cvl.operations.open_run import WithoutOutput
from cvl.operations.reap import Finding
from cvl.operations.survey import LOOK_LIMIT, Survey
from cvl.providers import reopen

END_LIMIT = 3600.0
"""Seconds that all the ending may take: its fetching and releasing have limits of their own."""


class Ends:
    """Ends batches of findings, each as soon as it comes: no provider waits for another."""

    def __init__(self, survey: Survey) -> None:
        self._survey, self._codes, self._threads = survey, list[int](), list[Thread]()

    def begin(self, batch: Sequence[Finding]) -> None:
        """Begin to end a batch."""

        def finish() -> None:
            self._codes.append(_end_all(batch, self._survey))

        self._threads.append(Thread(target=finish, daemon=True))
        self._threads[-1].start()

    def wait(self) -> int:
        """Return the exit code once all is ended, or `END_LIMIT` has passed."""
        until = time.monotonic() + END_LIMIT
        for each in self._threads:
            each.join(max(0.0, until - time.monotonic()))
        late = [125] if len(self._codes) < len(self._threads) else []
        return max([self._survey.code, *self._codes, *late])


def _end_all(found: Sequence[Finding], survey: Survey) -> int:
    """End everything that was found, side by side; return 125 if anything was not seen gone."""
    results = together([partial(_end, each, survey) for each in found], END_LIMIT)
    for each, result in zip(found, results, strict=True):
        if isinstance(result, Exception):
            survey.observer.warn(f"still open: {each.kind} {each.name}: {explained(result)}")
    return 125 if any(isinstance(each, Exception) for each in results) else 0


def _end(each: Finding, survey: Survey) -> None:
    """End one finding. Raises whatever keeps it from being seen gone."""
    if each.orphan:
        _end_run(each, survey)
    elif each.resource and each.owner:
        scope = Scope(seconds=reap.RELEASE_LIMIT, tell=survey.observer.phase)
        until_gone.end(each.owner, [each.resource], scope)
    survey.observer.warn(f"ended {each.kind} {each.name}")


def _end_run(each: Finding, survey: Survey) -> None:
    """Bring a run to its end; where its line in the ledger cannot be made use of, by its tag."""

    def reopened(run: Run) -> Provider:
        return reopen(run.runner, run.handle)

    try:
        _see_let_in(each)
        reap.finish(each, survey.ledger, WithoutOutput(survey.observer), reopened)
    except Exception as error:
        if isinstance(error, StillOpen) and not isinstance(error.__cause__, Elsewhere):
            raise
        if isinstance(error, Blocked) and _waits(each, survey.ledger):
            raise
        survey.observer.warn(f"{each.name}: {explained(error)}; ending what carries its tag")
        seen = _end_tagged(each, survey)
        strange = Elsewhere in {type(error), type(error.__cause__)}
        if seen:
            reap.close(each, survey.ledger, seen if strange else None)
        if not seen or (strange and survey.ledger.leases(each.run_id, open_only=True)):
            raise


def _waits(each: Finding, ledger: Ledger) -> bool:
    """Return whether a run is kept for its results: then a guardian ends it, or its provider."""
    try:
        return ledger.run(each.run_id).state is RunState.FETCHING
    except LedgerError:
        return False


def _see_let_in(each: Finding) -> None:
    """Raise what keeps us from asking about a run at all: nothing would come of asking again."""
    if not (each.orphan and each.orphan.leases):
        return
    run, kind = each.orphan.run, each.orphan.leases[0].kind
    provider = reopen(run.runner, run.handle)
    try:
        bounded(lambda: list(provider.owned(kind)), Scope(seconds=LOOK_LIMIT))
    except (AuthError, UsageError, MissingTool):
        raise
    except DeadlineExceeded:
        raise Unreachable(f"{run.runner} gave no answer within {LOOK_LIMIT:.0f} s") from None
    except Exception as error:  # noqa: BLE001 - that may pass
        del error


def _end_tagged(each: Finding, survey: Survey) -> list[Resource]:
    """End what carries a run's tag; return what was there and is seen gone.

    Where nothing is seen nothing is concluded: it may be in another account.
    """
    scope, seen = Scope(seconds=reap.RELEASE_LIMIT, tell=survey.observer.phase), list[Resource]()
    for owner in survey.owners(each.provider):
        with limits(scope):
            there = until_gone.answered(scope, partial(reap.tagged, owner, each.run_id)) or []
        until_gone.end(owner, there, scope)
        seen += there
    return seen
