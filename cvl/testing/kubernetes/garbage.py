"""Garbage collection: what has lost its owners goes, owners wait for what they own; namespaces."""

from __future__ import annotations

from contextlib import suppress

from cvl.testing.kubernetes.deleting import FOREGROUND, ORPHAN, delete
from cvl.testing.kubernetes.objects import Obj, meta, name_of, owners_of, without_finalizer
from cvl.testing.kubernetes.resources import ACCOUNTS, NAMESPACES, Resource
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World


class Garbage:
    """Collects garbage, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def step(self) -> None:
        """Do what is to be done now."""
        everything = self._world.store.everything()
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
            self._namespace(space, everything)

    def _orphan(self, resource: Resource, owner: Obj, owned: list[tuple[Resource, Obj]]) -> None:
        """Let what it owns be nobody's; then the owner may go."""
        uid = meta(owner)["uid"]

        def disown(obj: Obj) -> None:
            kept = [ref for ref in owners_of(obj) if ref["uid"] != uid]
            meta(obj)["ownerReferences"] = kept
            if not kept:
                del meta(obj)["ownerReferences"]

        for kind, obj in owned:
            self._world.change(kind, obj, disown)
        self._world.change(resource, owner, without_finalizer(ORPHAN))

    def _foreground(
        self, resource: Resource, owner: Obj, owned: list[tuple[Resource, Obj]]
    ) -> None:
        """Delete what it owns; the owner goes when all that blocks it has gone."""
        uid = meta(owner)["uid"]
        for kind, obj in owned:
            self._collect(kind, obj)
        blocking = [
            ref
            for _, obj in owned
            for ref in owners_of(obj)
            if ref["uid"] == uid and ref.get("blockOwnerDeletion")
        ]
        if not blocking:
            self._world.change(resource, owner, without_finalizer(FOREGROUND))

    def _collect(self, resource: Resource, obj: Obj) -> None:
        if meta(obj).get("deletionTimestamp"):
            return
        preconditions = {"uid": meta(obj)["uid"]}
        options = {"propagationPolicy": "Background", "preconditions": preconditions}
        with suppress(ApiError):  # it is gone already
            delete(self._world.store, resource, obj, options, self._world.clock.time())

    def _namespace(self, space: Obj, everything: list[tuple[Resource, Obj]]) -> None:
        """Give a namespace its service account; empty one that is going."""
        name, store = name_of(space), self._world.store
        if not meta(space).get("deletionTimestamp"):
            if not store.find(ACCOUNTS, name, "default"):
                about = {"name": "default", "namespace": name}
                made = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": about}
                store.create(ACCOUNTS, made)
            return
        inside = [each for each in everything if meta(each[1]).get("namespace") == name]
        for resource, obj in inside:
            self._collect(resource, obj)
        if not inside:
            self._world.change(NAMESPACES, space, lambda made: made.update(spec={}))
