"""ResourceQuota: what is used of it, and the refusal of what would be too much."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, plain, quantity
from cvl.testing.kubernetes.resources import PODS, QUOTAS, Resource
from cvl.testing.kubernetes.statuses import forbidden
from cvl.testing.kubernetes.store import Store

Amounts = dict[str, Decimal]


def admit(store: Store, resource: Resource, obj: Obj) -> None:
    """Raise `ApiError` 403 if a new object would exceed a quota of its namespace."""
    namespace = meta(obj).get("namespace", "")
    for quota in store.listed(QUOTAS, namespace) if namespace else []:
        wanted = charge(resource, obj)
        hard = {key: quantity(value) for key, value in quota["spec"].get("hard", {}).items()}
        used = usage(store, namespace)
        needed = [key for key in hard if key.startswith(("requests.", "limits."))]
        if resource is PODS and (missing := [key for key in needed if key not in wanted]):
            told = ",".join(sorted(key for key in missing if "/" not in key))
            if told:
                why = f"failed quota: {name_of(quota)}: must specify {told}"
                raise forbidden(resource, name_of(obj), why)
        over = sorted(
            key
            for key, amount in wanted.items()
            if amount and key in hard and used.get(key, Decimal()) + amount > hard[key]
        )
        if over:
            raise forbidden(resource, name_of(obj), _too_much(quota, over, wanted, used, hard))


def charge(resource: Resource, obj: Obj) -> Amounts:
    """Return what one object uses up."""
    amounts: Amounts = {f"count/{resource.full}": Decimal(1)}
    if not resource.group:
        amounts[resource.plural] = Decimal(1)
    if resource is PODS:
        if at(obj, "status", "phase") in ("Succeeded", "Failed"):
            return {"count/pods": Decimal(1)}
        for side, name, amount in _resources(obj):
            amounts[f"{side}.{name}"] = amounts.get(f"{side}.{name}", Decimal()) + amount
            if side == "requests" and "/" not in name:
                amounts[name] = amounts.get(name, Decimal()) + amount
    return amounts


def usage(store: Store, namespace: str) -> Amounts:
    """Return what all objects of a namespace use up."""
    total: Amounts = {}
    for resource, obj in store.everything():
        if meta(obj).get("namespace") == namespace:
            for key, amount in charge(resource, obj).items():
                total[key] = total.get(key, Decimal()) + amount
    return total


def publish(store: Store) -> None:
    """Write into each quota what is used of it."""
    for quota in store.listed(QUOTAS):
        namespace = meta(quota)["namespace"]
        hard = quota["spec"].get("hard", {})
        used = usage(store, namespace)
        shown = {key: plain(used.get(key, Decimal())) for key in hard}

        def change(obj: Obj, hard: Mapping[str, str] = hard, shown: Obj = shown) -> None:
            obj["status"] = {"hard": dict(hard), "used": shown}

        store.update(QUOTAS, namespace, name_of(quota), change)


def requested(pod: Obj) -> Amounts:
    """Return what a pod asks a node for."""
    amounts: Amounts = {"pods": Decimal(1)}
    for side, name, amount in _resources(pod):
        if side == "requests":
            amounts[name] = amounts.get(name, Decimal()) + amount
    return amounts


def _resources(pod: Obj) -> list[tuple[str, str, Decimal]]:
    return [
        (side, name, quantity(amount))
        for container in pod["spec"]["containers"]
        for side in ("requests", "limits")
        for name, amount in (at(container, "resources", side) or {}).items()
    ]


def _too_much(quota: Obj, over: list[str], wanted: Amounts, used: Amounts, hard: Amounts) -> str:
    def told(amounts: Amounts) -> str:
        return ",".join(f"{key}={plain(amounts.get(key, Decimal()))}" for key in over)

    return (
        f"exceeded quota: {name_of(quota)}, requested: {told(wanted)},"
        f" used: {told(used)}, limited: {told(hard)}"
    )
