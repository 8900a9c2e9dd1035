"""Who asks and what they may: tokens, impersonation and RBAC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.requests import Request, Target
from cvl.testing.kubernetes.resources import ACCESS_REVIEWS, BINDINGS, REVIEWS, ROLES, Resource
from cvl.testing.kubernetes.statuses import ApiError, forbidden
from cvl.testing.kubernetes.store import Store

MASTERS = "system:masters"
EVERYBODY = "system:authenticated"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = (EVERYBODY,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to do, in RBAC's words; `what` as `pods/log`."""

    verb: str
    group: str
    what: str
    namespace: str
    name: str


def asking(tokens: Mapping[str, User], request: Request) -> User:
    """Return who asks, or whom they act as. Raises `ApiError` 401, 403."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    user = tokens.get(token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise ApiError(401, "Unauthorized")
    name = request.headers.get("impersonate-user", "")
    if not name:
        return user
    if MASTERS not in user.groups:
        raise ApiError(403, f'User "{user.name}" cannot impersonate resource "users"')
    groups = [each for each in request.headers.get("impersonate-group", "").split(", ") if each]
    return User(name=name, groups=(*groups, EVERYBODY))


def demand(store: Store, user: User, verb: str, target: Target) -> None:
    """Raise `ApiError` 403 unless a user may do that."""
    resource = target.resource
    wish = Wish(
        verb=verb,
        group=resource.group,
        what="/".join(filter(None, (resource.plural, target.subresource))),
        namespace=target.namespace,
        name=target.name,
    )
    if resource in REVIEWS or _may(store, user, wish):
        return
    where = f'in the namespace "{wish.namespace}"' if wish.namespace else "at the cluster scope"
    why = (
        f'User "{user.name}" cannot {verb} resource "{wish.what}"'
        f' in API group "{wish.group}" {where}'
    )
    raise forbidden(resource, wish.name, why)


def review(store: Store, user: User, resource: Resource, spec: Mapping[str, Any]) -> Obj:
    """Return the status of a review: whether a user may do one thing, or all that they may."""
    if resource is not ACCESS_REVIEWS:
        rules = [*_rules(store, user, spec.get("namespace") or "")]
        if MASTERS in user.groups:
            rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        return {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}
    told = spec.get("resourceAttributes") or {}
    wish = Wish(
        **{name: told.get(name, "") for name in ("verb", "group", "namespace", "name")},
        what="/".join(filter(None, (told.get("resource"), told.get("subresource")))),
    )
    return {"allowed": _may(store, user, wish)}


def _may(store: Store, user: User, wish: Wish) -> bool:
    rules = _rules(store, user, wish.namespace)
    return MASTERS in user.groups or any(_grants(rule, wish) for rule in rules)


def _rules(store: Store, user: User, namespace: str) -> Iterator[Obj]:
    """Return all rules that hold for a user in a namespace."""
    for binding in store.listed(BINDINGS, namespace) if namespace else []:
        if any(_is(subject, user) for subject in binding.get("subjects") or []):
            role = store.find(ROLES, namespace, binding["roleRef"]["name"])
            yield from (role or {}).get("rules") or []


def _is(subject: Mapping[str, Any], user: User) -> bool:
    kind, name = subject["kind"], subject["name"]
    return (kind == "User" and name == user.name) or (kind == "Group" and name in user.groups)


def _grants(rule: Mapping[str, Any], wish: Wish) -> bool:
    resources, names = rule.get("resources") or [], rule.get("resourceNames") or []
    return (
        _among(wish.verb, rule.get("verbs") or [])
        and _among(wish.group, rule.get("apiGroups") or [])
        and (_among(wish.what, resources) or f"*/{wish.what.partition('/')[2]}" in resources)
        and (not names or wish.name in names)
    )


def _among(word: str, words: list[str]) -> bool:
    return "*" in words or word in words
