"""Pods of a job: how they are made from its template, and their indexes."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from cvl.testing.kubernetes.objects import Obj, labels_of, meta, name_of, random_suffix

INDEX = "batch.kubernetes.io/job-completion-index"
NAME_LIMIT = 63


def pod_for(job: Obj, index: int | None, finalizer: str) -> Obj:
    """Return a new pod of a job."""
    template = copy.deepcopy(job["spec"]["template"])
    about = template.setdefault("metadata", {})
    middle = f"-{index}" if index is not None else ""
    stem = f"{name_of(job)}{middle}-"
    about |= {
        "generateName": stem,
        "name": stem[: NAME_LIMIT - 5] + random_suffix(),
        "namespace": meta(job)["namespace"],
        "finalizers": [finalizer],
        "ownerReferences": [reference(job)],
    }
    if index is not None:
        about.setdefault("annotations", {})[INDEX] = str(index)
        about.setdefault("labels", {})[INDEX] = str(index)
        template["spec"].setdefault("hostname", f"{name_of(job)}-{index}")
        for container in _containers(template):
            _index_variable(container)
    return {"kind": "Pod", "apiVersion": "v1", **template}


def reference(job: Obj) -> Obj:
    """Return the reference that makes a job the owner of something."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": name_of(job),
        "uid": meta(job)["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def index_of(pod: Obj) -> int:
    """Return a pod's index, -1 if it has none."""
    told = (meta(pod).get("annotations") or {}).get(INDEX) or labels_of(pod).get(INDEX, "-1")
    return int(told)


def compact(indexes: Iterable[int]) -> str:
    """Return indexes as a job's status writes them: "1,3-5,7"."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1] = [runs[-1][0], index]
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a},{b}" if b == a + 1 else f"{a}-{b}" for a, b in runs)


def expanded(text: str) -> set[int]:
    """Return the indexes that a status writes: the reverse of `compact`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _containers(template: Obj) -> list[Obj]:
    spec = template["spec"]
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def _index_variable(container: Obj) -> None:
    variables = container.setdefault("env", [])
    if all(each["name"] != "JOB_COMPLETION_INDEX" for each in variables):
        path = f"metadata.labels['{INDEX}']"
        value = {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}
        variables.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": value})
