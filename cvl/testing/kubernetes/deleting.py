"""What DELETE does: grace, propagation, finalizers, preconditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, rfc3339, seconds_of
from cvl.testing.kubernetes.resources import JOBS, NAMESPACES, PODS, Resource
from cvl.testing.kubernetes.statuses import ApiError, details, success
from cvl.testing.kubernetes.store import Store

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
FINALIZERS: Mapping[str, list[str]] = {
    "Background": [],
    "Foreground": [FOREGROUND],
    "Orphan": [ORPHAN],
}
ENDED = ("Succeeded", "Failed")


def delete(
    store: Store, resource: Resource, obj: Obj, options: Mapping[str, Any], now: float
) -> Obj:
    """Delete one object, or begin to; return what goes back. Raises `ApiError` 404, 409, 422."""
    how = options.get("propagationPolicy") or ("Orphan" if resource is JOBS else "Background")
    if how not in FINALIZERS:
        message = f'propagationPolicy: Unsupported value: "{how}"'
        raise ApiError(422, f'DeleteOptions.meta.k8s.io "" is invalid: {message}')
    grace = _grace(resource, obj, options)
    where = (meta(obj).get("namespace", ""), name_of(obj))

    def mark(made: Obj) -> None:
        _mark(resource, made, how, grace, now)

    uid = (options.get("preconditions") or {}).get("uid", "")
    made = store.update(resource, *where, mark, uid=uid)
    if store.find(resource, *where) is not None:
        return made
    return success(details(resource, name_of(obj)) | {"uid": meta(obj)["uid"]})


def _mark(resource: Resource, obj: Obj, how: str, grace: int, now: float) -> None:
    about = meta(obj)
    kept = [each for each in about.get("finalizers") or [] if each not in (FOREGROUND, ORPHAN)]
    about["finalizers"] = kept + FINALIZERS[how]
    if not about["finalizers"]:
        del about["finalizers"]
    ends = now + grace
    if about.get("deletionTimestamp"):  # a second DELETE may shorten the grace, never lengthen it
        ends = min(ends, seconds_of(about["deletionTimestamp"]))
        grace = min(grace, about.get("deletionGracePeriodSeconds", grace))
    about["deletionTimestamp"] = rfc3339(ends)
    about["deletionGracePeriodSeconds"] = grace
    if resource is NAMESPACES:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}


def _grace(resource: Resource, obj: Obj, options: Mapping[str, Any]) -> int:
    """Return the seconds between DELETE and the end: pods that run have some."""
    if resource is not PODS or not at(obj, "spec", "nodeName"):
        return 0
    if at(obj, "status", "phase") in ENDED:
        return 0
    asked = options.get("gracePeriodSeconds")
    return int(asked if asked is not None else obj["spec"].get("terminationGracePeriodSeconds", 30))
