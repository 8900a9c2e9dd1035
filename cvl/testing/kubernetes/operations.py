"""What the API does to objects: create, read, change, delete. Knows nothing of the wire."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cvl.testing.kubernetes import defaults, quota, rules
from cvl.testing.kubernetes.access import User, account, review
from cvl.testing.kubernetes.deleting import delete, policy
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    changed,
    meta,
    name_of,
    random_suffix,
    without_nulls,
)
from cvl.testing.kubernetes.patches import APPLY, patched
from cvl.testing.kubernetes.requests import Request, Target
from cvl.testing.kubernetes.resources import (
    ACCESS_REVIEWS,
    ACCOUNTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    PODS,
    RULES_REVIEWS,
    SELF_REVIEWS,
    Resource,
)
from cvl.testing.kubernetes.schema import META
from cvl.testing.kubernetes.selectors import by_fields, by_labels
from cvl.testing.kubernetes.statuses import (
    ApiError,
    forbidden,
    invalid,
    modified,
    not_found,
    success,
)
from cvl.testing.kubernetes.world import World

SERVED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
          "generation", "resourceVersion", "selfLink", "managedFields")  # fmt: skip
"""Metadata that only the server writes."""

OBJECT_LIMIT = 1536 * 1024
"""Bytes of one object: etcd takes no more."""

STUCK = "cvl.test/stuck"
"""The finalizer that the fault of that name leaves on an object."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request on its way: who asks for what, and what they are warned of."""

    request: Request
    target: Target
    user: User
    verb: str
    warnings: list[str] = field(default_factory=list)
    created: bool = False

    @property
    def operation(self) -> str:
        """What faults are named for: `create jobs`, `get pods/log`."""
        part = f"/{self.target.subresource}" if self.target.subresource else ""
        return f"{self.verb} {self.target.resource.plural}{part}"

    @property
    def dry(self) -> bool:
        return self.request.first("dryRun") == "All"


def matching(call: Call) -> Callable[[Obj], bool]:
    """Return the test that a request's selectors are. Raises `ApiError` 400."""
    labels = by_labels(call.request.first("labelSelector"))
    fields = by_fields(call.target.resource, call.request.first("fieldSelector"))
    named = call.target.name
    return lambda obj: labels(obj) and fields(obj) and named in ("", name_of(obj))


