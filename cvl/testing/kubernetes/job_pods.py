"""A job's pods: how they are made from its template, and what they amount to."""

from __future__ import annotations

import copy

from cvl.testing.kubernetes.deleting import ENDED
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    labels_of,
    meta,
    name_of,
    random_suffix,
)

INDEX = "batch.kubernetes.io/job-completion-index"
NAME_LIMIT = 63


def pod_for(job: Obj, index: int | None, finalizer: str) -> Obj:
    """Return a new pod of a job."""
    template = copy.deepcopy(job["spec"]["template"])
    about, spec = template.setdefault("metadata", {}), template["spec"]
    middle = f"-{index}" if index is not None else ""
    owner: Obj = {"apiVersion": "batch/v1", "kind": "Job", "name": name_of(job)}
    owner |= {"uid": meta(job)["uid"], "controller": True, "blockOwnerDeletion": True}
    about |= {
        "name": f"{name_of(job)}{middle}-"[: NAME_LIMIT - 5] + random_suffix(),
        "namespace": meta(job)["namespace"],
        "finalizers": [finalizer],
        "ownerReferences": [owner],
    }
    if index is not None:
        about.setdefault("annotations", {})[INDEX] = str(index)
        about.setdefault("labels", {})[INDEX] = str(index)
        spec.setdefault("hostname", f"{name_of(job)}-{index}")
        value = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
            variables = container.setdefault("env", [])
            variables.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": value})
    return {"kind": "Pod", "apiVersion": "v1", **template}


def over(pod: Obj) -> bool:
    """Return whether a pod has ended, or was deleted without ever having had a node."""
    gone = meta(pod).get("deletionTimestamp") and not meta(pod).get("deletionGracePeriodSeconds")
    return bool(gone) or at(pod, "status", "phase") in ENDED


def active(pods: list[Obj]) -> list[Obj]:
    """Return those that have not ended."""
    return [pod for pod in pods if at(pod, "status", "phase") not in ENDED]


def going(pods: list[Obj]) -> list[Obj]:
    """Return those that have not ended and are being deleted."""
    return [pod for pod in active(pods) if meta(pod).get("deletionTimestamp")]


def count(job: Obj, pods: list[Obj], status: Obj) -> None:
    """Write the numbers of pods into a status. What was counted once stays counted."""
    failed = sum(at(pod, "status", "phase") == "Failed" for pod in pods)
    numbers = {
        "active": len(active(pods)) - len(going(pods)),
        "succeeded": succeeded(job, pods),
        "failed": max(status.get("failed", 0), failed),
    }
    for name, number in numbers.items():
        if number:
            status[name] = number
        else:  # nought is left out, as the server leaves it out
            status.pop(name, None)
    if _indexed(job):
        done = sorted(_done_indexes(job, pods))
        status["completedIndexes"] = ",".join(map(str, done))


def succeeded(job: Obj, pods: list[Obj]) -> int:
    """Return how many pods have succeeded, or how many indexes."""
    if _indexed(job):
        return len(_done_indexes(job, pods))
    return max(len(_done(pods)), at(job, "status", "succeeded") or 0)


def missing(job: Obj, pods: list[Obj]) -> list[int | None]:
    """Return the indexes that want a pod; None for each pod without one."""
    spec = job["spec"]
    waits = spec["podReplacementPolicy"] == "Failed"
    alive = [pod for pod in active(pods) if waits or pod not in going(pods)]
    if _indexed(job):
        busy = {_index(pod) for pod in alive} | _done_indexes(job, pods)
        return [n for n in range(spec["completions"]) if n not in busy]
    return [None] * max(spec["completions"] - succeeded(job, pods) - len(alive), 0)


def _indexed(job: Obj) -> bool:
    return bool(job["spec"]["completionMode"] == "Indexed")


def _index(pod: Obj) -> int:
    return int(labels_of(pod).get(INDEX, "-1"))


def _done(pods: list[Obj]) -> list[Obj]:
    return [pod for pod in pods if at(pod, "status", "phase") == "Succeeded"]


def _done_indexes(job: Obj, pods: list[Obj]) -> set[int]:
    """Return the indexes that have succeeded, also those whose pods are gone."""
    before = (at(job, "status", "completedIndexes") or "").split(",")
    return {*map(_index, _done(pods)), *map(int, filter(None, before))}
