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
UNSEEN = 2
"""Successful listings in a row that must lack a resource before it is gone."""
RELEASE_LIMIT = 120.0
"""Seconds that a release is tried in the foreground; then the guardian, or `reap`, goes on."""

HOUR, CENT = Decimal(3600), Decimal("0.01")

PASSING = (ProviderError, Unreachable, AuthError)
"""What a provider may answer today and not tomorrow: no reason to forget anything."""


class Guard(Protocol):
    """The process that outlives us, as seen from here."""

    def done(self) -> None:
        """Nothing is open any more."""
        ...

    def follow(self) -> None:
        """Go on with the run, to its end."""
        ...

    def keep(self) -> None:
        """Let everything be until its deadline."""
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
        self._unseen: dict[int, int] = {}
        self._since: dict[int, float] = {}

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
        if resource.deadline is not None:
            self._ledger.note(self._run_id, deadline=resource.deadline)
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
        if not self._ledger.confirm(lease, found):
            raise CvlError(f"{self._run_id} was ended by another process", "`cvl ps` shows it")
        return replace(resource, id=found)

    def release(self, scope: Scope | None = None, kind: str = "") -> None:
        """End everything of this run that is still open, last first, and see it gone.

        Only that `kind`, if one is given. Raises `StillOpen` when the scope ends before that.
        """
        scope = scope or self._scope.shielded(RELEASE_LIMIT)
        attempt = 0
        while lines := self._open(kind):
            self._asked(lines)
            self._look(lines)
            if not (lines := self._open(kind)):
                return
            try:
                scope.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            except (DeadlineExceeded, Cancelled) as error:
                raise StillOpen(
                    f"not seen gone: {', '.join(map(shown, lines))}",
                    "it may still cost money; `cvl reap` ends it",
                ) from error
            attempt += 1

    def guarded(self) -> None:
        """Start the guardian unless it is on duty. Raises `CvlError` if it does not start."""
        if self._guard and self._guardian is None:
            self._guardian = self._guard()

    def hand_over(self) -> None:
        """Leave the run to the guardian, which follows it to its end."""
        if self._guardian:
            self._guardian.follow()
            self._guardian = None

    def keep(self) -> None:
        """Let everything stay until its deadline; the guardian sees to that."""
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
        if self._guardian and self._open(""):
            self._ledger.take(self._run_id, "", me())
            self.hand_over()
        elif self._guardian:
            self._guardian.done()
            self._guardian = None

    def any_open(self) -> bool:
        """Return whether anything of this run is open."""
        return bool(self._open(""))

    def still_open(self) -> list[str]:
        """Return what is not seen gone, one line each."""
        return [f"still open: {shown(line)}; `cvl reap` ends it" for line in self._open("")]

    def _open(self, kind: str) -> list[Lease]:
        found = self._ledger.leases(self._run_id, open_only=True)
        return [line for line in reversed(found) if not kind or line.kind == kind]

    def _asked(self, lines: Iterable[Lease]) -> None:
        """Ask for the end of each; a failure is as good as no answer."""
        for line in lines:
            self._ledger.releasing(line)
            if line.id:
                self._try(partial(self._owner.destroy, line.resource))

    def _look(self, lines: Iterable[Lease]) -> None:
        """Close the lines of what is not there any more; destroy what carries their names."""
        listed = self._listed({line.kind for line in lines})
        if listed is None:
            return
        for line in lines:
            alive = [each for each in listed if each.alive and same(each, line)]
            for each in alive:
                if each.id != line.id:
                    self._ledger.confirm(line, each.id)
                    self._try(partial(self._owner.destroy, each))
            self._unseen[line.key] = 0 if alive else self._unseen.get(line.key, 0) + 1
            ended = any(not each.alive and each.id == line.id for each in listed)
            if not alive and (ended or self._unseen[line.key] >= UNSEEN) and self._due(line):
                self._ledger.released(line)

    def _listed(self, kinds: set[str]) -> list[Resource] | None:
        """Return what the provider lists of these kinds, None if it does not answer."""
        owned = self._owner.owned
        return self._try(lambda: [each for kind in sorted(kinds) for each in owned(kind)])

    def _due(self, line: Lease) -> bool:
        """Return whether something that was created before our first look would be listed by now.

        Counted from that look, on a clock that does not jump: not from the ledger's time.
        """
        now = self._scope.clock.monotonic()
        return bool(line.id) or now - self._since.setdefault(line.key, now) > self._owner.settle

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
    """Return whether a listed resource is the one of this line."""
    return resource.kind == line.kind and (
        resource.id == line.id if line.id else resource.name == line.name
    )


def shown(line: Lease) -> str:
    """Return a line of the ledger for a person: what it is and what it costs."""
    price = f" at ${line.price_per_hour}/h" if line.price_per_hour else ""
    unsure = " (if it exists)" if line.state is LeaseState.INTENDED else ""
    return f"{line.kind} {line.name}{' ' + line.id if line.id else ''}{price}{unsure}"
