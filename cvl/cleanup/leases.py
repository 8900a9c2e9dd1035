"""Acquire and release: clean-up, said once for all providers.

A resource is noted before it is created (write-ahead), an unclear reply is cleared up by listing
for our name, and a line is closed only when the provider was seen to list it no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from decimal import ROUND_UP, Decimal

from cvl.cleanup.guardian_keeper import DONE, KEEP, TAIL, Guard, GuardianKeeper, tail
from cvl.cleanup.release import RELEASE_LIMIT, Release, shown
from cvl.cleanup.until_gone import sweep
from cvl.core.errors import (
    CvlError,
    LedgerError,
    MissingTool,
    NoCapacity,
    Rejected,
    StillOpen,
    said,
)
from cvl.core.interfaces import Owner
from cvl.core.process import me
from cvl.core.scope import Scope, limits
from cvl.core.spec import Resource
from cvl.core.units import YEAR
from cvl.ledger import Facts, Lease, LeaseState, Ledger, Run

HOUR, CENT = Decimal(3600), Decimal("0.01")
JUMP = 120.0
"""Seconds by which times may differ without a clock having been set."""


class Leases:
    """Every resource of one run that must not outlive it."""

    def __init__(
        self,
        ledger: Ledger,
        run_id: str,
        owner: Owner,
        scope: Scope,
        *,
        guard: Callable[[], Guard] | None = None,
    ) -> None:
        """`guard` starts what goes on with the clean-up should this process die."""
        self._ledger, self._run_id, self._owner, self._scope = ledger, run_id, owner, scope
        self._ends: float | None = None
        self._room = 0.0
        self._created: dict[int, float] = {}
        wanted, warn = self._drives, scope.warn
        self._keeper = GuardianKeeper(guard, limit=self._limit, wanted=wanted, warn=warn)
        self._release = Release(ledger, run_id, owner, scope)

    def until(self, seconds: float, room: float = 0.0, where: str = "") -> None:
        """Let the run last so many seconds from now; the guardian counts them too.

        `room` are the seconds after that in which to stop its job and to fetch: then all that is
        rented has to be gone. `where` is where the run goes after all: there may be nothing left
        where it was planned.
        """
        facts: Facts = {"deadline": self._scope.clock.time() + seconds, "room": room}
        if where:
            facts["where"] = where
        self.expect(seconds, room)
        self._keeper.limit(seconds, room)  # first: so it knows whatever limit is noted
        self._ledger.note(self._run_id, **facts)

    def shorten(self, seconds: float) -> None:
        """Let the run last no more than so many seconds from now.

        Of its room that stays which does not lead beyond what was the last moment before.
        """
        last = self._last()
        rest = self._room if last is None else max(last - seconds, 0.0)
        self.until(seconds, min(self._room, rest))

    def expect(self, seconds: float, room: float) -> None:
        """Count by a limit that somebody else has noted."""
        self._ends, self._room = self._scope.clock.monotonic() + seconds, room

    def expect_noted(self, run: Run) -> None:
        """Count by the limit that the ledger has of this run, unless there is one already."""
        if self._ends is None and run.deadline is not None:
            self.expect(max(run.deadline - self._scope.clock.time(), 0.0), room_of(run))

    def left(self) -> float | None:
        """Return the seconds that the run may still last, None for any number of them."""
        return None if self._ends is None else max(self._ends - self._scope.clock.monotonic(), 0.0)

    def _last(self) -> float | None:
        """Return the seconds until nothing of the run may be there, None without a limit."""
        if self._ends is None:
            return None
        return max(self._ends + self._room - self._scope.clock.monotonic(), 0.0)

    def within(self, seconds: float) -> float:
        """Return `seconds`, or those that are left before there is only time to release."""
        if (last := self._last()) is None:
            return seconds
        return min(seconds, max(last - tail(self._room, 2 * TAIL), 0.0))

    def acquire(
        self,
        resource: Resource,
        create: Callable[[], str],
        *,
        in_doubt: Callable[[], None] = lambda: None,
    ) -> Resource:
        """Note `resource`, then create it; return it with its id.

        `create` returns the id, or raises: `NoCapacity` and `Rejected` say that nothing was
        made, anything else (`AuthError`, too) leaves it open until it was listed for under its
        name, after `in_doubt`. What turns up late is taken as if the reply had come. Raises what
        `create` raised when nothing was made, `StillOpen` when nobody can say.
        """
        try:
            self.guarded()
        except CvlError as error:
            raise CvlError(f"{error}; nothing was rented", error.hint) from error
        lease = self._ledger.intend(self._run_id, resource, provider=self._owner.name, by=me())
        if lease is None:
            raise self._ended_elsewhere()
        try:
            resource_id = create()
        except (NoCapacity, Rejected, MissingTool):
            self._ledger.refused(lease)
            raise
        except Exception as doubt:  # noqa: BLE001 - whatever it was, it may have been created
            in_doubt()
            resource_id = self._release.conclude(lease, doubt)
        created = self._scope.clock.monotonic()
        self._created[lease.key] = self._release.since[lease.key] = created
        if not self._ledger.confirm(lease, resource_id):
            raise self._ended_elsewhere()
        return replace(resource, id=resource_id)

    def held(self, kind: str) -> Resource | None:
        """Return what of that kind the run has already, None for nothing that it may use."""
        live = [line for line in self._release.open(kind) if line.state is LeaseState.LIVE]
        return live[0].resource if live else None

    def ask(self, kind: str) -> None:
        """Ask once for the end of everything of that kind; `release` sees it gone.

        One request each: whoever is in a hurry shares the provider's rate limit with us.
        """
        self._release.ask(self._release.open(kind))

    def release(self, scope: Scope | None = None) -> None:
        """End everything of this run that is still open, last first, and see it gone.

        Raises `StillOpen` when the scope ends before that, and `LedgerError` when the ledger fails,
        or what it says makes no sense: then it was found by tag and is gone all the same.
        """
        scope = scope or self._scope.shielded(self._owner.listing_lag + RELEASE_LIMIT)
        try:
            with limits(scope.within(self._last())):  # no wait that is asked for goes beyond that
                self._release.until_gone(scope)
        except StillOpen:
            raise
        except Exception as error:
            sweep(self._owner, self._run_id, scope)
            raise LedgerError(
                f"{said(error)}; what {self._run_id} had rented is gone all the same",
                error.hint if isinstance(error, CvlError) else "",
            ) from error

    def guarded(self) -> None:
        """Start the guardian unless it is on duty. Raises `CvlError` if it does not start."""
        self._keeper.begin()

    def give_up(self, last_word: str = "") -> None:
        """Note who drives the run now, then hang up on the guardian, if there is one.

        After `KEEP` and `DONE` that is nobody, else the guardian. Who is to go on does so even
        where that cannot be noted.
        """
        guardian = self._keeper.end()
        owner = guardian.owner if guardian and last_word not in {DONE, KEEP} else ""
        try:
            self._ledger.take(self._run_id, owner, me())
        except LedgerError as error:
            self._scope.warn(str(error))
        if guardian:
            guardian.hang_up(last_word)

    def cost(self) -> Decimal | None:
        """Return what this run's resources have cost, None if none has a price or nobody can say.

        Of what was made here it is known by a clock that does not jump.
        """
        clock = self._scope.clock
        lines, now = self._ledger.leases(self._run_id), clock.time()
        lines = [self._by_our_clock(line, clock.monotonic(), now) for line in lines]
        return spent(lines, now, last_of(self._ledger.run(self._run_id)))

    def priced(self) -> bool:
        """Return whether anything was made that has a price."""
        lines = self._ledger.leases(self._run_id)
        return any(None not in (line.price_per_hour, line.created) for line in lines)

    def _by_our_clock(self, line: Lease, at: float, now: float) -> Lease:
        """Return a line with the times that are true by the monotonic clock, if they differ."""
        created = self._created.get(line.key)
        if created is None or line.created is None:
            return line
        lasted = at - created
        until = now if line.released is None else line.released
        if abs(until - line.created - lasted) <= JUMP:
            return line
        return replace(line, released=line.created + lasted)

    def close(self) -> None:
        """Let the guardian go; what is still open it goes on with."""
        over = not self.any_open()
        try:
            guardian = self._keeper.end(alive=not over)
        except CvlError as error:  # what has ended the run says more
            self._scope.warn(f"nobody looks after what may be left: {error}; `cvl reap` does")
            return
        if guardian and over:
            guardian.hang_up(DONE)
        elif guardian:
            with suppress(LedgerError):  # what it does then it can do without
                self._ledger.take(self._run_id, guardian.owner, me())
            guardian.hang_up()

    def _ended_elsewhere(self) -> CvlError:
        return CvlError(f"{self._run_id} was ended by another process", "`cvl ps` shows it")

    def _limit(self) -> tuple[float, float] | None:
        left = self.left()
        return None if left is None else (left, self._room)

    def _drives(self) -> bool:
        """Return whether the run is still ours to bring to its end."""
        try:
            return self._ledger.run(self._run_id).owner == me()
        except LedgerError:
            return False

    def any_open(self) -> bool:
        """Return whether anything of this run is open; where the ledger cannot say, it may be."""
        try:
            self._ledger.run(self._run_id)  # a ledger that lacks the run says nothing of it
            return bool(self._release.open())
        except LedgerError:
            return self._owner.listing_lag > 0  # 0 where nothing is ever made

    def still_open(self) -> list[str]:
        """Return what is not seen gone, one line each."""
        return [f"still open: {shown(line)}; `cvl reap` ends it" for line in self._release.open()]


def room_of(run: Run) -> float:
    """Return the seconds beyond a run's limit after which nothing of it may be there."""
    return run.room if run.room is not None and run.room <= YEAR else 0.0


def spent(lines: Iterable[Lease], now: float, last: float | None = None) -> Decimal | None:
    """Return what resources have cost up to `now`, None if none has a price or nobody can say.

    `last` is when nothing of the run may be there any more. By clocks that say that it was, much
    later, or that it was gone before it came, nothing is reckoned: they have been set meanwhile.
    """
    total: Decimal | None = None
    for line in lines:
        if line.price_per_hour is None or line.created is None:
            continue
        ends = now if line.released is None else line.released
        if ends < line.created - JUMP or (last is not None and ends > last + JUMP):
            return None
        part = cost(line.price_per_hour, ends - line.created)
        total = part if total is None else total + part
    return total


def last_of(run: Run) -> float | None:
    """Return the UTC epoch second by which nothing of a run may be there, None without a limit."""
    return None if run.deadline is None else run.deadline + room_of(run)


def cost(price: Decimal, seconds: float) -> Decimal:
    """Return what `seconds` at `price` an hour come to, in cents, rounded up."""
    return (price * Decimal(str(max(seconds, 0.0))) / HOUR).quantize(CENT, ROUND_UP)
