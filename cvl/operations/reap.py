"""Ends what `cvl reap` has found; what keeps one of them open keeps none of the others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Thread

from cvl.cleanup import until_gone
from cvl.cleanup.leases import Leases
from cvl.cleanup.release import same
from cvl.core.errors import (
    AuthError,
    Blocked,
    CvlError,
    Elsewhere,
    LedgerError,
    MissingTool,
    StillOpen,
    Unreachable,
    UsageError,
    explained,
)
from cvl.core.interfaces import Observer, Provider
from cvl.core.parallel import bounded, together
from cvl.core.scope import DeadlineExceeded, Scope, limits
from cvl.core.spec import Cause, Resource, ended
from cvl.ledger import Ledger, Orphan, RunState
from cvl.operations.reap_findings import Finding, tagged
from cvl.operations.reap_survey import LOOK_LIMIT, Survey
from cvl.operations.reattach import WithoutOutput
from cvl.providers import reopen
from cvl.run import lifecycle
from cvl.run.context import Context

END_LIMIT = 3600.0
"""Seconds that all the ending may take: its fetching and releasing have limits of their own."""
RELEASE_LIMIT = 600.0
"""Seconds in which what was asked to end has to be seen gone."""


class Ends:
    """Ends batches of findings, each as soon as it comes: no provider waits for another."""

    def __init__(self, survey: Survey) -> None:
        self._survey, self._codes, self._threads = survey, list[int](), list[Thread]()

    def begin(self, batch: Sequence[Finding]) -> None:
        """Begin to end a batch."""

        def end() -> None:
            self._codes.append(_end_all(batch, self._survey))

        self._threads.append(Thread(target=end, daemon=True))
        self._threads[-1].start()

    def wait(self) -> int:
        """Return the exit code once all is ended, or `END_LIMIT` has passed."""
        limit = Scope(seconds=END_LIMIT + 1.0)  # what is late is named first
        for each in self._threads:
            each.join(limit.remaining())
        late = [125] if len(self._codes) < len(self._threads) else []
        return max([self._survey.code, *self._codes, *late])


def _end_all(findings: Sequence[Finding], survey: Survey) -> int:
    """End all, side by side; return 125 if anything was not seen gone."""
    results = together([partial(_end, each, survey) for each in findings], END_LIMIT)
    for each, result in zip(findings, results, strict=True):
        if isinstance(result, Exception):
            survey.observer.warn(f"still open: {each.kind} {each.name}: {explained(result)}")
    return 125 if any(isinstance(each, Exception) for each in results) else 0


def _end(each: Finding, survey: Survey) -> None:
    """End one finding. Raises whatever keeps it from being seen gone."""
    if each.orphan:
        _end_run(each, each.orphan, survey)
    elif each.resource and each.owner:
        scope = Scope(seconds=RELEASE_LIMIT, tell=survey.observer.phase)
        until_gone.end(each.owner, [each.resource], scope)
    survey.observer.warn(f"ended {each.kind} {each.name}")


def _end_run(each: Finding, orphan: Orphan, survey: Survey) -> None:
    """Bring a run to its end; where its line in the ledger cannot be made use of, by its tag."""
    ledger = survey.ledger
    try:
        provider = reopen(orphan.run.runner, orphan.run.handle)
        _check_login(orphan, provider)
        finish(orphan, provider, ledger, WithoutOutput(survey.observer))
    except Exception as error:
        if isinstance(error, StillOpen) and not isinstance(error.__cause__, Elsewhere):
            raise
        if isinstance(error, Blocked) and _waits(each, ledger):
            raise
        survey.observer.warn(f"{each.name}: {explained(error)}; ending what carries its tag")
        seen = _end_tagged(each, survey)
        strange = Elsewhere in {type(error), type(error.__cause__)}
        if seen:
            close(each.run_id, ledger, seen if strange else None)
        if not seen or (strange and ledger.leases(each.run_id, open_only=True)):
            raise


def _waits(each: Finding, ledger: Ledger) -> bool:
    """Return whether a run is kept for its results: then a guardian ends it, or its provider."""
    try:
        return ledger.run(each.run_id).state is RunState.FETCHING
    except LedgerError:
        return False


def _check_login(orphan: Orphan, provider: Provider) -> None:
    """Raise what keeps us from asking about a run at all: nothing would come of asking again."""
    if not orphan.leases:
        return
    try:
        bounded(lambda: list(provider.owned(orphan.leases[0].kind)), Scope(seconds=LOOK_LIMIT))
    except (AuthError, UsageError, MissingTool):
        raise
    except DeadlineExceeded:
        who = orphan.run.runner
        raise Unreachable(f"{who} gave no answer within {LOOK_LIMIT:.0f} s") from None
    except Exception as error:  # noqa: BLE001 - that may pass
        del error


def _end_tagged(each: Finding, survey: Survey) -> list[Resource]:
    """End what carries a run's tag; return what was there and is seen gone.

    Where nothing is seen nothing is concluded: it may be in another account.
    """
    scope, seen = Scope(seconds=RELEASE_LIMIT, tell=survey.observer.phase), list[Resource]()
    for owner in survey.owners(each.provider):
        with limits(scope):
            there = until_gone.answered(scope, partial(tagged, owner, each.run_id)) or []
        until_gone.end(owner, there, scope)
        seen += there
    return seen


def finish(orphan: Orphan, provider: Provider, ledger: Ledger, observer: Observer) -> None:
    """Bring an abandoned run to its end: stop its job, fetch, release. Raises `CvlError`."""
    run = orphan.run
    if run.state is RunState.ENDED:
        scope = Scope(seconds=RELEASE_LIMIT, tell=observer.phase)
        Leases(ledger, run.id, provider, scope).release(scope)
        return
    lifecycle.refuse_strangers(run, provider, ledger)
    if not lifecycle.adopt(run, ledger):
        return  # somebody was faster
    options = lifecycle.Options(observer=observer, release_limit=RELEASE_LIMIT)
    lifecycle.recover(Context(ledger.run(run.id), provider, ledger, options), Cause.STOPPED)


def close(run_id: str, ledger: Ledger, seen: Sequence[Resource] | None = None) -> None:
    """Note that nothing of a run is there any more, so far as the ledger can be written.

    `seen`: only that, unless the run's machine is of it: where the rest is asked for is not sure.
    """
    all_of_it = seen is None or any(each.price_per_hour is not None for each in seen)
    with suppress(CvlError):
        for lease in ledger.leases(run_id, open_only=True):
            if all_of_it or any(same(each, lease) for each in seen or ()):
                ledger.released(lease)
        ledger.finish(run_id, ended(Cause.LOST, run_id=run_id))
