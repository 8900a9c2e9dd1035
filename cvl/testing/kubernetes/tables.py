"""Lists as tables: what `kubectl get` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cvl.testing.kubernetes.objects import Obj, at, condition, meta, name_of, seconds_of
from cvl.testing.kubernetes.resources import (
    CLAIMS,
    CONFIGMAPS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)

Columns = Sequence[str]
"""Names; one that begins with "+" is shown only with `-o wide`."""
Cells = Callable[[Obj, float], list[Any]]


def table(resource: Resource, objects: Iterable[Obj], version: str, now: float) -> Obj:
    """Return objects as a `Table`. `now` is UTC epoch seconds."""
    names, cells = _TABLES.get(resource, (("Name", "Age"), _plain))
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [_column(name) for name in names],
        "rows": [{"cells": cells(obj, now), "object": _partial(obj)} for obj in objects],
    }


def age(since: str | None, now: float) -> str:
    """Return how long ago a time is, as kubectl says it."""
    if not since:
        return "<unknown>"
    return span(now - seconds_of(since))


def span(seconds: float) -> str:
    """Return a duration as kubectl says it: 119s, 5m3s, 4h2m, 3d."""
    total = max(int(seconds), 0)
    if total < 120:
        return f"{total}s"
    if total < 600:
        return f"{total // 60}m{total % 60}s" if total % 60 else f"{total // 60}m"
    if total < 3 * 3600:
        return f"{total // 60}m"
    if total < 8 * 3600:
        minutes = total // 60 % 60
        return f"{total // 3600}h{minutes}m" if minutes else f"{total // 3600}h"
    return f"{total // 3600}h" if total < 48 * 3600 else f"{total // 86400}d"


def _column(name: str) -> Obj:
    plain = name.lstrip("+")
    return {
        "name": plain,
        "type": "integer" if plain == "Data" else "string",
        "format": "name" if plain == "Name" else "",
        "description": plain,
        "priority": int(name.startswith("+")),
    }


def _partial(obj: Obj) -> Obj:
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {**kind, "metadata": obj["metadata"]}


def _plain(obj: Obj, now: float) -> list[Any]:
    return [name_of(obj), age(meta(obj).get("creationTimestamp"), now)]


def _pod(pod: Obj, now: float) -> list[Any]:
    statuses = at(pod, "status", "containerStatuses") or []
    ready = sum(bool(each.get("ready")) for each in statuses)
    restarts = sum(each.get("restartCount", 0) for each in statuses)
    return [
        name_of(pod),
        f"{ready}/{len(pod['spec']['containers'])}",
        pod_word(pod),
        str(restarts),
        age(meta(pod).get("creationTimestamp"), now),
        at(pod, "status", "podIP") or "<none>",
        at(pod, "spec", "nodeName") or "<none>",
        "<none>",
        "<none>",
    ]


def pod_word(pod: Obj) -> str:
    """Return the one word that kubectl shows as a pod's status."""
    status = pod.get("status") or {}
    word = str(status.get("reason") or status.get("phase", "Unknown"))
    for n, each in enumerate(status.get("initContainerStatuses") or []):
        state = each.get("state") or {}
        if at(state, "terminated", "exitCode") == 0:
            continue
        why = at(state, "terminated", "reason") or at(state, "waiting", "reason")
        if why and why != "PodInitializing":
            word = f"Init:{why}"
        else:
            word = f"Init:{n}/{len(status['initContainerStatuses'])}"
        return "Terminating" if meta(pod).get("deletionTimestamp") else word
    for each in reversed(status.get("containerStatuses") or []):
        state = each.get("state") or {}
        word = at(state, "waiting", "reason") or at(state, "terminated", "reason") or word
    if meta(pod).get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return word


