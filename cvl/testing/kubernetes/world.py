"""What all parts of the cluster share: objects, time, faults, settings; and what nodes can do."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cvl.testing.clock import Clock
from cvl.testing.kubernetes.access import Tokens
from cvl.testing.kubernetes.engine_api import EngineApi
from cvl.testing.kubernetes.faults import Fault, Faults, What
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, rfc3339, without_nulls
from cvl.testing.kubernetes.requests import Wire
from cvl.testing.kubernetes.resources import EVENTS, Resource
from cvl.testing.kubernetes.schema import Document
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node: what it has, and how it is labelled and tainted."""

    name: str = "node1"
    capacity: Mapping[str, str] = field(
        default_factory=lambda: {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "64Gi"}
    )
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one cluster is like. Times are in seconds."""

    nodes: tuple[NodeSpec, ...] = (NodeSpec(),)
    heartbeat_grace: float = 4.0
    """How long a node may be silent before it is NotReady; 40 in reality."""
    pull_backoff: float = 10.0
    restart_backoff: float = 10.0
    """The first wait after a failure; it doubles each time, up to five minutes."""
    check: bool = True
    """Whether every object is checked against the official document, where that is at hand."""
    split_timestamps: bool = False
    """Whether a log's timestamps also stand in the middle of lines over 16 KiB, as up to 1.28."""
    hang_seconds: float = 600.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWish:
    """What of a container's log is wanted. `since` is UTC epoch nanoseconds."""

    container: str
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: int | None = None
    age: int | None = None
    """Seconds before now that the log shall begin at."""
    tail: int | None = None
    limit: int | None = None
    stream: str = "All"


class Nodes(Protocol):
    """What runs pods: the kubelet of every node."""

    def log(self, pod: Obj, wish: LogWish, wire: Wire) -> None:
        """Send a container's log."""

    def check_log(self, pod: Obj, wish: LogWish) -> None:
        """Raise `ApiError` 400 where there is no log to be had."""

    def connect(self, pod: Obj, container: str, *, attach: bool) -> str:
        """Return the engine's id of a container that runs. Raises `ApiError`."""


class World:
    """The cluster's state and everything that acts on it."""

    def __init__(self, settings: Settings, clock: Clock, document: Document | None) -> None:
        self.settings, self.clock, self.document = settings, clock, document
        self.store = Store(clock.time)
        self.tokens = Tokens()
        self.faults = Faults(clock, settings.seed)
        self.violations: list[str] = []
        self.nodes: Nodes | None = None
        self.engine: EngineApi | None = None
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

        try:
            if self.store.find(EVENTS, place, name):
                self.store.update(EVENTS, place, name, again)
                return
            kind = "Warning" if warning else "Normal"
            made = self._event(resource, obj, reason, message, kind, source)
            self.store.create(EVENTS, {**made, "metadata": {"name": name, "namespace": place}})
        except ApiError:
            pass  # the namespace went while we spoke

    def _event(
        self, resource: Resource, obj: Obj, reason: str, message: str, kind: str, source: str
    ) -> Obj:
        about = meta(obj)
        where = {"host": at(obj, "spec", "nodeName")} if source == "kubelet" else {}
        reference = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "name": name_of(obj),
            "uid": about.get("uid", ""),
            "resourceVersion": about.get("resourceVersion", ""),
        }
        if about.get("namespace"):
            reference["namespace"] = about["namespace"]
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "involvedObject": reference,
            "reason": reason,
            "message": message,
            "source": {"component": source, **{k: v for k, v in where.items() if v}},
            "firstTimestamp": self.now(),
            "lastTimestamp": self.now(),
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": source,
            "reportingInstance": where.get("host") or "",
        }

    def _check(self, resource: Resource, obj: Obj) -> None:
        """Hold every object that is stored against the document: it is what replies show."""
        if self.document is None or not self.settings.check:
            return
        found = self.document.object(resource.definition, without_nulls(obj))
        self.complain(*(f"{resource.full} {name_of(obj)}: {each}" for each in found.all))
