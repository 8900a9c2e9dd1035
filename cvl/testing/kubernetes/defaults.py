"""What the server fills in where a client says nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from cvl.testing.kubernetes.objects import Obj, meta, quantity
from cvl.testing.kubernetes.resources import (
    CLAIMS,
    JOBS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)

PULL_ALWAYS = "Always"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
TOLERATED_SECONDS = 300
"""Seconds a pod stays on a lost node unless it says otherwise."""


def fill(resource: Resource, obj: Obj) -> None:
    """Fill in an object, in place. Idempotent."""
    if resource in _FILLERS:
        _FILLERS[resource](obj)


def fill_job(job: Obj, uid: str) -> None:
    """Give a job the selector and the labels that bear its uid, unless it has its own."""
    spec = job["spec"]
    if spec.get("manualSelector"):
        return
    spec["selector"] = {"matchLabels": {CONTROLLER_UID: uid}}
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels |= {
        CONTROLLER_UID: uid,
        JOB_NAME: meta(job)["name"],
        "controller-uid": uid,
        "job-name": meta(job)["name"],
    }
    if not meta(job).get("labels"):
        meta(job)["labels"] = dict(labels)


def _pod(pod: Obj) -> None:
    _pod_spec(pod["spec"])
    spec = pod["spec"]
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    tolerations = spec.setdefault("tolerations", [])
    for taint in (NOT_READY, UNREACHABLE):
        if not any(each.get("key") in (taint, None) for each in tolerations):
            tolerations.append(
                {
                    "key": taint,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATED_SECONDS,
                }
            )
    pod.setdefault("status", {})
    pod["status"].setdefault("phase", "Pending")
    pod["status"].setdefault("qosClass", quality(spec))


def quality(spec: Mapping[str, Any]) -> str:
    """Return a pod's quality-of-service class."""
    named = [
        {side: (each.get("resources") or {}).get(side) or {} for side in ("requests", "limits")}
        for each in [*(spec.get("initContainers") or []), *spec["containers"]]
    ]
    main = ("cpu", "memory")
    if not any(name in each[side] for each in named for side in each for name in main):
        return "BestEffort"
    full = all(
        name in each["limits"]
        and quantity(each["limits"][name])
        == quantity(each["requests"].get(name, each["limits"][name]))
        for each in named
        for name in main
    )
    return "Guaranteed" if full else "Burstable"


def _pod_spec(spec: Obj) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _container(container: Obj) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    image = str(container.get("image", ""))
    _, _, tag = image.rpartition("/")[2].partition(":")
    latest = "@" not in image and tag in ("", "latest")
    container.setdefault("imagePullPolicy", PULL_ALWAYS if latest else "IfNotPresent")
    resources = container.setdefault("resources", {})
    for name, limit in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            reference.setdefault("apiVersion", "v1")


def _volume(volume: Obj) -> None:
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        if kind in volume:
            volume[kind].setdefault("defaultMode", 0o644)


def _job(job: Obj) -> None:
    spec = job["spec"]
    if "parallelism" not in spec and "completions" not in spec:
        spec["parallelism"] = spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    limitless = "backoffLimitPerIndex" in spec
    spec.setdefault("backoffLimit", 2**31 - 1 if limitless else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", policy)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules", []):
        for pattern in rule.get("onPodConditions") or []:
            pattern.setdefault("status", "True")
    spec["template"].setdefault("metadata", {})
    _pod_spec(spec["template"]["spec"])
    job.setdefault("status", {})
    if not spec["manualSelector"]:
        del spec["manualSelector"]


def _service(service: Obj) -> None:
    spec = service["spec"]
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if "clusterIP" in spec:
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    service.setdefault("status", {"loadBalancer": {}})


def _secret(secret: Obj) -> None:
    secret.setdefault("type", "Opaque")
    data = secret.pop("stringData", None) or {}
    for key, value in data.items():
        secret.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def _namespace(namespace: Obj) -> None:
    labels = meta(namespace).setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = meta(namespace)["name"]
    namespace.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    namespace.setdefault("status", {}).setdefault("phase", "Active")


def _claim(claim: Obj) -> None:
    claim["spec"].setdefault("volumeMode", "Filesystem")
    claim.setdefault("status", {}).setdefault("phase", "Pending")


_FILLERS: Mapping[Resource, Callable[[Obj], None]] = {
    PODS: _pod,
    JOBS: _job,
    SERVICES: _service,
    SECRETS: _secret,
    NAMESPACES: _namespace,
    CLAIMS: _claim,
}
