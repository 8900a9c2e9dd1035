"""The scheduler: a node for each pod that has none, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from cvl.testing.kubernetes.deleting import ENDED
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    condition,
    holds,
    labels_of,
    meta,
    name_of,
    quantity,
    with_condition,
)
from cvl.testing.kubernetes.resources import NODES, PODS
from cvl.testing.kubernetes.world import World

SOURCE = "default-scheduler"
Amounts = dict[str, Decimal]


class Scheduler:
    """Binds pods to nodes, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def step(self) -> None:
        """Try every pod that waits."""
        pods = self._world.store.listed(PODS)
        waiting = [pod for pod in pods if _waits(pod)]
        if not waiting:
            return
        used: dict[str, Amounts] = {}
        for pod in pods:
            node = at(pod, "spec", "nodeName")
            if node and at(pod, "status", "phase") not in ENDED:
                _add(used.setdefault(node, {}), pod)
        for pod in sorted(waiting, key=_age):
            self._place(pod, self._world.store.listed(NODES), used)

    def _place(self, pod: Obj, nodes: Sequence[Obj], used: dict[str, Amounts]) -> None:
        reasons: Counter[str] = Counter()
        for node in nodes:
            taken = used.setdefault(name_of(node), {})
            against = _against(pod, node, taken)
            if not against:
                _add(taken, pod)
                self._bind(pod, name_of(node))
                return
            reasons.update(against)
        self._refuse(pod, len(nodes), reasons)

    def _bind(self, pod: Obj, node: str) -> None:
        now = self._world.now()

        def change(obj: Obj) -> None:
            obj["spec"]["nodeName"] = node
            new = {"type": "PodScheduled", "status": "True"}
            found = at(obj, "status", "conditions") or []
            obj["status"]["conditions"] = with_condition(found, new, now)

        self._world.change(PODS, pod, change)
        told = f"Successfully assigned {meta(pod)['namespace']}/{name_of(pod)} to {node}"
        self._world.event(PODS, pod, "Scheduled", told, source=SOURCE)

    def _refuse(self, pod: Obj, count: int, reasons: Counter[str]) -> None:
        listed = ", ".join(sorted(f"{n} {why}" for why, n in reasons.items()))
        told = f"0/{count} nodes are available: {listed}."
        if at(condition(pod, "PodScheduled"), "message") == told:
            return
        new = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        new["message"], now = told, self._world.now()

        def change(obj: Obj) -> None:
            found = at(obj, "status", "conditions") or []
            obj["status"]["conditions"] = with_condition(found, new, now)

        self._world.change(PODS, pod, change)
        self._world.event(PODS, pod, "FailedScheduling", told, warning=True, source=SOURCE)


def _waits(pod: Obj) -> bool:
    return (
        not at(pod, "spec", "nodeName")
        and not meta(pod).get("deletionTimestamp")
        and at(pod, "status", "phase") == "Pending"
    )


def _age(pod: Obj) -> tuple[str, int]:
    return meta(pod)["creationTimestamp"], int(meta(pod)["resourceVersion"])


def _requested(pod: Obj) -> Amounts:
    """Return what a pod asks a node for."""
    amounts: Amounts = {"pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        for name, amount in (at(container, "resources", "requests") or {}).items():
            amounts[name] = amounts.get(name, Decimal()) + quantity(amount)
    return amounts


def _add(used: Amounts, pod: Obj) -> None:
    for name, amount in _requested(pod).items():
        used[name] = used.get(name, Decimal()) + amount


def _against(pod: Obj, node: Obj, used: Amounts) -> list[str]:
    """Return why a pod cannot be on a node."""
    if not holds(node, "Ready"):
        return ["node(s) had untolerated taint {node.kubernetes.io/unreachable: }"]
    labels = labels_of(node)
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    free = at(node, "status", "allocatable") or {}
    short = [
        name
        for name, amount in _requested(pod).items()
        if amount and used.get(name, Decimal()) + amount > quantity(free.get(name, 0))
    ]
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in short]
