"""Where the objects are: versions, uids, and the history that watches read."""

from __future__ import annotations

import copy
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cvl.testing.kubernetes.objects import Obj, meta, name_of, rfc3339
from cvl.testing.kubernetes.resources import JOBS, Resource
from cvl.testing.kubernetes.statuses import already_exists, conflict, modified, not_found

HISTORY = 5000
"""So many changes are remembered; a watch that wants older ones is told 410."""


class Change(StrEnum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. `old` is what the object was before it."""

    version: int
    change: Change
    resource: Resource
    obj: Obj
    old: Obj | None = None


Write = Callable[[Resource, Obj], None]


class Store:
    """Every object of the cluster. Safe in any thread; `changed` is notified of each change."""

    def __init__(self, time: Callable[[], float], history: int = HISTORY) -> None:
        """`time` returns UTC epoch seconds."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 1000
        self.oldest = 1000
        self.on_write: Write = lambda _resource, _obj: None
        self._time = time
        self._objects: dict[Resource, dict[tuple[str, str], Obj]] = {}
        self._history: deque[Event] = deque(maxlen=history)

    def now(self) -> str:
        """Return the time, as objects bear it."""
        return rfc3339(self._time())

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Return an object. Raises `ApiError` 404."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def find(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """Return an object, None if there is none."""
        with self.lock:
            return self._objects.get(resource, {}).get((namespace, name))

    def listed(self, resource: Resource, namespace: str = "") -> list[Obj]:
        """Return all objects of a kind, sorted by namespace and name; "": of all namespaces."""
        with self.lock:
            found = sorted(self._objects.get(resource, {}).items())
        return [obj for (space, _), obj in found if not namespace or space == namespace]

    def everything(self) -> Iterator[tuple[Resource, Obj]]:
        """Return all objects of all kinds."""
        with self.lock:
            found = [(kind, obj) for kind, all_ in self._objects.items() for obj in all_.values()]
        return iter(found)

    def create(self, resource: Resource, obj: Obj) -> Obj:
        """Put a new object in, with the uid it has or a new one. Raises `ApiError` 409."""
        made = copy.deepcopy(obj)
        about = meta(made)
        where = (about.get("namespace", ""), about["name"])
        with self.lock:
            space = self._objects.setdefault(resource, {})
            if where in space:
                raise already_exists(resource, about["name"])
            about["uid"] = about.get("uid") or str(uuid.uuid4())
            about["creationTimestamp"] = self.now()
            if resource is JOBS:
                about.setdefault("generation", 1)
            self._commit(Change.ADDED, resource, made, None)
        return made

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Obj], object],
        *,
        version: str = "",
        uid: str = "",
    ) -> Obj:
        """Change an object, with `change` working on a copy; nothing changed is no new version.

        `version` and `uid` are what it must have. An object that is being deleted and that
        nothing holds back any more is gone with the change. Raises `ApiError` 404, 409.
        """
        with self.lock:
            old = self.get(resource, namespace, name)
            self.check(resource, old, version=version, uid=uid)
            made = copy.deepcopy(old)
            change(made)
            meta(made)["resourceVersion"] = meta(old)["resourceVersion"]
            if made == old and not over(made):
                return old
            if resource is JOBS and made.get("spec") != old.get("spec"):
                meta(made)["generation"] = meta(old).get("generation", 1) + 1
            if over(made):
                self._drop(resource, made, old)
            else:
                self._commit(Change.MODIFIED, resource, made, old)
        return made

    def check(self, resource: Resource, obj: Obj, *, version: str = "", uid: str = "") -> None:
        """Raise `ApiError` 409 unless the object has that version and uid."""
        if uid and uid != meta(obj)["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {uid},"
                f" UID in object meta: {meta(obj)['uid']}"
            )
            raise conflict(resource, name_of(obj), why)
        if version and version != meta(obj)["resourceVersion"]:
            raise modified(resource, name_of(obj))

    def remove(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """Take an object out, whatever holds it back. Already gone is success."""
        with self.lock:
            old = self.find(resource, namespace, name)
            if old is not None:
                self._drop(resource, copy.deepcopy(old), old)
        return old

    def after(self, version: int, resource: Resource) -> tuple[list[Event], int]:
        """Return the changes of a kind since `version`, and the version they lead up to."""
        with self.lock:
            found: list[Event] = []
            for event in reversed(self._history):
                if event.version <= version:
                    break
                if event.resource == resource:
                    found.append(event)
            return found[::-1], self.version

    def compact(self) -> None:
        """Forget the history: whoever watches from an older version is told 410."""
        with self.lock:
            self._history.clear()
            self.version += 1
            self.oldest = self.version
            self.changed.notify_all()

    def clear(self) -> None:
        """Forget everything, without a word to anybody."""
        with self.lock:
            self._objects.clear()
            self.compact()

    def _drop(self, resource: Resource, obj: Obj, old: Obj) -> None:
        del self._objects[resource][meta(old).get("namespace", ""), name_of(old)]
        self._commit(Change.DELETED, resource, obj, old)

    def _commit(self, change: Change, resource: Resource, obj: Obj, old: Obj | None) -> None:
        self.version += 1
        meta(obj)["resourceVersion"] = str(self.version)
        if change is not Change.DELETED:
            where = (meta(obj).get("namespace", ""), name_of(obj))
            self._objects[resource][where] = obj
            self.on_write(resource, obj)
        if len(self._history) == self._history.maxlen:
            self.oldest = self._history[0].version
        event = Event(version=self.version, change=change, resource=resource, obj=obj, old=old)
        self._history.append(event)
        self.changed.notify_all()


def over(obj: Obj) -> bool:
    """Return whether an object is being deleted and nothing holds it back."""
    about = meta(obj)
    if not about.get("deletionTimestamp") or about.get("finalizers"):
        return False
    waits = bool(about.get("deletionGracePeriodSeconds"))
    emptied = obj.get("kind") != "Namespace" or not (obj.get("spec") or {}).get("finalizers")
    return not waits and emptied
