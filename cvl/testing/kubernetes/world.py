"""What all parts of the cluster share: objects, time, faults, settings."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cvl.testing.clock import Clock
from cvl.testing.kubernetes.access import User
from cvl.testing.kubernetes.faults import Fault, Faults, What
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, rfc3339, without_nulls
from cvl.testing.kubernetes.resources import EVENTS, Resource
from cvl.testing.kubernetes.schema import Document
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.store import Store

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node: what it has, and how it is labelled."""

    name: str = "node1"
    capacity: Mapping[str, str] = field(
        default_factory=lambda: {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "64Gi"}
    )
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one cluster is like. Times are in seconds."""

    nodes: tuple[NodeSpec, ...] = (NodeSpec(),)
    heartbeat_grace: float = 4.0
    """How long a node may be silent before it is NotReady; 40 in reality."""
    pull_backoff: float = 10.0
    """The first wait after an image could not be pulled; it doubles each time, up to 300."""
    hang_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWish:
    """What of a container's log is wanted. `since` is UTC epoch nanoseconds."""

    container: str
    follow: bool = False
    timestamps: bool = False
    since: int | None = None
    tail: int | None = None
    limit: int | None = None


class World:
    """The cluster's state and everything that acts on it."""

    def __init__(self, settings: Settings, clock: Clock, document: Document | None) -> None:
        self.settings, self.clock, self.document = settings, clock, document
        self.store = Store(clock.time)
        self.tokens: dict[str, User] = {}
        self.faults = Faults(clock)
        self.violations: list[str] = []
        self.kubelet: Kubelet | None = None
        """What runs pods, if anything does."""
        self.silent: set[str] = set()
        """Names of nodes that say nothing."""
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str, str], str] = {}
        self.store.on_write = self._check

    def now(self) -> str:
        return rfc3339(self.clock.time())

    def complain(self, *complaints: str) -> None:
        """Note what must not be."""
        with self._lock:
            self.violations.extend(complaints)

    def strikes(self, operation: str, what: What) -> Fault | None:
        """Return the fault of that kind which is armed for an operation."""
        return self.faults.take(operation, {what})

    def change(self, resource: Resource, obj: Obj, change: Callable[[Obj], object]) -> Obj:
        """Return the object as a change leaves it; as it was, where it is gone by now."""
        about = meta(obj)
        with suppress(ApiError):
            where = (about.get("namespace", ""), about["name"])
            return self.store.update(resource, *where, change, uid=about["uid"])
        return obj

    def event(
        self,
        resource: Resource,
        obj: Obj,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        source: str = "kubelet",
    ) -> None:
        """Note an event about an object; the same again is counted, not repeated."""
        about = meta(obj)
        place = about.get("namespace") or "default"
        key = (str(about.get("uid", "")), reason, message)
        name = self._told.setdefault(key, f"{about['name']}.{secrets.token_hex(8)}")

        def again(event: Obj) -> None:
            event["count"] += 1
            event["lastTimestamp"] = self.now()

        with suppress(ApiError):  # the namespace went while we spoke
            if self.store.find(EVENTS, place, name):
                self.store.update(EVENTS, place, name, again)
                return
            made = self._event(resource, obj, reason, message, source)
            about = {"name": name, "namespace": place}
            kind = "Warning" if warning else "Normal"
            self.store.create(EVENTS, {**made, "metadata": about, "type": kind})

    def _event(self, resource: Resource, obj: Obj, reason: str, message: str, source: str) -> Obj:
        reference: Obj = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            **{key: meta(obj)[key] for key in ("name", "namespace", "uid") if key in meta(obj)},
        }
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "involvedObject": reference,
            "reason": reason,
            "message": message,
            "source": {"component": source},
            "firstTimestamp": self.now(),
            "lastTimestamp": self.now(),
            "count": 1,
            "reportingComponent": source,
            "reportingInstance": at(obj, "spec", "nodeName") or "",
        }

    def _check(self, resource: Resource, obj: Obj) -> None:
        """Hold every object that is stored against the document: it is what replies show."""
        if self.document is None:
            return
        found = self.document.object(resource.definition, without_nulls(obj))
        self.complain(*(f"{resource.full} {name_of(obj)}: {each}" for each in found.all))
