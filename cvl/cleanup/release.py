"""Sees everything gone that the ledger has of one run, and concludes what nobody can say.

A line of the ledger is closed only when the provider was seen to list the thing no more, as
often and as late as it takes to be sure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from cvl.cleanup.until_gone import UNSEEN, answered, named, until_gone
from cvl.core import identity
from cvl.core.errors import AuthError, Elsewhere, StillOpen, said
from cvl.core.interfaces import Owner
from cvl.core.scope import Scope
from cvl.core.spec import Resource
from cvl.ledger import EARLY, Lease, LeaseState, Ledger

LOOK = 1.0
"""Seconds between two looks for what may have been made."""
RELEASE_LIMIT = 120.0
"""Seconds, beside the listing lag, that a release is tried in the foreground; then the
guardian, or `reap`, goes on."""
BARRED_LIMIT = 10.0
"""The same where the provider does not accept our key: it will hardly do so in this process."""


class Release:
    """What of one run is open, and the way to its end."""

    def __init__(self, ledger: Ledger, run_id: str, owner: Owner, scope: Scope) -> None:
        """`scope` has the clock, and hears what is waited for."""
        self._ledger, self._run_id, self._owner, self._scope = ledger, run_id, owner, scope
        self._seen: set[int] = set()
        self._unseen: dict[int, int] = {}
        self.since: dict[int, float] = {}
        """When each line was created here, else first looked for: lists may lag behind that."""
        self._was_used = False
        self._strays: list[Resource] | None = None
        self._strangers: dict[int, Elsewhere] = {}
        self._machine_seen = False

    def open(self, kind: str = "") -> list[Lease]:
        """Return the lines that are open, the last first."""
        if self.since:  # something was made, and noted: without its ledger nobody can say
            self._ledger.run(self._run_id)
        lines = self._ledger.leases(self._run_id, open_only=True)
        return [line for line in reversed(lines) if not kind or line.kind == kind]

    def until_gone(self, scope: Scope) -> None:
        """Ask and look until nothing is open. Raises `StillOpen` when the scope ends before.

        What carries our tag and has no line of ours ends too: a line may be damaged.
        """
        run = self._ledger.run(self._run_id)
        self._was_used = run.state not in EARLY  # else no job has run on what it holds
        until_gone(self._attempt, scope)

    def conclude(self, lease: Lease, doubt: Exception) -> str:
        """List for the name until the listing lag has passed. Raises `doubt` if it is not.

        One that is over by now was made all the same: a short job may have done its work.
        """
        barred = isinstance(doubt.__cause__ or doubt, AuthError)
        more = BARRED_LIMIT if barred else RELEASE_LIMIT
        scope = self._scope.shielded(self._owner.listing_lag + more)
        self._scope.tell("waiting", f"{said(doubt)}; looking for {shown(lease)}")
        seen_none = 0
        for _ in scope.attempts((LOOK,)):
            if self._due(lease) and seen_none >= UNSEEN:
                if why := self._doubt():
                    raise nobody_knows(lease, why) from why
                self._ledger.released(lease)
                raise doubt
            listed = self._listed({lease.kind})
            for each in listed or ():
                if same(each, lease):
                    return each.id
            seen_none = 0 if listed is None else seen_none + 1
        raise nobody_knows(lease, doubt)

    def ask(self, lines: Iterable[Lease]) -> None:
        """Ask for the end of each; a failure is as good as no answer."""
        for line in lines:
            if line.state is not LeaseState.RELEASING:
                self._ledger.releasing(line)
            # what costs nothing is told again only while it is listed: requests are few
            again = line.price_per_hour is not None or self._unseen.get(line.key, 0) == 0
            if line.id and again:
                answered(self._scope, partial(self._owner.destroy, line.resource))

    def _attempt(self, attempt: int) -> list[str]:
        """Ask and look once; return what may still be there."""
        lines = self.open()
        if not lines and not self._strays:
            return []
        # a stranger is looked at first: what it lists proves that it is who it was
        if attempt or not isinstance(self._doubt(), Elsewhere):
            self.ask(lines if attempt else urgent(lines))
        self._look(lines)
        remaining = self.open()
        self._refuse_strangers(remaining)
        return [*map(shown, remaining), *map(named, self._strays or ())]

    def _look(self, lines: Sequence[Lease]) -> None:
        """Close the lines of what is not there any more; destroy what carries their names.

        The first look is for everything that carries our tag, if we may see all of it.
        """
        if self._strays != [] and (everything := self._listed({""})) is not None:
            listed: list[Resource] | None = everything
            self._strays = [each for each in everything if self._is_stray(each, lines)]
            for each in self._strays:
                answered(self._scope, partial(self._owner.destroy, each))
        else:
            listed = self._listed({line.kind for line in lines})
        if listed is None:
            return
        for line in lines:
            self._judge(line, [each for each in listed if same(each, line)], listed)

    def _judge(self, line: Lease, matches: Sequence[Resource], listed: Sequence[Resource]) -> None:
        """Close a line if what it names was seen to be over, or is missing for good."""
        alive = [each for each in matches if each.alive]
        for each in alive:
            if each.id and each.id != line.id:
                self._ledger.confirm(line, each.id)
                answered(self._scope, partial(self._owner.destroy, each))
        if any(each.id == line.id for each in matches):
            self._seen.add(line.key)
            self._machine_seen = self._machine_seen or line.price_per_hour is not None
        missing = not alive and not any(may_be(each, line) for each in listed)
        self._unseen[line.key] = self._unseen.get(line.key, 0) + 1 if missing else 0
        over = any(not each.alive and each.id == line.id for each in matches)
        missed = self._unseen[line.key] >= UNSEEN and self._due(line)
        if not alive and (over or (missed and self._is_here(line))):
            self._ledger.released(line)

    def _is_here(self, line: Lease) -> bool:
        """Return whether it is known that we ask whom the run is on.

        Where the thing itself was seen, or the run's machine, it is: a bucket may be seen from
        many accounts.
        """
        if line.key in self._seen or self._machine_seen:
            return True
        doubt = self._doubt()
        if isinstance(doubt, Elsewhere):
            self._strangers[line.key] = doubt
        return doubt is None

    def _doubt(self) -> Exception | None:
        """Return why we may ask somebody else than whom the run is on, None if we do not."""
        known = identity.noted(self._ledger.run(self._run_id).handle)
        try:
            identity.confirm(self._owner, known)
        except Exception as error:  # noqa: BLE001 - it cannot be known now; it is asked again
            if not isinstance(error, Elsewhere):
                self._scope.tell("waiting", said(error))
            return error
        return None

    def _refuse_strangers(self, lines: Sequence[Lease]) -> None:
        """Raise `StillOpen` where all that is left is what somebody else may have: no use to wait.

        What is seen here under our tag has ended by then.
        """
        if lines and not self._strays and all(line.key in self._strangers for line in lines):
            error = self._strangers[lines[0].key]
            text = ", ".join(map(shown, lines))
            raise StillOpen(f"not seen gone: {text}; {error}", error.hint) from error

    def _is_stray(self, each: Resource, lines: Iterable[Lease]) -> bool:
        """Return whether something is ours, though the ledger lacks its line: that is damaged."""
        ours = each.alive and each.run_id == self._run_id
        return ours and not any(same(each, line) for line in lines)

    def _listed(self, kinds: set[str]) -> list[Resource] | None:
        """Return what the provider lists of these kinds, None if it does not answer."""
        owned = self._owner.owned
        return answered(
            self._scope, lambda: [each for kind in sorted(kinds) for each in owned(kind)]
        )

    def _due(self, line: Lease) -> bool:
        """Return whether what is not listed would be, if it were there.

        That is, once it was listed before, or a job has run on it, or the listing lag has
        passed: since we made it, else since our first look. The ledger tells when it was made,
        but by a clock that may jump.
        """
        now = self._scope.clock.monotonic()
        waited = now - self.since.setdefault(line.key, now)
        proven = line.key in self._seen or (self._was_used and bool(line.id))
        return proven or waited > self._owner.listing_lag


def nobody_knows(line: Lease, why: Exception) -> StillOpen:
    """Return what to raise where a thing may exist."""
    text = f"nobody can say whether {shown(line)} exists: {why}"
    return StillOpen(text, "it may cost money; `cvl reap` looks again")


def urgent(lines: Iterable[Lease]) -> list[Lease]:
    """Return what to end before the first look: what costs money.

    The rest is looked at first, for what was seen once is known to be gone much sooner. While a
    create call is in doubt that waits for nothing: it may need the rest to succeed.
    """
    every = list(lines)
    if any(line.state is LeaseState.INTENDED for line in every):
        return every
    return [line for line in every if line.price_per_hour is not None]


def same(resource: Resource, line: Lease) -> bool:
    """Return whether a listed resource is, or bears the name of, the one of this line."""
    return resource.kind == line.kind and (
        resource.name == line.name or bool(line.id and resource.id == line.id)
    )


def may_be(resource: Resource, line: Lease) -> bool:
    """Return whether an entry that cannot be read may be the resource of this line."""
    known_apart = resource.id and line.id and resource.id != line.id
    return resource.unclear and resource.kind == line.kind and not known_apart


def shown(line: Lease) -> str:
    """Return a line of the ledger for a person: what it is and what it costs."""
    price = f" at ${line.price_per_hour}/h" if line.price_per_hour is not None else ""
    unsure = " (if it exists)" if line.state is LeaseState.INTENDED else ""
    return f"{line.kind} {line.name}{' ' + line.id if line.id else ''}{price}{unsure}"