def _job(job: Obj, now: float) -> list[Any]:
    status, spec = job.get("status") or {}, job["spec"]
    wanted = spec.get("completions")
    done = status.get("succeeded", 0)
    total = f"{done}/{wanted}" if wanted is not None else f"{done}/1 of {spec['parallelism']}"
    lasted = ""
    if started := status.get("startTime"):
        ended = status.get("completionTime")
        lasted = span((seconds_of(ended) if ended else now) - seconds_of(started))
    containers = at(job, "spec", "template", "spec", "containers") or []
    return [
        name_of(job),
        _job_word(job),
        total,
        lasted,
        age(meta(job).get("creationTimestamp"), now),
        ",".join(each["name"] for each in containers),
        ",".join(each["image"] for each in containers),
        _equal(at(job, "spec", "selector", "matchLabels")),
    ]


def _job_word(job: Obj) -> str:
    for kind, word in (
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if (condition(job, kind) or {}).get("status") == "True":
            return word
    return "Terminating" if meta(job).get("deletionTimestamp") else "Running"


def _equal(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or "<none>"


def _service(service: Obj, now: float) -> list[Any]:
    spec = service["spec"]
    ports = [f"{each['port']}/{each.get('protocol', 'TCP')}" for each in spec.get("ports") or []]
    return [
        name_of(service),
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP", "<none>"),
        "<none>",
        ",".join(ports) or "<none>",
        age(meta(service).get("creationTimestamp"), now),
        _equal(spec.get("selector")),
    ]


def _event(event: Obj, now: float) -> list[Any]:
    about = event.get("involvedObject") or {}
    return [
        age(event.get("lastTimestamp") or event.get("eventTime"), now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}",
        (event.get("message") or "").strip(),
        name_of(event),
    ]


def _node(node: Obj, now: float) -> list[Any]:
    ready = (condition(node, "Ready") or {}).get("status") == "True"
    word = "Ready" if ready else "NotReady"
    if at(node, "spec", "unschedulable"):
        word += ",SchedulingDisabled"
    info = at(node, "status", "nodeInfo") or {}
    addresses = at(node, "status", "addresses") or [{}]
    since = age(meta(node).get("creationTimestamp"), now)
    return [
        name_of(node), word, "<none>", since, info.get("kubeletVersion", ""),
        addresses[0].get("address", "<none>"), "<none>", info.get("osImage", ""),
        info.get("kernelVersion", ""), info.get("containerRuntimeVersion", ""),
    ]  # fmt: skip


def _sized(obj: Obj, now: float) -> list[Any]:
    count = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [name_of(obj), count, age(meta(obj).get("creationTimestamp"), now)]


def _secret(obj: Obj, now: float) -> list[Any]:
    name, count, old = _sized(obj, now)
    return [name, obj.get("type", "Opaque"), count, old]


def _phase(obj: Obj, now: float) -> list[Any]:
    return [
        name_of(obj),
        at(obj, "status", "phase") or "",
        age(obj["metadata"].get("creationTimestamp"), now),
    ]


_TABLES: Mapping[Resource, tuple[Columns, Cells]] = {
    PODS: (
        ("Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+Nominated Node",
         "+Readiness Gates"),
        _pod,
    ),
    JOBS: (
        ("Name", "Status", "Completions", "Duration", "Age", "+Containers", "+Images", "+Selector"),
        _job,
    ),
    SERVICES: (
        ("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"),
        _service,
    ),
    EVENTS: (("Last Seen", "Type", "Reason", "Object", "Message", "+Name"), _event),
    NODES: (
        ("Name", "Status", "Roles", "Age", "Version", "+Internal-IP", "+External-IP",
         "+OS-Image", "+Kernel-Version", "+Container-Runtime"),
        _node,
    ),
    SECRETS: (("Name", "Type", "Data", "Age"), _secret),
    CONFIGMAPS: (("Name", "Data", "Age"), _sized),
    NAMESPACES: (("Name", "Status", "Age"), _phase),
    CLAIMS: (("Name", "Status", "Age"), _phase),
}  # fmt: skip
