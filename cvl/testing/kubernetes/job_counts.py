"""What a job's pods amount to: how many there are of which kind, what is missing, what is over."""

from __future__ import annotations

from cvl.testing.kubernetes.deleting import ENDED
from cvl.testing.kubernetes.indexes import compact, expanded, index_of
from cvl.testing.kubernetes.objects import Obj, at, condition, holds, meta, seconds_of
from cvl.testing.kubernetes.policies import Verdict, judge


def finished(job: Obj) -> bool:
    """Return whether a job is over."""
    return holds(job, "Complete") or holds(job, "Failed")


def ended_at(job: Obj) -> float:
    """Return when a job ended, in UTC epoch seconds."""
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found and found["status"] == "True":
            return seconds_of(found["lastTransitionTime"])
    return 0.0


def failure_target(job: Obj) -> Obj | None:
    """Return why the job is about to be failed, if it is."""
    return condition(job, "FailureTarget") if holds(job, "FailureTarget") else None


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
    _number(status, "active", len(active(pods)) - len(going(pods)))
    status["terminating"] = len(going(pods))
    status["ready"] = sum(holds(pod, "Ready") for pod in active(pods))
    _number(status, "succeeded", succeeded(job, pods))
    _number(status, "failed", max(status.get("failed", 0), failed))
    status["uncountedTerminatedPods"] = {}
    if indexed(job):
        status["completedIndexes"] = compact(done_indexes(job, pods))
        if "backoffLimitPerIndex" in job["spec"]:
            status["failedIndexes"] = compact(judge(job, pods).failed)


def indexed(job: Obj) -> bool:
    """Return whether a job's pods have indexes."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def succeeded(job: Obj, pods: list[Obj]) -> int:
    """Return how many pods have succeeded, or how many indexes."""
    if indexed(job):
        return len(done_indexes(job, pods))
    return max(len(_done(pods)), at(job, "status", "succeeded") or 0)


def done_indexes(job: Obj, pods: list[Obj]) -> set[int]:
    """Return the indexes that have succeeded, also those whose pods are gone."""
    found = {index_of(pod) for pod in _done(pods)}
    found |= expanded(at(job, "status", "completedIndexes") or "")
    return {n for n in found if 0 <= n < job["spec"]["completions"]}


def complete(job: Obj, pods: list[Obj]) -> bool:
    """Return whether all has succeeded that was to."""
    wanted = job["spec"].get("completions")
    if wanted is None:  # a work queue: over when one is done and none runs
        return bool(_done(pods)) and not active(pods)
    return bool(succeeded(job, pods) >= wanted)


def missing(job: Obj, pods: list[Obj], verdict: Verdict) -> list[int | None]:
    """Return the indexes that want a pod; None for each pod without one."""
    spec = job["spec"]
    waits = spec["podReplacementPolicy"] == "Failed"
    alive = [pod for pod in active(pods) if waits or pod not in going(pods)]
    if indexed(job):
        busy = {index_of(pod) for pod in alive} | done_indexes(job, pods) | verdict.failed
        return [n for n in range(spec["completions"]) if n not in busy]
    if spec.get("completions") is None:
        return [] if _done(pods) else [None] * max(spec["parallelism"] - len(alive), 0)
    return [None] * max(spec["completions"] - succeeded(job, pods) - len(alive), 0)


def _done(pods: list[Obj]) -> list[Obj]:
    return [pod for pod in pods if at(pod, "status", "phase") == "Succeeded"]


def _number(status: Obj, name: str, number: int) -> None:
    """Write a number; nought is left out, as the server leaves it out."""
    if number:
        status[name] = number
    else:
        status.pop(name, None)
