"""Where the objects are, with their versions and uids."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable

from cvl.testing.kubernetes.objects import Obj, meta, name_of, rfc3339
from cvl.testing.kubernetes.resources import Resource
from cvl.testing.kubernetes.statuses import already_exists, conflict, not_found

Write = Callable[[Resource, Obj], None]


class Store:
    """Every object of the cluster. Safe in any thread; `changed` is notified of each change."""

    def __init__(self, time: Callable[[], float]) -> None:
        """`time` returns UTC epoch seconds."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 1000
        self.on_write: Write = lambda _resource, _obj: None
        self._time = time
        self._objects: dict[Resource, dict[tuple[str, str], Obj]] = {}

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

    def everything(self) -> list[tuple[Resource, Obj]]:
        """Return all objects of all kinds."""
        with self.lock:
            return [(kind, obj) for kind, all_ in self._objects.items() for obj in all_.values()]

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
            about["creationTimestamp"] = rfc3339(self._time())
            self._commit(resource, made)
        return made

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Obj], object],
        *,
        uid: str = "",
    ) -> Obj:
        """Change an object, with `change` working on a copy; nothing changed is no new version.

        `uid` is what it must have. An object that is being deleted and that
        nothing holds back any more is gone with the change. Raises `ApiError` 404, 409.
        """
        with self.lock:
            old = self.get(resource, namespace, name)
            _check(resource, old, uid)
            made = copy.deepcopy(old)
            change(made)
            meta(made)["resourceVersion"] = meta(old)["resourceVersion"]
            if made == old and not over(made):
                return old
            if over(made):
                self._drop(resource, old)
            else:
                self._commit(resource, made)
        return made

    def _drop(self, resource: Resource, old: Obj) -> None:
        self.version += 1
        del self._objects[resource][meta(old).get("namespace", ""), name_of(old)]
        self.changed.notify_all()

    def _commit(self, resource: Resource, obj: Obj) -> None:
        self.version += 1
        meta(obj)["resourceVersion"] = str(self.version)
        self._objects[resource][meta(obj).get("namespace", ""), name_of(obj)] = obj
        self.on_write(resource, obj)
        self.changed.notify_all()


def over(obj: Obj) -> bool:
    """Return whether an object is being deleted and nothing holds it back."""
    about = meta(obj)
    if not about.get("deletionTimestamp") or about.get("finalizers"):
        return False
    waits = bool(about.get("deletionGracePeriodSeconds"))
    emptied = obj.get("kind") != "Namespace" or not (obj.get("spec") or {}).get("finalizers")
    return not waits and emptied


def _check(resource: Resource, obj: Obj, uid: str) -> None:
    if uid and uid != meta(obj)["uid"]:
        found = f"UID in object meta: {meta(obj)['uid']}"
        why = f"Precondition failed: UID in precondition: {uid}, {found}"
        raise conflict(resource, name_of(obj), why)
