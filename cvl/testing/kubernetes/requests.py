"""From the wire to a question: what is asked of which object; and what can go back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cvl.testing.kubernetes.resources import BY_PATH, NAMESPACES, REVIEWS, Resource
from cvl.testing.kubernetes.statuses import ApiError, no_such_path
from cvl.testing.kubernetes.wire import Wire

VERBS: Mapping[str, str] = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    body: bytes = b""

    @property
    def route(self) -> str:
        return urlsplit(self.path).path

    @property
    def query(self) -> Mapping[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def first(self, key: str) -> str:
        """Return a parameter's first value, "" if it is not there."""
        return self.query.get(key, [""])[0]

    def flag(self, key: str) -> bool:
        return self.first(key) in ("true", "1")

    def number(self, key: str) -> int | None:
        """Return a parameter that is a number. Raises `ApiError` 400."""
        text = self.first(key)
        try:
            return int(text) if text else None
        except ValueError as error:
            message = f'strconv.ParseInt: parsing "{text}": invalid syntax'
            raise ApiError(400, message) from error

    def value(self) -> Any:
        """Return the body. Raises `ApiError` 400, and 415 for a patch of another kind."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = MERGE if self.method == "PATCH" else "application/json"
        if not self.body:
            return None
        if kind != wanted:
            message = "the body of the request was in an unknown format"
            raise ApiError(415, f"{message} - accepted media types include: {wanted}")
        try:
            return json.loads(self.body)
        except ValueError as error:
            message = "the object provided is unrecognized (must be of type Status)"
            raise ApiError(400, f"{message}: couldn't get version/kind; {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request is about. `name` is "" for all of a kind."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is whole."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer that is produced while it is sent. `upgrade` leaves the connection to `run`."""

    run: Callable[[Wire], None]
    upgrade: bool = False


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a value as a whole answer."""
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Reply(status=status, body=body, headers=headers or {})


def target(route: str) -> Target:
    """Return what a path is about. Raises `ApiError` 404."""
    parts = [unquote(part) for part in route.strip("/").split("/")]
    version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    if parts[0] not in ("api", "apis") or (parts[0] == "api" and parts[1:2] != ["v1"]) or not rest:
        raise no_such_path()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and (version, rest[2]) in BY_PATH:
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get((version, rest[0]))
    if resource is None or len(rest) > 3 or "" in rest:
        raise no_such_path()
    name, subresource = (*rest[1:], "", "")[:2]
    if resource is NAMESPACES:
        namespace = ""
    elif resource.namespaced and name and not namespace:
        raise no_such_path()
    if subresource and subresource not in resource.subresources:
        raise no_such_path()
    return Target(resource=resource, namespace=namespace, name=name, subresource=subresource)


def verb(request: Request, target: Target) -> str:
    """Return RBAC's word for a request. Raises `ApiError` 405 for what this server has not."""
    if target.subresource:
        found = "get" if request.method == "GET" else ""
    elif request.method == "GET":
        found = "get" if target.name else "list"
    else:
        found = VERBS.get(request.method, "")
    misplaced = (found == "create") == bool(target.name) if found in VERBS.values() else False
    asked = target.resource in REVIEWS and found != "create"
    if not found or misplaced or asked or request.flag("watch"):
        raise ApiError(405, "the server does not allow this method on the requested resource")
    return found
