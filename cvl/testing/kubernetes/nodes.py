"""Nodes: their heartbeat, what happens when it is missing, and to the pods on them."""

from __future__ import annotations

from collections.abc import Mapping

from cvl.testing.kubernetes.objects import Obj, at, condition, name_of, with_condition
from cvl.testing.kubernetes.resources import NODES, PODS
from cvl.testing.kubernetes.world import NodeSpec, World

ADDRESS = "198.18.9.1"
SOURCE = "node-controller"
HEALTH: Mapping[str, tuple[str, str, str]] = {
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
}
SILENT = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")


class NodeLife:
    """Looks after every node, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._silent_since: dict[str, float] = {}

    def begin(self) -> None:
        """Make the nodes that the settings name."""
        for spec in self._world.settings.nodes:
            self._world.store.create(NODES, _node(spec, self._world.now()))

    def step(self) -> None:
        """See which nodes are silent, and for how long."""
        now = self._world.clock.monotonic()
        for each in self._world.store.listed(NODES):
            name = name_of(each)
            if name in self._world.silent:
                since = self._silent_since.setdefault(name, now)
                if now >= since + self._world.settings.heartbeat_grace:
                    self._lose(each)
            elif self._silent_since.pop(name, None) is not None:
                self._tell(each, HEALTH, "NodeReady")

    def _lose(self, lost: Obj) -> None:
        if at(condition(lost, "Ready"), "status") != "Unknown":
            self._tell(lost, dict.fromkeys(HEALTH, SILENT), "NodeNotReady")
            self._unready(name_of(lost))

    def _tell(self, node: Obj, health: Mapping[str, tuple[str, str, str]], word: str) -> None:
        now = self._world.now()

        def change(obj: Obj) -> None:
            obj["status"]["conditions"] = _conditions(obj["status"]["conditions"], health, now)

        self._world.change(NODES, node, change)
        told = f"Node {name_of(node)} status is now: {word}"
        self._world.event(NODES, node, word, told, source=SOURCE)

    def _unready(self, name: str) -> None:
        """Let the pods of a lost node be not ready; else they go on showing Running."""
        now = self._world.now()

        def change(obj: Obj) -> None:
            new = {"type": "Ready", "status": "False"}
            found = obj["status"].get("conditions") or []
            obj["status"]["conditions"] = with_condition(found, new, now)

        for pod in self._world.store.listed(PODS):
            if at(pod, "spec", "nodeName") == name and condition(pod, "Ready"):
                self._world.change(PODS, pod, change)
                told = ("NodeNotReady", "Node is not ready")
                self._world.event(PODS, pod, *told, warning=True, source=SOURCE)


def _node(spec: NodeSpec, now: str) -> Obj:
    capacity = {"pods": "250", **spec.capacity}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": spec.name,
            "labels": {"kubernetes.io/hostname": spec.name, **spec.labels},
        },
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": _conditions([], HEALTH, now),
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
        },
    }


def _conditions(
    found: list[Obj], health: Mapping[str, tuple[str, str, str]], now: str
) -> list[Obj]:
    for kind, (status, reason, message) in health.items():
        new = {"type": kind, "status": status, "reason": reason, "message": message}
        found = with_condition(found, {**new, "lastHeartbeatTime": now}, now)
    return found
