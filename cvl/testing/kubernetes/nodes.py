"""Nodes: their heartbeat, what happens when it is missing, and to the pods on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvl.testing.kubernetes.defaults import UNREACHABLE
from cvl.testing.kubernetes.deleting import ENDED, delete
from cvl.testing.kubernetes.discovery import VERSION
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    condition,
    meta,
    name_of,
    seconds_of,
    with_condition,
)
from cvl.testing.kubernetes.resources import NODES, PODS
from cvl.testing.kubernetes.scheduler import toleration
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import NodeSpec, World

ADDRESS = "198.18.9.1"
SOURCE = "node-controller"
HEALTH: Mapping[str, tuple[str, str, str]] = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "has sufficient memory available"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "has no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "has sufficient PID available"),
    "Ready": ("True", "KubeletReady", "is posting ready status"),
}


class NodeLife:
    """Looks after every node, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._silent_since: dict[str, float] = {}

    def begin(self) -> None:
        """Make the nodes that the settings name."""
        for spec in self._world.settings.nodes:
            self._world.store.create(NODES, node(spec, self._world.now()))

    def step(self) -> None:
        """See which nodes are silent, and for how long."""
        now = self._world.clock.monotonic()
        for each in self._world.store.listed(NODES):
            name = name_of(each)
            if name in self._world.silent:
                since = self._silent_since.setdefault(name, now)
                if now >= since + self._world.settings.heartbeat_grace:
                    self._lose(each)
            elif name in self._silent_since:
                del self._silent_since[name]
                self._regain(each)
        self._evict()

    def _lose(self, lost: Obj) -> None:
        if at(condition(lost, "Ready"), "status") == "Unknown":
            return
        now = self._world.now()

        def change(obj: Obj) -> None:
            for kind in HEALTH:
                new = {
                    "type": kind,
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastHeartbeatTime": now,
                }
                obj["status"]["conditions"] = with_condition(obj["status"]["conditions"], new, now)
            obj["spec"]["taints"] = [
                *(obj["spec"].get("taints") or []),
                *(
                    {"key": UNREACHABLE, "effect": effect, "timeAdded": now}
                    for effect in ("NoSchedule", "NoExecute")
                ),
            ]

        self._update(lost, change)
        told = f"Node {name_of(lost)} status is now: NodeNotReady"
        self._world.event(NODES, lost, "NodeNotReady", told, source=SOURCE)
        self._unready(name_of(lost))

    def _unready(self, name: str) -> None:
        """Let the pods of a lost node be not ready; else they go on showing Running."""
        now = self._world.now()
        for pod in self._world.store.listed(PODS):
            if at(pod, "spec", "nodeName") != name or not condition(pod, "Ready"):
                continue

            def change(obj: Obj) -> None:
                new = {"type": "Ready", "status": "False", "lastProbeTime": None}
                found = obj["status"].get("conditions") or []
                obj["status"]["conditions"] = with_condition(found, new, now)

            self._update(pod, change)
            self._world.event(
                PODS, pod, "NodeNotReady", "Node is not ready", warning=True, source=SOURCE
            )

    def _regain(self, found: Obj) -> None:
        now = self._world.now()

        def change(obj: Obj) -> None:
            obj["status"]["conditions"] = _healthy(now)
            kept = [each for each in obj["spec"].get("taints") or [] if each["key"] != UNREACHABLE]
            obj["spec"]["taints"] = kept
            if not kept:
                del obj["spec"]["taints"]

        self._update(found, change)
        told = f"Node {name_of(found)} status is now: NodeReady"
        self._world.event(NODES, found, "NodeReady", told, source=SOURCE)

    def _evict(self) -> None:
        """Delete pods from nodes whose taint they do not tolerate, or no longer."""
        for each in self._world.store.listed(NODES):
            for taint in at(each, "spec", "taints") or []:
                if taint["effect"] == "NoExecute":
                    self._evict_from(name_of(each), taint)

    def _evict_from(self, name: str, taint: Obj) -> None:
        now = self._world.clock.time()
        since = seconds_of(taint["timeAdded"]) if taint.get("timeAdded") else now
        for pod in self._world.store.listed(PODS):
            if at(pod, "spec", "nodeName") != name or at(pod, "status", "phase") in ENDED:
                continue
            found = toleration(pod, taint)
            limit = (found or {}).get("tolerationSeconds", None if found else 0)
            if limit is None or now < since + limit or meta(pod).get("deletionTimestamp"):
                continue
            try:
                delete(self._world.store, PODS, pod, {}, now)
            except ApiError:
                continue
            told = f"Marking for deletion Pod {meta(pod)['namespace']}/{name_of(pod)}"
            source = "taint-eviction-controller"
            self._world.event(PODS, pod, "TaintManagerEviction", told, source=source)

    def _update(self, obj: Obj, change: Any) -> None:
        about = meta(obj)
        resource = NODES if obj["kind"] == "Node" else PODS
        try:
            self._world.store.update(
                resource, about.get("namespace", ""), about["name"], change, uid=about["uid"]
            )
        except ApiError:
            return  # it is gone


def node(spec: NodeSpec, now: str) -> Obj:
    """Return the object of a node."""
    capacity = {"pods": "250", **spec.capacity}
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        **spec.labels,
    }
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": spec.name, "labels": labels},
        "spec": {"taints": [dict(each) for each in spec.taints]} if spec.taints else {},
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": _healthy(now),
            "addresses": [
                {"type": "InternalIP", "address": ADDRESS},
                {"type": "Hostname", "address": spec.name},
            ],
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": "6.1.0",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
                "containerRuntimeVersion": "docker://20.10.24",
                "kubeletVersion": VERSION,
                "kubeProxyVersion": VERSION,
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    }


def _healthy(now: str) -> list[Obj]:
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": f"kubelet {message}",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind, (status, reason, message) in HEALTH.items()
    ]
