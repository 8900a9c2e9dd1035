"""Destroys, then looks until the provider lists it no more: the same for whoever ends something.

What is to go the ledger knows (`cvl.cleanup.release`), or the provider's list alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from cvl.core.errors import CvlError, StillOpen, said
from cvl.core.interfaces import Owner
from cvl.core.scope import Cancelled, Scope, limits, nap
from cvl.core.spec import Resource

T = TypeVar("T")

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two looks; the last one repeats."""
UNSEEN = 3
"""Successful listings in a row that must lack a resource before it is gone."""


def until_gone(look: Callable[[int], Sequence[str]], scope: Scope) -> None:
    """Look until nothing is left. Raises `StillOpen` when the scope ends before.

    `look(attempt)`, from 0 on, asks for the end of what it knows, looks, and returns what may
    still be there, for a person.
    """
    remaining: Sequence[str] = ()
    with suppress(Cancelled):
        for attempt in scope.attempts(PAUSES):
            if not (remaining := look(attempt.number)):
                return
    hint = "it may still cost money; `cvl reap` ends it"
    raise StillOpen(f"not seen gone: {', '.join(remaining)}", hint)


def end(owner: Owner, resources: Iterable[Resource], scope: Scope) -> None:
    """Destroy resources and see them gone. Raises `StillOpen` when the scope ends before that."""
    with limits(scope):
        until_gone(Listed(owner, scope, resources).look, scope)


def sweep(owner: Owner, run_id: str, scope: Scope) -> None:
    """End what carries a run's tag: without the ledger, and as thoroughly as with it.

    Raises `StillOpen` when the scope ends before that.
    """
    with limits(scope.within(0.0)):  # however long the provider wants to be left alone
        until_gone(Listed(owner, scope, (), run_id).look, scope)


class Listed:
    """What is to go by the provider's list alone: some resources, or all with the tag of a run."""

    def __init__(
        self, owner: Owner, scope: Scope, meant: Iterable[Resource], run_id: str = ""
    ) -> None:
        """A tag may be listed late: it is looked for until the listing lag has passed."""
        self._owner, self._scope, self._run_id = owner, scope, run_id
        self._remaining = {key(each): each for each in meant}
        self._unseen = dict.fromkeys(self._remaining, 0)
        self._looks = 0
        self._lists_all_from = scope.clock.monotonic() + owner.listing_lag

    def look(self, _attempt: int) -> list[str]:
        """Ask and look once; return what may still be there."""
        if not self._remaining and not self._run_id:
            return []
        for each in self._remaining.values():
            self._ask(each)
        listed = answered(self._scope, lambda: [each for each in self._owner.owned() if each.alive])
        self._looks = 0 if listed is None else self._looks + 1
        if listed is not None:
            self._judge(listed)
        return [*map(named, self._remaining.values())] or (
            [] if self._is_sure() else [self._run_id]
        )

    def _ask(self, each: Resource) -> None:
        if not each.unclear:
            answered(self._scope, partial(self._owner.destroy, each))

    def _judge(self, listed: Sequence[Resource]) -> None:
        for each in listed:
            if self._is_tagged(each) and key(each) not in self._remaining:
                self._remaining[key(each)] = each
                self._ask(each)
        for name, each in list(self._remaining.items()):
            there = any(is_or_may_be(other, each) for other in listed)
            self._unseen[name] = 0 if there else self._unseen.get(name, 0) + 1
            if self._unseen[name] >= UNSEEN:
                del self._remaining[name]

    def _is_tagged(self, each: Resource) -> bool:
        """Return whether something carries the tag, or may: an entry that cannot be read."""
        return bool(self._run_id) and (each.unclear or each.run_id == self._run_id)

    def _is_sure(self) -> bool:
        """Return whether a tag that is not listed would be, if it were there."""
        due = self._scope.clock.monotonic() >= self._lists_all_from
        return (self._looks >= UNSEEN and due) or not self._run_id


def answered(scope: Scope, call: Callable[[], T]) -> T | None:
    """Return what `call` returns, None when the provider gives no answer that makes sense."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever it was, the rest is to be ended too
        scope.tell("waiting", said(error))
        nap(0.0, error.wait if isinstance(error, CvlError) else 0.0, scope.clock)
        return None


def key(resource: Resource) -> tuple[str, str]:
    """Return what tells a resource from its owner's others."""
    return resource.kind, resource.id or resource.name


def is_or_may_be(listed: Resource, meant: Resource) -> bool:
    """Return whether what is listed is what was meant, or cannot be told from it."""
    if listed.kind != meant.kind:
        return False
    if listed.id and meant.id:
        return listed.id == meant.id
    return listed.unclear or listed.name == meant.name


def named(resource: Resource) -> str:
    """Return what is listed for a person."""
    unread = "an entry that cannot be read" if resource.unclear else resource.name
    return f"{resource.kind} {unread} {resource.id}".rstrip()
