"""The scheduler: a node for each pod that has none, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from cvl.testing.kubernetes.deleting import ENDED
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    labels_of,
    meta,
    name_of,
    quantity,
    with_condition,
)
from cvl.testing.kubernetes.quota import requested
from cvl.testing.kubernetes.resources import NODES, PODS
from cvl.testing.kubernetes.selectors import expressed
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World

SOURCE = "default-scheduler"
HARD = ("NoSchedule", "NoExecute")


class Scheduler:
    """Binds pods to nodes, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def step(self) -> None:
        """Try every pod that waits."""
        store = self._world.store
        pods = store.listed(PODS)
        waiting = [pod for pod in pods if _waits(pod)]
        if not waiting:
            return
        used: dict[str, Counter[str]] = {}
        for pod in pods:
            node = at(pod, "spec", "nodeName")
            if node and at(pod, "status", "phase") not in ENDED:
                _add(used.setdefault(node, Counter()), pod)
        for pod in sorted(waiting, key=_age):
            self._place(pod, store.listed(NODES), used)

    def _place(self, pod: Obj, nodes: Sequence[Obj], used: dict[str, Counter[str]]) -> None:
        reasons: Counter[str] = Counter()
        for node in nodes:
            taken = used.setdefault(name_of(node), Counter())
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
            new = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
            found = at(obj, "status", "conditions") or []
            obj["status"]["conditions"] = with_condition(found, new, now)

        bound = self._update(pod, change)
        if bound:
            told = f"Successfully assigned {meta(pod)['namespace']}/{name_of(pod)} to {node}"
            self._world.event(PODS, bound, "Scheduled", told, source=SOURCE)

    def _refuse(self, pod: Obj, count: int, reasons: Counter[str]) -> None:
        listed = ", ".join(sorted(f"{n} {why}" for why, n in reasons.items()))
        told = (
            f"0/{count} nodes are available: {listed}."
            if listed
            else "no nodes available to schedule pods"
        )
        if listed:
            told += (
                f" preemption: 0/{count} nodes are available: {count} No preemption victims found"
                " for incoming pod."
                if all(why.startswith("Insufficient") for why in reasons)
                else f" preemption: 0/{count} nodes are available: {count} Preemption is not"
                " helpful for scheduling."
            )
        found = at(pod, "status", "conditions") or []
        same = [each for each in found if each["type"] == "PodScheduled"]
        if same and same[0].get("message") == told:
            return
        now = self._world.now()
        new = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": told,
            "lastProbeTime": None,
        }

        def change(obj: Obj) -> None:
            obj["status"]["conditions"] = with_condition(found, new, now)

        if self._update(pod, change):
            self._world.event(PODS, pod, "FailedScheduling", told, warning=True, source=SOURCE)

    def _update(self, pod: Obj, change: Any) -> Obj | None:
        about = meta(pod)
        try:
            return self._world.store.update(
                PODS, about["namespace"], about["name"], change, uid=about["uid"]
            )
        except ApiError:
            return None  # it is gone


def tolerates(pod: Obj, taint: Mapping[str, Any]) -> bool:
    """Return whether a pod tolerates a taint."""
    return toleration(pod, taint) is not None


def toleration(pod: Obj, taint: Mapping[str, Any]) -> Obj | None:
    """Return the toleration of a pod for a taint."""
    for each in pod["spec"].get("tolerations") or []:
        if each.get("effect") not in (None, "", taint["effect"]):
            continue
        key, value = each.get("key") or "", each.get("value") or ""
        if each.get("operator", "Equal") == "Exists":
            if key in ("", taint["key"]):
                found: Obj = each
                return found
        elif key == taint["key"] and value == (taint.get("value") or ""):
            equal: Obj = each
            return equal
    return None


def _waits(pod: Obj) -> bool:
    return (
        not at(pod, "spec", "nodeName")
        and not meta(pod).get("deletionTimestamp")
        and at(pod, "status", "phase") == "Pending"
        and pod["spec"].get("schedulerName") == SOURCE
        and not pod["spec"].get("schedulingGates")
    )


def _age(pod: Obj) -> tuple[str, int]:
    return meta(pod)["creationTimestamp"], int(meta(pod)["resourceVersion"])


def _add(used: Counter[str], pod: Obj) -> None:
    for name, amount in requested(pod).items():
        used[name] += amount  # type: ignore[assignment]


def _against(pod: Obj, node: Obj, used: Counter[str]) -> list[str]:
    """Return why a pod cannot be on a node."""
    if at(node, "spec", "unschedulable"):
        return ["node(s) were unschedulable"]
    for taint in at(node, "spec", "taints") or []:
        if taint["effect"] in HARD and not tolerates(pod, taint):
            told = f"{taint['key']}: {taint.get('value') or ''}"
            return [f"node(s) had untolerated taint {{{told}}}"]
    if not _selected(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    free = at(node, "status", "allocatable") or {}
    wanted = requested(pod)
    short = [
        name
        for name, amount in wanted.items()
        if amount and Decimal(used[name]) + amount > quantity(free.get(name, 0))
    ]
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in short]


def _selected(pod: Obj, node: Obj) -> bool:
    labels = labels_of(node)
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    affinity = at(
        pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = (affinity or {}).get("nodeSelectorTerms")
    if terms is None:
        return True
    fields = {"metadata.name": name_of(node)}
    return any(
        all(expressed(each, labels) for each in term.get("matchExpressions") or [])
        and all(expressed(each, fields) for each in term.get("matchFields") or [])
        for term in terms
    )
