"""Acquire, release, reap: clean-up, said once for all providers.

A resource is noted before it is created (write-ahead), an unclear reply is settled by listing
for our name, and a line is closed only when the provider was seen to list it no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import ROUND_UP, Decimal
from functools import partial
from typing import Protocol, TypeVar

from cvl.errors import (
    AuthError,
    CvlError,
    LedgerError,
    MissingTool,
    NoCapacity,
    ProviderError,
    Rejected,
    StillOpen,
    Unreachable,
)
from cvl.ledger import Lease, LeaseState, Ledger
from cvl.process import me
from cvl.provider import Owner
from cvl.scope import Cancelled, DeadlineExceeded, Scope
from cvl.spec import Resource

T = TypeVar("T")

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two looks; the last one repeats."""
UNSEEN = 3
"""Successful listings in a row that must lack a resource before it is gone."""
RELEASE_LIMIT = 120.0
"""Seconds, beside the settling time, that a release is tried in the foreground; then the
guardian, or `reap`, goes on."""

HOUR, CENT = Decimal(3600), Decimal("0.01")

PASSING = (ProviderError, Unreachable, AuthError)
"""What a provider may answer today and not tomorrow: no reason to forget anything."""


class Guard(Protocol):
    """The process that outlives us, as seen from here."""

    owner: str
    """What the ledger knows it by."""

    def alive(self) -> bool:
        """Return whether it is on duty."""
        ...

    def limit(self, seconds: float) -> None:
        """Bring the run to its end so many seconds from now, whoever drives it."""
        ...

    def done(self) -> None:
        """Nothing is open any more."""
        ...

    def follow(self) -> None:
        """Go on with the run, to its end."""
        ...

    def keep(self) -> None:
        """Let everything be until the limit."""
        ...

    def hang_up(self) -> None:
        """Stop the job, and bring the run to its end."""
        ...


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
        self._guard = guard
        self._guardian: Guard | None = None
        self._ends: float | None = None
        self._seen: set[int] = set()
        self._unseen: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def until(self, seconds: float) -> None:
        """Let the run last so many seconds from now; the guardian counts them too."""
        self._ends = self._scope.clock.monotonic() + seconds
        self._ledger.note(self._run_id, deadline=self._scope.clock.time() + seconds)
        if self._guardian:
            self._guardian.limit(seconds)

    def left(self) -> float | None:
        """Return the seconds that the run may still last, None for any number of them."""
        return None if self._ends is None else max(self._ends - self._scope.clock.monotonic(), 0.0)

    def acquire(
        self,
        resource: Resource,
        create: Callable[[], str],
        *,
        in_doubt: Callable[[], None] = lambda: None,
    ) -> Resource:
        """Note `resource`, then create it; return it with its id.

        `create` returns the id, or raises: `NoCapacity` and `Rejected` say that nothing was
        made, anything else leaves it open and is settled by listing for the name, after
        `in_doubt`. What turns up late is taken as if the reply had come. Raises what `create`
        raised when nothing was made, `StillOpen` when nobody can say.
        """
        self.guarded()
        lease = self._ledger.intend(self._run_id, resource, provider=self._owner.name, by=me())
        if lease is None:
            raise CvlError(f"{self._run_id} was ended by another process", "`cvl ps` shows it")
        try:
            found = create()
        except (NoCapacity, Rejected, AuthError, MissingTool):
            self._ledger.released(lease)
            raise
        except Exception as doubt:  # noqa: BLE001 - whatever it was, it may have been created
            in_doubt()
            found = self._settled(lease, doubt)
        self._since[lease.key] = self._scope.clock.monotonic()
        if not self._ledger.confirm(lease, found):
            raise CvlError(f"{self._run_id} was ended by another process", "`cvl ps` shows it")
        return replace(resource, id=found)

    def ask(self, kind: str) -> None:
        """Ask once for the end of everything of that kind; `release` sees it gone.

        One request each: whoever is in a hurry shares the provider's rate limit with us.
        """
        self._asked(self._open(kind))

    def release(self, scope: Scope | None = None) -> None:
        """End everything of this run that is still open, last first, and see it gone.

        Raises `StillOpen` when the scope ends before that,
        and `LedgerError` when the ledger fails: then it was found by tag and is gone all the same.
        """
        scope = scope or self._scope.shielded(self._owner.settle + RELEASE_LIMIT)
        try:
            self._release(scope)
        except LedgerError as error:
            self._sweep(scope)
            raise LedgerError(
                f"{error}; what {self._run_id} had rented is gone all the same", error.hint
            ) from error

    def guarded(self) -> None:
        """Start the guardian unless it is on duty. Raises `CvlError` if it does not start."""
        if self._guard and not (self._guardian and self._guardian.alive()):
            self._guardian = self._guard()
            if (left := self.left()) is not None:
                self._guardian.limit(left)

    def hand_over(self, *, stop: bool = False) -> None:
        """Leave the run to the guardian: it brings it to its end, or to a `stop` first."""
        if not self._guardian:
            self._ledger.take(self._run_id, "", me())
            return
        self.guarded()
        self._ledger.take(self._run_id, self._guardian.owner, me())
        if stop:
            self._guardian.hang_up()
        else:
            self._guardian.follow()
        self._guardian = None

    def keep(self) -> None:
        """Let everything stay until its deadline; the guardian sees to that."""
        self._ledger.take(self._run_id, "", me())
        if self._guardian:
            self._guardian.keep()
            self._guardian = None

    def cost(self) -> Decimal | None:
        """Return what this run's resources have cost, None if none has a price."""
        now = self._scope.clock.time()
        lines = self._ledger.leases(self._run_id)
        priced = [
            (line.price_per_hour, (line.released or now) - line.created)
            for line in lines
            if line.price_per_hour is not None and line.created is not None
        ]
        return (
            sum((cost(price, seconds) for price, seconds in priced), Decimal(0)) if priced else None
        )

    def close(self) -> None:
        """Let the guardian go; what is still open it goes on with."""
        if not self._guardian:
            return
        try:
            if self._open():
                self.hand_over(stop=True)
            else:
                self._guardian.done()
        except LedgerError:
            self._guardian.hang_up()
        self._guardian = None

    def any_open(self) -> bool:
        """Return whether anything of this run is open."""
        return bool(self._open())

    def still_open(self) -> list[str]:
        """Return what is not seen gone, one line each."""
        return [f"still open: {shown(line)}; `cvl reap` ends it" for line in self._open()]

    def _open(self, kind: str = "") -> list[Lease]:
        found = self._ledger.leases(self._run_id, open_only=True)
        return [line for line in reversed(found) if not kind or line.kind == kind]

    def _release(self, scope: Scope) -> None:
        attempt = 0
        while lines := self._open():
            self._asked(lines)
            self._look(lines)
            if lines := self._open():
                self._pause(scope, attempt, map(shown, lines))
            attempt += 1

    def _sweep(self, scope: Scope) -> None:
        """End what carries our run's tag: without the ledger, and as thoroughly as with it."""
        clock = self._scope.clock
        settled = clock.monotonic() + self._owner.settle
        attempt = unseen = 0
        while unseen < UNSEEN or clock.monotonic() < settled:
            listed = self._listed({""})
            alive = [e for e in listed or () if e.alive and e.run_id == self._run_id]
            for each in alive:
                self._try(partial(self._owner.destroy, each))
            unseen = 0 if alive or listed is None else unseen + 1
            self._pause(scope, attempt, (f"{each.kind} {each.name}" for each in alive))
            attempt += 1

    def _pause(self, scope: Scope, attempt: int, left: Iterable[str]) -> None:
        """Wait for the next look. Raises `StillOpen`, with what is `left`, when time is up."""
        try:
            scope.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        except (DeadlineExceeded, Cancelled) as error:
            raise StillOpen(
                f"not seen gone: {', '.join(left) or self._run_id}",
                "it may still cost money; `cvl reap` ends it",
            ) from error

    def _asked(self, lines: Iterable[Lease]) -> None:
        """Ask for the end of each; a failure is as good as no answer."""
        for line in lines:
            if line.state is not LeaseState.RELEASING:
                self._ledger.releasing(line)
            # what costs nothing is told again only while it is listed: requests are few
            again = line.price_per_hour is not None or not self._unseen.get(line.key)
            if line.id and again:
                self._try(partial(self._owner.destroy, line.resource))

    def _look(self, lines: Iterable[Lease]) -> None:
        """Close the lines of what is not there any more; destroy what carries their names."""
        listed = self._listed({line.kind for line in lines})
        if listed is None:
            return
        for line in lines:
            shown_as = [each for each in listed if same(each, line)]
            alive = [each for each in shown_as if each.alive]
            for each in alive:
                if each.id != line.id:
                    self._ledger.confirm(line, each.id)
                    self._try(partial(self._owner.destroy, each))
            if any(each.id == line.id for each in shown_as):
                self._seen.add(line.key)
            self._unseen[line.key] = 0 if alive else self._unseen.get(line.key, 0) + 1
            over = any(not each.alive and each.id == line.id for each in shown_as)
            missed = self._unseen[line.key] >= UNSEEN and self._due(line)
            if not alive and (over or missed):
                self._ledger.released(line)

    def _listed(self, kinds: set[str]) -> list[Resource] | None:
        """Return what the provider lists of these kinds, None if it does not answer."""
        owned = self._owner.owned
        return self._try(lambda: [each for kind in sorted(kinds) for each in owned(kind)])

    def _due(self, line: Lease) -> bool:
        """Return whether what is not listed would be, if it were there.

        That is, once it was listed before, or the settling time has passed: since its id became
        known; where it has none, since our first look, on a clock that does not jump.
        """
        clock = self._scope.clock
        age = clock.time() - line.created if line.id and line.created is not None else 0.0
        since = self._since.setdefault(line.key, clock.monotonic() - max(age, 0.0))
        return line.key in self._seen or clock.monotonic() - since > self._owner.settle

    def _settled(self, lease: Lease, doubt: Exception) -> str:
        """List for the name until the settling time has passed. Raises `doubt` if it is not."""
        scope = self._scope.shielded(self._owner.settle + RELEASE_LIMIT)
        seen_none = 0
        while not (self._due(lease) and seen_none >= UNSEEN):
            listed = self._listed({lease.kind})
            for each in listed or ():
                if each.alive and same(each, lease):
                    return each.id
            seen_none = 0 if listed is None else seen_none + 1
            try:
                scope.sleep(PAUSES[2])
            except DeadlineExceeded as error:
                raise StillOpen(
                    f"nobody can say whether {shown(lease)} exists: {doubt}",
                    "it may cost money; `cvl reap` looks again",
                ) from error
        self._ledger.released(lease)
        raise doubt

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except PASSING as error:
            self._scope.tell("waiting", str(error))
            return None


def cost(price: Decimal, seconds: float) -> Decimal:
    """Return what `seconds` at `price` an hour come to, in cents, rounded up."""
    return (price * Decimal(str(max(seconds, 0.0))) / HOUR).quantize(CENT, ROUND_UP)


def same(resource: Resource, line: Lease) -> bool:
    """Return whether a listed resource is, or bears the name of, the one of this line."""
    return resource.kind == line.kind and (
        resource.name == line.name or bool(line.id and resource.id == line.id)
    )


def shown(line: Lease) -> str:
    """Return a line of the ledger for a person: what it is and what it costs."""
    price = f" at ${line.price_per_hour}/h" if line.price_per_hour else ""
    unsure = " (if it exists)" if line.state is LeaseState.INTENDED else ""
    return f"{line.kind} {line.name}{' ' + line.id if line.id else ''}{price}{unsure}"
