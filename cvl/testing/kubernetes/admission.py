"""Whether an object may come in, and what it is then: decoded, named, filled in, checked."""

from __future__ import annotations

import json
import uuid

from cvl.testing.kubernetes import defaults, quota, rules
from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, without_nulls
from cvl.testing.kubernetes.resources import ACCOUNTS, EVENTS, JOBS, NAMESPACES, PODS, Resource
from cvl.testing.kubernetes.statuses import ApiError, forbidden, invalid
from cvl.testing.kubernetes.world import World

OBJECT_LIMIT = 1536 * 1024
"""Bytes of one object: etcd takes no more."""


def place(world: World, resource: Resource, obj: Obj) -> Obj:
    """Fill in, check and store a new object: for clients and controllers. Raises `ApiError`."""
    _admit_place(world, resource, obj)
    meta(obj)["uid"] = str(uuid.uuid4())
    obj.pop("status", None)
    filled(resource, obj)
    if resource is JOBS:
        defaults.fill_job(obj, meta(obj)["uid"])
    rules.check(resource, obj, None)
    sized(obj)
    quota.admit(world.store, resource, obj)
    return world.store.create(resource, obj)


def decoded(world: World, call: Call, resource: Resource) -> Obj:
    """Return the request's object, checked. Raises `ApiError` 400."""
    obj = without_nulls(call.request.value())
    if not isinstance(obj, dict) or not isinstance(obj.setdefault("metadata", {}), dict):
        raise ApiError(400, "the body is no object")
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if (version, kind) != (resource.api_version, resource.kind):
        raise ApiError(400, f"{kind} in version {version} cannot be handled as a {resource.kind}")
    checked(world, call, resource, obj)
    return obj


def checked(world: World, call: Call, resource: Resource, obj: Obj) -> None:
    """Hold an object of a client's against the document; drop what that does not know."""
    if world.document is None:
        return
    found = world.document.object(resource.definition, obj, prune=True)
    world.complain(*(f"{call.operation}: {each}" for each in found.all))
    if found.wrong:
        message = f"{resource.kind} in version {resource.api_version} cannot be handled"
        raise ApiError(400, f"{message} as a {resource.kind}: {found.wrong[0]}")


def named(resource: Resource, about: Obj, namespace: str) -> None:
    """Give an object its namespace, and see to its name. Raises `ApiError` 400, 422."""
    if not resource.namespaced:
        about.pop("namespace", None)
    elif about.setdefault("namespace", namespace) != namespace:
        message = "the namespace of the provided object does not match the namespace sent on the"
        raise ApiError(400, f"{message} request")
    if not about.get("name"):
        raise invalid(resource, "", [("metadata.name", "Required value: name is required")])


def _admit_place(world: World, resource: Resource, obj: Obj) -> None:
    """Refuse objects where they cannot be: no such namespace, or one that is going."""
    about = meta(obj)
    if not resource.namespaced:
        return
    space = world.store.get(NAMESPACES, "", about["namespace"])
    if meta(space).get("deletionTimestamp") and resource is not EVENTS:
        why = f"unable to create new content in namespace {about['namespace']}"
        why += " because it is being terminated"
        raise forbidden(resource, about["name"], why)
    if resource is PODS:
        name = at(obj, "spec", "serviceAccountName") or "default"
        if not world.store.find(ACCOUNTS, about["namespace"], name):
            why = f"error looking up service account {about['namespace']}/{name}"
            why += f': serviceaccount "{name}" not found'
            raise forbidden(resource, about["name"], why)


def filled(resource: Resource, obj: Obj) -> None:
    """Fill in, whatever is missing; what that stumbles over is the client's fault."""
    try:
        defaults.fill(resource, obj)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f'{resource.kind} "{name_of(obj)}" is invalid: {error!r}: Required value'
        raise ApiError(422, message) from error


def sized(obj: Obj) -> None:
    """Raise `ApiError` 500 if an object is too large for etcd."""
    if len(json.dumps(obj)) > OBJECT_LIMIT:
        raise ApiError(500, "etcdserver: request is too large", "InternalError")
