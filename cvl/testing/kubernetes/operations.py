"""What the API does to objects: create, read, list, change, delete. Knows nothing of the wire."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from typing import Any

from cvl.testing.kubernetes import rules
from cvl.testing.kubernetes.access import review
from cvl.testing.kubernetes.admission import checked, decoded, filled, named, place, sized
from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.deleting import delete
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, without_nulls
from cvl.testing.kubernetes.resources import REVIEWS
from cvl.testing.kubernetes.schema import META
from cvl.testing.kubernetes.selectors import by_fields, by_labels
from cvl.testing.kubernetes.statuses import ApiError, modified, not_found, success
from cvl.testing.kubernetes.world import World

SERVED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
          "resourceVersion")  # fmt: skip
"""Metadata that only the server writes."""

STUCK = "cvl.test/stuck"
"""The finalizer that the fault of that name leaves on an object."""


def get(world: World, call: Call) -> Obj:
    """Return one object. Raises `ApiError` 404."""
    target = call.target
    if world.strikes(call.operation, What.STALE):
        raise not_found(target.resource, target.name)
    return world.store.get(target.resource, target.namespace, target.name)


def listed(world: World, call: Call) -> Obj:
    """Return what a request's selectors select, or one page of it. Raises `ApiError` 400."""
    request, resource = call.request, call.target.resource
    labels = by_labels(request.first("labelSelector"))
    fields = by_fields(request.first("fieldSelector"))
    limit, start = request.number("limit"), _start(request.first("continue"))
    with world.store.lock:
        found = world.store.listed(resource, call.target.namespace)
        about: Obj = {"resourceVersion": str(world.store.version)}
    if world.strikes(call.operation, What.STALE):
        found = []
    found = [obj for obj in found if labels(obj) and fields(obj) and _place(obj) > start]
    if limit is not None and 0 < limit < len(found):
        about["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        about["continue"] = base64.b64encode(json.dumps(_place(found[-1])).encode()).decode()
    items = [{key: obj[key] for key in obj if key not in ("kind", "apiVersion")} for obj in found]
    kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    return {**kind, "metadata": about, "items": items}


def create(world: World, call: Call) -> Obj:
    """Make a new object. Raises `ApiError` 400, 403, 404, 409, 422."""
    resource = call.target.resource
    obj = decoded(world, call, resource)
    if resource in REVIEWS:
        return {**obj, "status": review(world.store, call.user, resource, obj.get("spec") or {})}
    about = meta(obj)
    if about.get("resourceVersion"):
        raise ApiError(400, "resourceVersion should not be set on objects to be created")
    for key in SERVED:
        about.pop(key, None)
    named(resource, about, call.target.namespace)
    return place(world, resource, obj)


def patch(world: World, call: Call) -> Obj:
    """Merge a patch into an object (RFC 7386), but not into its status. Raises `ApiError`."""
    target, change = call.target, call.request.value()
    if not isinstance(change, dict):
        raise ApiError(400, "the patch is not an object")
    with world.store.lock:
        old = world.store.get(target.resource, target.namespace, target.name)
        made: Obj = without_nulls(_merged(old, change))
        asked = at(made, "metadata", "resourceVersion") or ""
        if asked != meta(old)["resourceVersion"]:
            raise modified(target.resource, target.name)
        checked(world, call, target.resource, made)
        made = _kept(old, made)
        filled(target.resource, made)
        rules.check(target.resource, made, old)
        sized(made)

        def write(obj: Obj) -> None:
            obj.clear()
            obj.update(made)

        return world.store.update(target.resource, target.namespace, target.name, write)


def remove(world: World, call: Call) -> Obj:
    """Delete one object. Raises `ApiError` 404, 409, 422."""
    target, options = call.target, _options(world, call)
    obj = world.store.get(target.resource, target.namespace, target.name)
    if world.strikes(call.operation, What.IGNORED):
        return success()
    if world.strikes(call.operation, What.STUCK):
        held = [*(meta(obj).get("finalizers") or []), STUCK]
        world.store.update(
            target.resource, target.namespace, target.name,
            lambda made: meta(made).update(finalizers=held),
        )  # fmt: skip
    return delete(world.store, target.resource, obj, options, world.clock.time())


def _place(obj: Obj) -> list[str]:
    return [meta(obj).get("namespace", ""), name_of(obj)]


def _start(token: str) -> list[str]:
    """Return after which object a list goes on. Raises `ApiError` 400."""
    try:
        return [str(part) for part in json.loads(base64.b64decode(token))] if token else []
    except ValueError as error:
        raise ApiError(400, f"continue key is not valid: {error}") from error


def _options(world: World, call: Call) -> Mapping[str, Any]:
    """Return the DeleteOptions. Raises `ApiError` 400."""
    given = without_nulls(call.request.value() or {})
    if not isinstance(given, dict):
        raise ApiError(400, "the body is no DeleteOptions")
    if world.document is not None:
        found = world.document.object(f"{META}DeleteOptions", given)
        world.complain(*(f"{call.operation}: {each}" for each in found.all))
    return given


def _merged(old: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _kept(old: Obj, new: Obj) -> Obj:
    """Return `new` with what the caller may not change taken from `old`."""
    about = {key: value for key, value in meta(new).items() if key not in SERVED}
    kept = {key: meta(old)[key] for key in (*SERVED, "name", "namespace") if key in meta(old)}
    served: Obj = {key: old[key] for key in ("kind", "apiVersion", "status") if key in old}
    new.pop("status", None)
    return {**new, "metadata": {**about, **kept}, **served}
