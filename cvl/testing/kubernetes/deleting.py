"""What DELETE does: grace, propagation, finalizers, preconditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, rfc3339, seconds_of
from cvl.testing.kubernetes.resources import (
    ACCOUNTS,
    CLAIMS,
    JOBS,
    NAMESPACES,
    PODS,
    QUOTAS,
    SERVICES,
    Resource,
)
from cvl.testing.kubernetes.statuses import ApiError, details, success
from cvl.testing.kubernetes.store import Store

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
POLICIES = ("Background", "Foreground", "Orphan")
SHOWN = frozenset({PODS, SERVICES, CLAIMS, ACCOUNTS, QUOTAS})
"""Resources of which a DELETE that was carried out answers with the object, not a Status."""

ORPHANED = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background"
    " to remove them or set propagationPolicy=Orphan to suppress this warning"
)
ENDED = ("Succeeded", "Failed")


def policy(resource: Resource, options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return how to propagate, and warnings. Raises `ApiError` 422 for an unknown word."""
    if "orphanDependents" in options:
        return ("Orphan" if options["orphanDependents"] else "Background"), []
    word = options.get("propagationPolicy")
    if word is None:
        return ("Orphan", [ORPHANED]) if resource is JOBS else ("Background", [])
    if word not in POLICIES:
        allowed = ", ".join(f'"{each}"' for each in sorted([*POLICIES, "nil"]))
        message = f'propagationPolicy: Unsupported value: "{word}": supported values: {allowed}'
        raise ApiError(422, f'DeleteOptions.meta.k8s.io "" is invalid: {message}')
    return word, []


def delete(
    store: Store, resource: Resource, obj: Obj, options: Mapping[str, Any], now: float
) -> Obj:
    """Delete one object, or begin to; return what goes back. Raises `ApiError` 404, 409, 422."""
    how, _ = policy(resource, options)
    preconditions = options.get("preconditions") or {}
    grace = _grace(resource, obj, options)
    about = meta(obj)
    if options.get("dryRun"):
        store.check(resource, obj, uid=preconditions.get("uid", ""))
        return obj if resource in SHOWN else success(_done(resource, obj))

    def mark(made: Obj) -> None:
        _mark(resource, made, how, grace, now)

    made = store.update(
        resource,
        about.get("namespace", ""),
        about["name"],
        mark,
        uid=preconditions.get("uid", ""),
        version=preconditions.get("resourceVersion", ""),
    )
    gone = store.find(resource, about.get("namespace", ""), about["name"]) is None
    return success(_done(resource, obj)) if gone and resource not in SHOWN else made


def _mark(resource: Resource, obj: Obj, how: str, grace: int, now: float) -> None:
    about = meta(obj)
    finalizers = [
        each for each in about.get("finalizers") or [] if each not in (FOREGROUND, ORPHAN)
    ]
    finalizers += {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(how, [])
    about["finalizers"] = finalizers
    if not finalizers:
        del about["finalizers"]
    ends = now + grace
    if about.get("deletionTimestamp"):  # a second DELETE may shorten the grace, never lengthen it
        ends = min(ends, seconds_of(about["deletionTimestamp"]))
        grace = min(grace, about.get("deletionGracePeriodSeconds", grace))
    elif "generation" in about:
        about["generation"] += 1
    about["deletionTimestamp"] = rfc3339(ends)
    about["deletionGracePeriodSeconds"] = grace
    if resource is NAMESPACES:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}


def _grace(resource: Resource, obj: Obj, options: Mapping[str, Any]) -> int:
    """Return the seconds between DELETE and the end: pods that run have some."""
    if resource is not PODS or not at(obj, "spec", "nodeName"):
        return 0
    asked = options.get("gracePeriodSeconds")
    if asked is not None and asked < 0:
        raise ApiError(422, f"gracePeriodSeconds: Invalid value: {asked}: must be >= 0")
    if at(obj, "status", "phase") in ENDED:
        return 0
    return int(asked if asked is not None else obj["spec"].get("terminationGracePeriodSeconds", 30))


def _done(resource: Resource, obj: Obj) -> Obj:
    return details(resource, name_of(obj)) | {"uid": meta(obj)["uid"]}