def listed(world: World, call: Call) -> tuple[list[Obj], Obj]:
    """Return the objects a list shows, and its metadata. Raises `ApiError` 400, 410."""
    start, matches, limit = _start(world, call), matching(call), call.request.number("limit")
    with world.store.lock:
        found = world.store.listed(call.target.resource, call.target.namespace)
        version = world.store.version
    if world.strikes(call.operation, What.STALE):
        found = []
    found = [obj for obj in found if matches(obj)]
    if start:
        found = [obj for obj in found if _place(obj) > start]
    about: Obj = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        about["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        token = json.dumps({"v": version, "start": _place(found[-1])})
        about["continue"] = base64.urlsafe_b64encode(token.encode()).decode()
    return found, about


def _place(obj: Obj) -> list[str]:
    return [meta(obj).get("namespace", ""), name_of(obj)]


def _start(world: World, call: Call) -> list[str]:
    """Return after which object a list goes on."""
    token = call.request.first("continue")
    if not token:
        return []
    try:
        told = json.loads(base64.urlsafe_b64decode(token))
        version, start = int(told["v"]), [str(part) for part in told["start"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(400, f"continue key is not valid: {error}") from error
    if version < world.store.oldest:
        message = (
            "The provided continue parameter is too old to display a consistent list result. You"
            " can start a new list without the continue parameter."
        )
        raise ApiError(410, message, "Expired")
    return start


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
        return _SUBRESOURCES[target.subresource](world, call)
    obj = _decoded(world, call, resource)
    if resource in _REVIEWS:
        return {**obj, **_REVIEWS[resource](world, call.user, obj)}
    about = meta(obj)
    if about.get("resourceVersion"):
        raise ApiError(400, "resourceVersion should not be set on objects to be created")
    for key in SERVED:
        about.pop(key, None)
    _name(resource, about, target.namespace)
    return place(world, resource, obj, dry=call.dry)


def place(world: World, resource: Resource, obj: Obj, *, dry: bool = False) -> Obj:
    """Fill in, check and store a new object: for clients and controllers. Raises `ApiError`."""
    about = meta(obj)
    _admit_place(world, resource, obj)
    about["uid"] = str(uuid.uuid4())
    if resource is not EVENTS:
        obj.pop("status", None)
    _guarded(resource, obj)
    if resource is JOBS:
        defaults.fill_job(obj, about["uid"])
    rules.check(resource, obj, None)
    _sized(obj)
    quota.admit(world.store, resource, obj)
    if dry:
        return {**obj, "metadata": {**about, "creationTimestamp": world.now()}}
    return world.store.create(resource, obj)


def replace(world: World, call: Call) -> Obj:
    """Put an object in another's place. Raises `ApiError`."""
    obj = _decoded(world, call, call.target.resource)
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
        _checked(world, call, target.resource, made)
        made = _merged(old, made, target.subresource)
        _guarded(target.resource, made)
        rules.check(target.resource, made, old)
        _sized(made)
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


def _decoded(world: World, call: Call, resource: Resource) -> Obj:
    """Return the request's object, checked. Raises `ApiError` 400."""
    obj = without_nulls(call.request.value())
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise ApiError(400, "the body is no object")
    obj.setdefault("metadata", {})
    obj.setdefault("kind", resource.kind)
    obj.setdefault("apiVersion", resource.api_version)
    if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
        message = (
            f"{obj['kind']} in version {obj['apiVersion']} cannot be handled as a {resource.kind}"
        )
        raise ApiError(400, message)
    _checked(world, call, resource, obj)
    return obj


def _checked(world: World, call: Call, resource: Resource, obj: Obj) -> None:
    """Hold an object of a client's against the document; drop what that does not know."""
    if world.document is None or not world.settings.check:
        return
    found = world.document.object(resource.definition, obj, prune=True)
    world.complain(*(f"{call.operation}: {each}" for each in found.all))
    if found.wrong:
        message = f"{resource.kind} in version {resource.api_version} cannot be handled"
        raise ApiError(400, f"{message} as a {resource.kind}: {found.wrong[0]}")
    told = [f'unknown field "{name}"' for name in found.unknown]
    how = call.request.first("fieldValidation") or "Warn"
    if told and how == "Strict":
        raise ApiError(400, f"strict decoding error: {', '.join(told)}")
    call.warnings += told if how == "Warn" else []


def _name(resource: Resource, about: Obj, namespace: str) -> None:
    if resource.namespaced:
        if about.setdefault("namespace", namespace) != namespace:
            message = (
                "the namespace of the provided object does not match the namespace sent on the"
                " request"
            )
            raise ApiError(400, message)
    else:
        about.pop("namespace", None)
    if not about.get("name"):
        if not about.get("generateName"):
            why = "Required value: name or generateName is required"
            raise invalid(resource, "", [("metadata.name", why)])
        about["name"] = about["generateName"][:58] + random_suffix()


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


def _guarded(resource: Resource, obj: Obj) -> None:
    """Fill in, whatever is missing; what that stumbles over is the client's fault."""
    try:
        defaults.fill(resource, obj)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f'{resource.kind} "{name_of(obj)}" is invalid: {error!r}: Required value'
        raise ApiError(422, message) from error


def _sized(obj: Obj) -> None:
    if len(json.dumps(obj)) > OBJECT_LIMIT:
        raise ApiError(500, "etcdserver: request is too large", "InternalError")


def _evict(world: World, call: Call) -> Obj:
    target = call.target
    pod = world.store.get(target.resource, target.namespace, target.name)
    options = at(call.request.value(), "deleteOptions") or {}
    delete(world.store, target.resource, pod, options, world.clock.time())
    return success()


def _token(world: World, call: Call) -> Obj:
    target = call.target
    world.store.get(target.resource, target.namespace, target.name)
    obj: Obj = call.request.value() or {}
    spec = {"audiences": [], "expirationSeconds": 3600, **(obj.get("spec") or {})}
    token = world.tokens.issue(account(target.namespace, target.name))
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": target.name, "namespace": target.namespace},
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": world.now()},
    }


def _access(world: World, user: User, obj: Obj) -> Obj:
    return {"status": review(world.store, user, at(obj, "spec", "resourceAttributes") or {})}


def _rules(world: World, user: User, obj: Obj) -> Obj:
    from cvl.testing.kubernetes.access import rules as held

    found = [*held(world.store, user, at(obj, "spec", "namespace") or "")]
    return {"status": {"resourceRules": found, "nonResourceRules": [], "incomplete": False}}


def _self(_world: World, user: User, _obj: Obj) -> Obj:
    return {"status": {"userInfo": {"username": user.name, "groups": list(user.groups)}}}


_REVIEWS: Mapping[Resource, Callable[[World, User, Obj], Obj]] = {
    ACCESS_REVIEWS: _access,
    RULES_REVIEWS: _rules,
    SELF_REVIEWS: _self,
}
_SUBRESOURCES: Mapping[str, Callable[[World, Call], Obj]] = {"eviction": _evict, "token": _token}
