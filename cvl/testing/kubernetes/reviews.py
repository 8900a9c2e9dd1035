"""What is asked of the server rather than stored: reviews, tokens, evictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cvl.testing.kubernetes.access import User, account, review, rules
from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.deleting import delete
from cvl.testing.kubernetes.objects import Obj, at
from cvl.testing.kubernetes.resources import (
    ACCESS_REVIEWS,
    RULES_REVIEWS,
    SELF_REVIEWS,
    Resource,
)
from cvl.testing.kubernetes.statuses import success
from cvl.testing.kubernetes.world import World


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
    found = [*rules(world.store, user, at(obj, "spec", "namespace") or "")]
    return {"status": {"resourceRules": found, "nonResourceRules": [], "incomplete": False}}


def _self(_world: World, user: User, _obj: Obj) -> Obj:
    return {"status": {"userInfo": {"username": user.name, "groups": list(user.groups)}}}


REVIEWS: Mapping[Resource, Callable[[World, User, Obj], Obj]] = {
    ACCESS_REVIEWS: _access,
    RULES_REVIEWS: _rules,
    SELF_REVIEWS: _self,
}
SUBRESOURCES: Mapping[str, Callable[[World, Call], Obj]] = {"eviction": _evict, "token": _token}
