"""Garbage collection: what has lost its owners goes, owners wait for what they own; namespaces."""

from __future__ import annotations

from cvl.testing.kubernetes.deleting import FOREGROUND, ORPHAN, delete
from cvl.testing.kubernetes.objects import Obj, meta, name_of, owners_of
from cvl.testing.kubernetes.resources import (
    ACCOUNTS,
    CONFIGMAPS,
    NAMESPACES,
    Resource,
)
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World

ROOT_CERTIFICATE = "kube-root-ca.crt"


class Garbage:
    """Collects garbage, again and again."""

    def __init__(self, world: World, certificate: str) -> None:
        """`certificate` is the cluster's authority, in PEM, which every namespace is given."""
        self._world = world
        self._certificate = certificate

    def step(self) -> None:
        """Do what is to be done now."""
        everything = list(self._world.store.everything())
        alive = {meta(obj)["uid"] for _, obj in everything}
        owned: dict[str, list[tuple[Resource, Obj]]] = {}
        for resource, obj in everything:
            for owner in owners_of(obj):
                owned.setdefault(owner["uid"], []).append((resource, obj))
        for resource, obj in everything:
            finalizers = meta(obj).get("finalizers") or []
            if meta(obj).get("deletionTimestamp") and ORPHAN in finalizers:
                self._orphan(resource, obj, owned.get(meta(obj)["uid"], []))
            elif meta(obj).get("deletionTimestamp") and FOREGROUND in finalizers:
                self._foreground(resource, obj, owned.get(meta(obj)["uid"], []))
            if owners_of(obj) and not any(ref["uid"] in alive for ref in owners_of(obj)):
                self._collect(resource, obj)
        for space in self._world.store.listed(NAMESPACES):
            self._namespace(space)

    def _orphan(self, resource: Resource, owner: Obj, owned: list[tuple[Resource, Obj]]) -> None:
        """Let what it owns be nobody's; then the owner may go."""
        uid = meta(owner)["uid"]

        def disown(obj: Obj) -> None:
            kept = [ref for ref in owners_of(obj) if ref["uid"] != uid]
            meta(obj)["ownerReferences"] = kept
            if not kept:
                del meta(obj)["ownerReferences"]

        for kind, obj in owned:
            self._update(kind, obj, disown)
        self._finish(resource, owner, ORPHAN)

    def _foreground(
        self, resource: Resource, owner: Obj, owned: list[tuple[Resource, Obj]]
    ) -> None:
        """Delete what it owns; the owner goes when all that blocks it has gone."""
        uid = meta(owner)["uid"]
        for kind, obj in owned:
            if not meta(obj).get("deletionTimestamp"):
                self._collect(kind, obj)
        blocking = [
            obj
            for _, obj in owned
            for ref in owners_of(obj)
            if ref["uid"] == uid and ref.get("blockOwnerDeletion")
        ]
        if not blocking:
            self._finish(resource, owner, FOREGROUND)

    def _collect(self, resource: Resource, obj: Obj) -> None:
        if meta(obj).get("deletionTimestamp"):
            return
        try:
            options = {
                "propagationPolicy": "Background",
                "preconditions": {"uid": meta(obj)["uid"]},
            }
            delete(self._world.store, resource, obj, options, self._world.clock.time())
        except ApiError:
            return  # it is gone already

    def _finish(self, resource: Resource, obj: Obj, finalizer: str) -> None:
        def change(made: Obj) -> None:
            kept = [each for each in meta(made).get("finalizers") or [] if each != finalizer]
            meta(made)["finalizers"] = kept
            if not kept:
                del meta(made)["finalizers"]

        self._update(resource, obj, change)

    def _update(self, resource: Resource, obj: Obj, change: object) -> None:
        about = meta(obj)
        try:
            self._world.store.update(
                resource,
                about.get("namespace", ""),
                about["name"],
                change,  # type: ignore[arg-type]
                uid=about["uid"],
            )
        except ApiError:
            return  # it is gone already

    def _namespace(self, space: Obj) -> None:
        """Give a namespace what each has; empty one that is going."""
        name = name_of(space)
        if not meta(space).get("deletionTimestamp"):
            self._furnish(name)
            return
        inside = [
            (resource, obj)
            for resource, obj in self._world.store.everything()
            if meta(obj).get("namespace") == name
        ]
        for resource, obj in inside:
            self._collect(resource, obj)
        if not inside:
            self._update(NAMESPACES, space, lambda made: made.update(spec={}))

    def _furnish(self, name: str) -> None:
        store = self._world.store
        if not store.find(ACCOUNTS, name, "default"):
            about = {"name": "default", "namespace": name}
            made = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": about}
            store.create(ACCOUNTS, made)
        if not store.find(CONFIGMAPS, name, ROOT_CERTIFICATE):
            about = {"name": ROOT_CERTIFICATE, "namespace": name}
            made = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": about}
            store.create(CONFIGMAPS, {**made, "data": {"ca.crt": self._certificate}})
