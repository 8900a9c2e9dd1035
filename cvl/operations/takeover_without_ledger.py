"""Ends a run while the ledger cannot be read: results still lie there, and money still runs.

All that is needed then is what the guardian has known since it began: the run's handle, under
which the machine is found by its name, and the tag, by which everything is.
"""

from __future__ import annotations

from pathlib import Path

from cvl.cleanup.leases import Leases
from cvl.core.errors import LedgerError, Unreachable, Unreadable, said
from cvl.core.interfaces import Execution, Observer, Provider
from cvl.core.parallel import bounded
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.core.spec import FETCH_LIMIT, GRACE, Cause
from cvl.ledger import Ledger, Run
from cvl.run.follow import deliver
from cvl.run.options import stop_limit

LOOK = 1.0
"""Seconds between two questions whether the job has ended."""
ENOUGH = 60.0
"""Seconds without an answer from the job's machine after which it is not asked any more."""


def save(
    record: Run, provider: Provider, observer: Observer, work: Scope, cause: Cause | None
) -> None:
    """Wait for the job, or stop it for `cause`, and bring its results; what fails is only said.

    `work` ends the waiting; when it is cancelled, all of it.
    """
    try:
        execution = provider.attach(record.handle)
        try:
            limit = stop_limit(provider, record.handle, GRACE)
            _see_ended(execution, work, cause, limit)
            rest = _after(work, FETCH_LIMIT)
            bounded(lambda: execution.fetch(Path(record.results), rest), rest)
        finally:
            execution.close()
    except Exception as error:  # noqa: BLE001 - nothing may keep what is rented from its end
        observer.warn(f"results may be lost: {said(error)}")


def sweep(
    record: Run, provider: Provider, ledger: Ledger, observer: Observer, limit: float
) -> None:
    """Destroy what carries the run's tag, and see it gone. Raises `StillOpen`."""
    leases = Leases(ledger, record.id, provider, Scope(tell=observer.phase))
    try:
        leases.release(Scope(seconds=limit, tell=observer.phase))
    except LedgerError as error:
        observer.warn(str(error))


def _see_ended(execution: Execution, work: Scope, cause: Cause | None, limit: float) -> None:
    if cause is None:
        try:
            return _waited(execution, work)
        except DeadlineExceeded:
            cause = Cause.TIMEOUT
    rest = _after(work, limit)
    bounded(lambda: deliver(execution, GRACE, cause, rest), rest)
    return _waited(execution, rest)


def _waited(execution: Execution, scope: Scope) -> None:
    now = scope.clock.monotonic
    heard = now()
    for _ in scope.attempts((LOOK,)):
        try:
            if bounded(execution.poll, scope) is not None:
                return
            heard = now()
        except (Unreachable, Unreadable):
            if now() - heard >= ENOUGH:
                raise
    scope.checkpoint()


def _after(work: Scope, seconds: float) -> Scope:
    """Return a scope that is cancelled with `work`, but may last longer."""
    rest = work.within(None)
    rest.deadline = rest.clock.monotonic() + seconds
    return rest
