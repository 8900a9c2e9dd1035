"""The ledger itself: every change is a compare-and-set in one transaction, on disk on return."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Unpack

from cvl.core.errors import LedgerError
from cvl.core.process import Life, life
from cvl.core.spec import ExitStatus, Resource
from cvl.ledger import leases, runs
from cvl.ledger.columns import text
from cvl.ledger.store import PATIENCE, Store
from cvl.ledger.values import (
    AFTER_THE_END,
    MAY_ACQUIRE,
    RUN_STEPS,
    Facts,
    Lease,
    LeaseState,
    Orphan,
    Run,
    RunState,
)

UNFINISHED = frozenset(RunState) - {RunState.ENDED}


class Ledger:
    """What this user has running, for all cvl processes at once. Holds nothing open.

    A method that returns a bool tells whether it won: False means that somebody else was there
    first, and that the caller has to look again before it acts. `by` makes a change depend on
    the run's owner as well. All raise `LedgerError`, and then nothing has changed.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        patience: float = PATIENCE,
    ) -> None:
        """Open nothing yet. `now` is UTC epoch seconds; `patience`, seconds for a lock."""
        self._store = Store(path, patience=patience)
        self._now = now

    @property
    def path(self) -> Path:
        """The file, whether it exists or not."""
        return self._store.path

    def id(self) -> str:
        """Return what names this ledger in the tags of its resources, "" if there is none yet."""
        with self._store.reading() as db:
            if db is None:
                return ""
            if (row := db.execute("SELECT id FROM ledger").fetchone()) is None:
                raise LedgerError(f"the ledger {self.path} has lost its id", runs.MISSING)
            return text(row["id"])

    def begin(self, run: Run) -> Run:
        """Note a planned run with its handle, before anything is started; return it as noted."""
        if run.state is not RunState.PLANNED:
            raise ValueError(run.state)
        with self._store.beginning() as db:
            return runs.add(db, run, self._now() if run.started is None else run.started)

    def advance(
        self, run_id: str, to: RunState, *, by: str | None = None, **facts: Unpack[Facts]
    ) -> bool:
        """Move a run on, and note facts with it."""
        if to is RunState.ENDED:
            raise ValueError(to)
        allowed = frozenset(each for each, steps in RUN_STEPS.items() if to in steps)
        with self._store.writing() as db:
            return runs.change(db, run_id, facts, state=to, come_from=allowed, by=by)

    def note(self, run_id: str, *, by: str | None = None, **facts: Unpack[Facts]) -> bool:
        """Note facts about a run. Of an ended one only `AFTER_THE_END`."""
        allowed = frozenset(RunState) if facts.keys() <= AFTER_THE_END else UNFINISHED
        with self._store.writing() as db:
            return runs.change(db, run_id, facts, come_from=allowed, by=by)

    def finish(
        self,
        run_id: str,
        status: ExitStatus,
        *,
        ended: float | None = None,
        cost: Decimal | None = None,
        by: str | None = None,
    ) -> bool:
        """End a run, once. False also while any of its resources is open: then it is not over."""
        facts: Facts = {"status": status} if cost is None else {"status": status, "cost": cost}
        when = self._now() if ended is None else ended
        with self._store.writing() as db:
            if leases.select(db, run_id, open_only=True):
                return False
            return runs.change(
                db,
                run_id,
                facts,
                come_from=UNFINISHED,
                by=by,
                state=RunState.ENDED,
                ended=when,
                owner="",
                guardian="",
            )

    def take(self, run_id: str, me: str, from_owner: str) -> bool:
        """Make `me` the owner of an unfinished run if `from_owner` still is; "" is nobody."""
        with self._store.writing() as db:
            return runs.change(db, run_id, {}, owner=me, come_from=UNFINISHED, by=from_owner)

    def run(self, run_id: str) -> Run:
        """Return the run with exactly this id; raises `LedgerError` if it is not noted."""
        with self._store.reading() as db:
            if db is None:
                raise LedgerError(f"there is no ledger {self.path}", runs.MISSING)
            return runs.get(db, run_id)

    def find(self, prefix: str) -> Run:
        """Return the run with this id, or the only one whose id begins so.

        Raises `NotFound` and `Ambiguous`, with what is near in the hint.
        """
        with self._store.reading() as db:
            return runs.search(db, prefix)

    def runs(self, limit: int | None = None, *, active_only: bool = False) -> list[Run]:
        """Return at most `limit` runs, the last noted first, whatever the clock said."""
        with self._store.reading() as db:
            return [] if db is None else runs.recent(db, limit, active_only=active_only)

    def orphans(self, judge: Callable[[str], Life] = life) -> list[Orphan]:
        """Return what nobody looks after. Every command asks: one query where all is well.

        That is an unfinished run whose owner and guardian, so far as it has them, are provably
        dead, and an ended run of which something was seen alive after all.
        """
        with self._store.reading() as db:
            if db is None:
                return []
            once = functools.cache(judge)
            return [
                Orphan(run=run, leases=tuple(leases.select(db, run.id, open_only=True)))
                for run in runs.unsettled(db)
                if _abandoned(run, once)
            ]

    def intend(
        self,
        run_id: str,
        resource: Resource,
        *,
        provider: str,
        by: str | None = None,
    ) -> Lease | None:
        """Note a resource before its create call; only a lease returned permits that call.

        None: the run is over, being released or no longer `by`'s, or the name was used before.
        """
        with self._store.writing() as db:
            run = runs.get(db, run_id)
            if run.state not in MAY_ACQUIRE or by not in {None, run.owner}:
                return None
            if leases.used(db, provider, resource):
                return None
            return leases.add(db, run_id, resource, provider=provider, now=self._now())

    def confirm(self, lease: Lease, resource_id: str) -> bool:
        """Note the id of what was created, or is seen alive, under the lease's name.

        False: its release has begun, or that name has another id already. The id is noted all
        the same, as open, and what it names is to be destroyed.
        """
        if not resource_id:
            raise ValueError(resource_id)
        with self._store.writing() as db:
            return leases.sighted(db, lease, resource_id, self._now())

    def releasing(self, lease: Lease) -> bool:
        """Note that its end was asked for. False: noted before, or its id is known since."""
        with self._store.writing() as db:
            return leases.step(db, lease, LeaseState.RELEASING, self._now())

    def released(self, lease: Lease) -> bool:
        """Note that it was *seen* gone: by the id in `lease`, by its name where that has none.

        False: noted before, or its id is known since, which the caller has not looked for.
        """
        with self._store.writing() as db:
            return leases.step(db, lease, LeaseState.RELEASED, self._now())

    def refused(self, lease: Lease) -> bool:
        """Note that the provider definitely did not make it: its name may be used again."""
        with self._store.writing() as db:
            return leases.step(db, lease, LeaseState.RELEASED, self._now(), leases.REFUSED)

    def leases(self, run_id: str | None = None, *, open_only: bool = False) -> list[Lease]:
        """Return the resources of a run, or of all, in the order in which they were noted."""
        with self._store.reading() as db:
            return [] if db is None else leases.select(db, run_id, open_only=open_only)


def _abandoned(run: Run, judge: Callable[[str], Life]) -> bool:
    if run.state is RunState.ENDED:
        return True
    keepers = {run.owner, run.guardian} - {""}
    return bool(keepers) and all(judge(keeper) is Life.DEAD for keeper in keepers)
