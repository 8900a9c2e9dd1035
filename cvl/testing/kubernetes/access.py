"""Who asks and what they may: tokens, service accounts and RBAC."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cvl.testing.kubernetes.objects import Obj, meta
from cvl.testing.kubernetes.requests import Request
from cvl.testing.kubernetes.resources import (
    BINDINGS,
    CLUSTER_BINDINGS,
    CLUSTER_ROLES,
    RESOURCES,
    ROLES,
    Resource,
)
from cvl.testing.kubernetes.statuses import ApiError, forbidden
from cvl.testing.kubernetes.store import Store

MASTERS = "system:masters"
ADMIN = "kubernetes-admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to do. `verb` is RBAC's."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class Tokens:
    """Bearer tokens and whose they are. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, User] = {}

    def issue(self, user: User) -> str:
        """Return a new token of theirs; older ones stay good."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._users[token] = user
        return token

    def revoke(self, token: str) -> None:
        """Let a token be good no more: 401 from now on."""
        with self._lock:
            self._users.pop(token, None)

    def user(self, authorization: str) -> User:
        """Return who sent that header. Raises `ApiError` 401."""
        scheme, _, token = authorization.partition(" ")
        with self._lock:
            user = self._users.get(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise ApiError(401, "Unauthorized")
        return user


def acting(user: User, request: Request) -> User:
    """Return whom a user acts as in a request. Raises `ApiError` 403 where they may not."""
    name = request.headers.get("impersonate-user", "")
    if not name:
        return user
    if MASTERS not in user.groups:
        raise ApiError(403, f'User "{user.name}" cannot impersonate resource "users"')
    groups = [each for each in request.headers.get("impersonate-group", "").split(", ") if each]
    return User(name=name, groups=(*groups, "system:authenticated"))


def account(namespace: str, name: str) -> User:
    """Return the user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(
        name=f"system:serviceaccount:{namespace}:{name}",
        groups=(*groups, "system:authenticated"),
    )


def may(store: Store, user: User, wish: Wish) -> bool:
    """Return whether a user may do that."""
    if MASTERS in user.groups:
        return True
    if wish.group in ("authorization.k8s.io", "authentication.k8s.io"):
        return True
    return any(_grants(rule, wish) for rule in rules(store, user, wish.namespace))


def demand(store: Store, user: User, resource: Resource, wish: Wish) -> None:
    """Raise `ApiError` 403 unless a user may do that."""
    if may(store, user, wish):
        return
    full = f"{wish.resource}/{wish.subresource}" if wish.subresource else wish.resource
    where = f'in the namespace "{wish.namespace}"' if wish.namespace else "at the cluster scope"
    why = (
        f'User "{user.name}" cannot {wish.verb} resource "{full}"'
        f' in API group "{wish.group}" {where}'
    )
    raise forbidden(resource, wish.name, why)


def rules(store: Store, user: User, namespace: str) -> Iterator[Obj]:
    """Return all rules that hold for a user in a namespace."""
    for binding in store.listed(CLUSTER_BINDINGS):
        if _bound(binding, user, ""):
            yield from _rules_of(store, binding, "")
    for binding in store.listed(BINDINGS, namespace) if namespace else []:
        if _bound(binding, user, namespace):
            yield from _rules_of(store, binding, namespace)


def review(store: Store, user: User, attributes: Mapping[str, Any]) -> Obj:
    """Return the status of a `SelfSubjectAccessReview`."""
    wish = Wish(
        verb=attributes.get("verb", ""),
        resource=attributes.get("resource", ""),
        group=attributes.get("group", ""),
        subresource=attributes.get("subresource", ""),
        namespace=attributes.get("namespace", ""),
        name=attributes.get("name", ""),
    )
    allowed = may(store, user, wish)
    return {"allowed": allowed, **({} if allowed else {"reason": ""})}


def _bound(binding: Obj, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        kind, name = subject["kind"], subject["name"]
        home = subject.get("namespace", namespace)
        if kind == "ServiceAccount" and user.name == f"system:serviceaccount:{home}:{name}":
            return True
        if (kind == "User" and name == user.name) or (kind == "Group" and name in user.groups):
            return True
    return False


def _rules_of(store: Store, binding: Obj, namespace: str) -> list[Obj]:
    reference = binding["roleRef"]
    cluster = reference["kind"] == "ClusterRole"
    home = "" if cluster else meta(binding).get("namespace", namespace)
    role = store.find(CLUSTER_ROLES if cluster else ROLES, home, reference["name"])
    return (role or {}).get("rules") or []


def _grants(rule: Mapping[str, Any], wish: Wish) -> bool:
    full = f"{wish.resource}/{wish.subresource}" if wish.subresource else wish.resource
    resources, names = rule.get("resources") or [], rule.get("resourceNames") or []
    return (
        _among(wish.verb, rule.get("verbs") or [])
        and _among(wish.group, rule.get("apiGroups") or [])
        and (_among(full, resources) or f"*/{wish.subresource}" in resources)
        and (not names or wish.name in names)
    )


def _among(word: str, words: list[str]) -> bool:
    return "*" in words or word in words


ROLES_AT_START: Mapping[str, list[Obj]] = {
    "cluster-admin": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    "view": [
        {
            "apiGroups": [group],
            "resources": [each.plural for each in RESOURCES if each.group == group],
            "verbs": ["get", "list", "watch"],
        }
        for group in ("", "batch")
    ],
}
"""The cluster roles that every cluster has (and that we need)."""
