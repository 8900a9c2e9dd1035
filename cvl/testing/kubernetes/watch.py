"""Watches: what happened since a version, as it happens, until somebody has enough."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from cvl.testing.clock import Clock
from cvl.testing.kubernetes.objects import Obj, meta
from cvl.testing.kubernetes.requests import Wire
from cvl.testing.kubernetes.resources import Resource
from cvl.testing.kubernetes.statuses import ApiError, expired
from cvl.testing.kubernetes.store import Change, Event, Store

LOOK = 0.5
"""Seconds between two looks at whether the client is still there."""

BOOKMARKS = 5.0
"""Seconds between two bookmarks. The real server's are a minute apart."""

TIMEOUT = (1800.0, 3600.0)
"""Seconds that a watch lasts which says nothing of it."""

INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client watches. `start` None: all there is, and then what happens."""

    resource: Resource
    namespace: str
    matches: Callable[[Obj], bool]
    start: int | None = None
    seconds: float | None = None
    bookmarks: bool = False
    initial: bool = False
    """Whether a bookmark tells the end of what was there already (`sendInitialEvents`)."""
    shown: Callable[[Obj], Obj] = lambda obj: obj


class Watch:
    """One watch."""

    def __init__(self, store: Store, clock: Clock, wanted: Wanted) -> None:
        self._store, self._clock, self._wanted = store, clock, wanted

    def run(self, wire: Wire) -> None:
        """Send events until the time is over or the client has gone."""
        asked = self._wanted.seconds
        seconds = random.uniform(*TIMEOUT) if asked is None else asked
        ends = self._clock.monotonic() + seconds
        marked = self._clock.monotonic()
        try:
            version = self._begin(wire)
            while self._clock.monotonic() < ends and not wire.gone():
                version = self._news(wire, version)
                if self._wanted.bookmarks and self._clock.monotonic() - marked > BOOKMARKS:
                    marked = self._clock.monotonic()
                    self._bookmark(wire, version)
        except ApiError as error:
            self._tell(wire, "ERROR", error.status())

    def _begin(self, wire: Wire) -> int:
        wanted = self._wanted
        if wanted.start is not None:
            return wanted.start
        with self._store.lock:
            found = self._store.listed(wanted.resource, wanted.namespace)
            version = self._store.version
        for obj in filter(wanted.matches, found):
            self._tell(wire, Change.ADDED, wanted.shown(obj))
        if wanted.initial:
            self._bookmark(wire, version, {INITIAL_END: "true"})
        return version

    def _news(self, wire: Wire, version: int) -> int:
        """Send what happened since `version`, after a wait if that is nothing."""
        with self._store.lock:
            if self._store.version <= version:
                self._store.changed.wait(LOOK)
            if version < self._store.oldest:
                raise expired(version, self._store.oldest)
            events, latest = self._store.after(version, self._wanted.resource)
        for event in events:
            if change := self._change(event):
                obj = {**event.obj}
                self._tell(wire, change, self._wanted.shown(obj))
        return max(version, latest)

    def _change(self, event: Event) -> str:
        """Return what an event is to this watch: what it does not match any more is deleted."""
        wanted = self._wanted
        if wanted.namespace and meta(event.obj).get("namespace") != wanted.namespace:
            return ""
        now = event.change is not Change.DELETED and wanted.matches(event.obj)
        before = event.old is not None and wanted.matches(event.old)
        if now:
            return Change.MODIFIED if before else Change.ADDED
        return Change.DELETED if before else ""

    def _bookmark(self, wire: Wire, version: int, notes: dict[str, str] | None = None) -> None:
        about = {"resourceVersion": str(version), **({"annotations": notes} if notes else {})}
        resource = self._wanted.resource
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": about}
        self._tell(wire, "BOOKMARK", obj)

    def _tell(self, wire: Wire, change: str, obj: Obj) -> None:
        event = {"type": str(change), "object": obj}
        wire.send(json.dumps(event, separators=(",", ":")).encode() + b"\n")
