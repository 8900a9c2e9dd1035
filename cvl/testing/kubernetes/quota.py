"""ResourceQuota, of numbers of objects: what is used, and the refusal of what would be too much."""

from __future__ import annotations

from collections import Counter
from functools import partial

from cvl.testing.kubernetes.deleting import ENDED
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of
from cvl.testing.kubernetes.resources import PODS, QUOTAS, Resource
from cvl.testing.kubernetes.statuses import forbidden
from cvl.testing.kubernetes.store import Store
from cvl.testing.kubernetes.world import World


def admit(store: Store, resource: Resource, obj: Obj) -> None:
    """Raise `ApiError` 403 if a new object would exceed a quota of its namespace."""
    namespace = meta(obj).get("namespace", "")
    for quota in store.listed(QUOTAS, namespace) if namespace else []:
        hard = {key: int(value) for key, value in quota["spec"].get("hard", {}).items()}
        used, wanted = _usage(store, namespace), _charge(resource, obj)
        over = sorted(key for key in wanted if key in hard and used[key] + 1 > hard[key])
        if over:
            requested, have, limited = (
                ",".join(f"{key}={each.get(key, 0)}" for key in over)
                for each in (dict.fromkeys(wanted, 1), used, hard)
            )
            why = f"exceeded quota: {name_of(quota)}, requested: {requested}, used: {have},"
            raise forbidden(resource, name_of(obj), f"{why} limited: {limited}")


class Quotas:
    """Writes into each quota what is used of it, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def step(self) -> None:
        for quota in self._world.store.listed(QUOTAS):
            hard = quota["spec"].get("hard", {})
            used = _usage(self._world.store, meta(quota)["namespace"])
            status = {"hard": hard, "used": {key: str(used[key]) for key in hard}}
            self._world.change(QUOTAS, quota, partial(dict.update, status=status))


def _usage(store: Store, namespace: str) -> Counter[str]:
    return Counter(
        key
        for resource, obj in store.everything()
        if meta(obj).get("namespace") == namespace
        for key in _charge(resource, obj)
    )


def _charge(resource: Resource, obj: Obj) -> list[str]:
    """Return what one object is counted as."""
    if resource is PODS and at(obj, "status", "phase") in ENDED:
        return ["count/pods"]
    return [f"count/{resource.full}", *([] if resource.group else [resource.plural])]
