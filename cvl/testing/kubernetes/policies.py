"""When failures of pods are the failure of their job: backoffLimit and podFailurePolicy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvl.testing.kubernetes.indexes import index_of
from cvl.testing.kubernetes.objects import Obj, at, condition, meta, name_of


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why a job is over before all its pods have succeeded."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the failures up to now mean."""

    end: End | None = None
    failed: frozenset[int] = field(default_factory=frozenset)
    """Indexes that have failed for good."""


def judge(job: Obj, pods: list[Obj]) -> Verdict:
    """Return what a job's failed pods mean for it."""
    spec = job["spec"]
    failures = [pod for pod in pods if at(pod, "status", "phase") == "Failed"]
    lost: set[int] = set()
    counted: list[Obj] = []
    for pod in failures:
        action, why = _action(spec, pod)
        if action == "FailJob":
            return Verdict(end=End(reason="PodFailurePolicy", message=why))
        if action == "FailIndex":
            lost.add(index_of(pod))
        elif action == "Count":
            counted.append(pod)
    if "backoffLimitPerIndex" in spec:
        return _by_index(job, counted, lost, pods)
    restarts = _restarts(spec, pods)
    if len(counted) + restarts > spec["backoffLimit"]:
        message = "Job has reached the specified backoff limit"
        return Verdict(end=End(reason="BackoffLimitExceeded", message=message))
    return Verdict(failed=frozenset(lost))


def _by_index(job: Obj, counted: list[Obj], lost: set[int], pods: list[Obj]) -> Verdict:
    spec = job["spec"]
    number = Counter(index_of(pod) for pod in counted)
    lost |= {index for index, n in number.items() if n > spec["backoffLimitPerIndex"]}
    if len(lost) > spec.get("maxFailedIndexes", 2**31):
        message = "Job has exceeded the specified maximal number of failed indexes"
        return Verdict(end=End(reason="MaxFailedIndexesExceeded", message=message))
    done = {index_of(pod) for pod in pods if at(pod, "status", "phase") == "Succeeded"}
    if lost and len(lost | done) >= spec["completions"]:
        return Verdict(end=End(reason="FailedIndexes", message="Job has failed indexes"))
    return Verdict(failed=frozenset(lost))


def _restarts(spec: Mapping[str, Any], pods: list[Obj]) -> int:
    """Return the restarts of containers: with `OnFailure` they count as failures of pods."""
    if at(spec, "template", "spec", "restartPolicy") != "OnFailure":
        return 0
    return sum(
        each.get("restartCount", 0)
        for pod in pods
        for kind in ("containerStatuses", "initContainerStatuses")
        for each in at(pod, "status", kind) or []
    )


def _action(spec: Mapping[str, Any], pod: Obj) -> tuple[str, str]:
    for n, rule in enumerate(at(spec, "podFailurePolicy", "rules") or []):
        if why := _matches(rule, pod):
            place = f"{meta(pod).get('namespace')}/{name_of(pod)}"
            told = f"{why} for pod {place} matching {rule['action']} rule at index {n}"
            return str(rule["action"]), told
    return "Count", ""


def _matches(rule: Mapping[str, Any], pod: Obj) -> str:
    wanted = rule.get("onExitCodes")
    if wanted:
        for status in at(pod, "status", "containerStatuses") or []:
            code = at(status, "state", "terminated", "exitCode")
            named = wanted.get("containerName") in (None, status["name"])
            hit = (code in wanted["values"]) == (wanted["operator"] == "In")
            if named and code and hit:
                return f"Container {status['name']} failed with exit code {code}"
    for pattern in rule.get("onPodConditions") or []:
        found = condition(pod, pattern["type"])
        if found and found["status"] == pattern.get("status", "True"):
            return f"Pod has condition {pattern['type']}"
    return ""
