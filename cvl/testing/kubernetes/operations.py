"""What the API does to objects: create, read, change, delete. Knows nothing of the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cvl.testing.kubernetes import rules
from cvl.testing.kubernetes.admission import checked, decoded, filled, named, place, sized
from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.deleting import delete, policy
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.listing import listed
from cvl.testing.kubernetes.objects import Obj, at, changed, meta, name_of, without_nulls
from cvl.testing.kubernetes.patches import APPLY, patched
from cvl.testing.kubernetes.reviews import REVIEWS, SUBRESOURCES
from cvl.testing.kubernetes.schema import META
from cvl.testing.kubernetes.statuses import ApiError, modified, not_found, success
from cvl.testing.kubernetes.world import World

SERVED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
          "generation", "resourceVersion", "selfLink", "managedFields")  # fmt: skip
"""Metadata that only the server writes."""

STUCK = "cvl.test/stuck"
"""The finalizer that the fault of that name leaves on an object."""


def get(world: World, call: Call) -> Obj:
    """Return one object. Raises `ApiError` 404."""
    target = call.target
    if world.strikes(call.operation, What.STALE):
        raise not_found(target.resource, target.name)
    return world.store.get(target.resource, target.namespace, target.name)


def create(world: World, call: Call) -> Obj:
    """Make a new object. Raises `ApiError` 400, 403, 404, 409, 422."""
    target, resource = call.target, call.target.resource
    call.created = True
    if target.subresource:
        return SUBRESOURCES[target.subresource](world, call)
    obj = decoded(world, call, resource)
    if resource in REVIEWS:
        return {**obj, **REVIEWS[resource](world, call.user, obj)}
    about = meta(obj)
    if about.get("resourceVersion"):
        raise ApiError(400, "resourceVersion should not be set on objects to be created")
    for key in SERVED:
        about.pop(key, None)
    named(resource, about, target.namespace)
    return place(world, resource, obj, dry=call.dry)


def replace(world: World, call: Call) -> Obj:
    """Put an object in another's place. Raises `ApiError`."""
    obj = decoded(world, call, call.target.resource)
    if name_of(obj) != call.target.name:
        message = f"the name of the object ({name_of(obj)}) does not match the name on the URL"
        raise ApiError(400, f"{message} ({call.target.name})")
    return _change(world, call, lambda _old: obj)


def patch(world: World, call: Call) -> Obj:
    """Change an object by a patch; apply makes it where there is none. Raises `ApiError`."""
    kind, value, target = call.request.content_type, call.request.value(), call.target
    if kind in APPLY and not world.store.find(target.resource, target.namespace, target.name):
        return create(world, call)
    return _change(world, call, lambda old: patched(old, kind, value))


def remove(world: World, call: Call) -> Obj:
    """Delete one object. Raises `ApiError` 404, 409, 422."""
    target, options = call.target, _options(world, call)
    obj = world.store.get(target.resource, target.namespace, target.name)
    call.warnings += policy(target.resource, options)[1]
    if world.strikes(call.operation, What.IGNORED):
        return success()
    if world.strikes(call.operation, What.STUCK):
        held = [*(meta(obj).get("finalizers") or []), STUCK]
        world.store.update(
            target.resource, target.namespace, target.name,
            lambda made: meta(made).update(finalizers=held),
        )  # fmt: skip
    return delete(world.store, target.resource, obj, options, world.clock.time())


def remove_all(world: World, call: Call) -> tuple[list[Obj], Obj]:
    """Delete every object that matches; return what was there. Raises `ApiError`."""
    options = _options(world, call)
    found, about = listed(world, call)
    for obj in found:
        delete(world.store, call.target.resource, obj, options, world.clock.time())
    return found, about


def _options(world: World, call: Call) -> Mapping[str, Any]:
    """Return the DeleteOptions: the body's, or else the query's."""
    given = without_nulls(call.request.value() or {})
    if not isinstance(given, dict):
        raise ApiError(400, "the body is no DeleteOptions")
    if world.document is not None and given:
        found = world.document.object(f"{META}DeleteOptions", given)
        world.complain(*(f"{call.operation}: {each}" for each in found.all))
    options: Obj = dict(given)
    query = call.request
    if query.first("propagationPolicy"):
        options.setdefault("propagationPolicy", query.first("propagationPolicy"))
    if query.first("gracePeriodSeconds"):
        options.setdefault("gracePeriodSeconds", query.number("gracePeriodSeconds"))
    if query.first("orphanDependents"):
        options.setdefault("orphanDependents", query.flag("orphanDependents"))
    if call.dry:
        options["dryRun"] = ["All"]
    return options


def _change(world: World, call: Call, make: Callable[[Obj], Obj]) -> Obj:
    """Change an object, or only its status where that is what the path says."""
    target = call.target
    with world.store.lock:
        old = world.store.get(target.resource, target.namespace, target.name)
        made = without_nulls(make(old))
        asked = at(made, "metadata", "resourceVersion") or ""
        if asked and asked != meta(old)["resourceVersion"]:
            raise modified(target.resource, target.name)
        checked(world, call, target.resource, made)
        made = _merged(old, made, target.subresource)
        filled(target.resource, made)
        rules.check(target.resource, made, old)
        sized(made)
        if call.dry:
            return made

        def write(obj: Obj) -> None:
            obj.clear()
            obj.update(made)

        return world.store.update(target.resource, target.namespace, target.name, write)


def _merged(old: Obj, new: Obj, subresource: str) -> Obj:
    """Return `new` with what the caller may not change taken from `old`."""
    if subresource == "status":
        return changed(old, lambda obj: obj.update(status=new.get("status") or {}))
    kept = {key: meta(old)[key] for key in SERVED if key in meta(old)}
    about = {key: value for key, value in (new.get("metadata") or {}).items() if key not in SERVED}
    about |= {"name": name_of(old), **kept}
    if "namespace" in meta(old):
        about["namespace"] = meta(old)["namespace"]
    made = {**new, "metadata": about, "kind": old["kind"], "apiVersion": old["apiVersion"]}
    if subresource == "finalize":
        return {**old, "spec": new.get("spec") or {}}
    if "status" in old:
        made["status"] = old["status"]
    return made
