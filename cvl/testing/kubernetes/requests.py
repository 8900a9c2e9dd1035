"""From the wire to a question: what is asked of which object; and what can go back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from cvl.testing.kubernetes.patches import APPLY
from cvl.testing.kubernetes.resources import BY_PATH, NAMESPACES, Resource
from cvl.testing.kubernetes.statuses import ApiError, no_such_path

TRUE = ("true", "1", "t", "T", "TRUE", "True")
YAML = ("application/yaml", *APPLY)
CONNECTS = ("exec", "attach")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came over the wire. `port` is the client's."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    body: bytes = b""
    port: int = 0

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
        return self.first(key) in TRUE

    def number(self, key: str) -> int | None:
        """Return a parameter that is a number. Raises `ApiError` 400."""
        text = self.first(key)
        if not text:
            return None
        try:
            return int(text)
        except ValueError as error:
            message = f'strconv.ParseInt: parsing "{text}": invalid syntax'
            raise ApiError(400, message) from error

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def value(self) -> Any:
        """Return the body as JSON, or YAML where that is said. Raises `ApiError` 400, 415."""
        if not self.body:
            return None
        if "protobuf" in self.content_type or "cbor" in self.content_type:
            message = "the body of the request was in an unknown format"
            raise ApiError(415, f"{message} - accepted media types include: application/json")
        try:
            return _yaml(self.body) if self.content_type in YAML else json.loads(self.body)
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


class Wire(Protocol):
    """A connection that an answer is streamed into."""

    def send(self, data: bytes) -> None:
        """Send some of the body. Raises `OSError` when the client has gone."""

    def ended(self) -> bool:
        """Return whether the server ends."""

    def gone(self) -> bool:
        """Return whether the client has gone, or the server ends. Not for upgraded connections."""

    def wait(self, *others: int, seconds: float) -> bool:
        """Wait until one of these descriptors has something, or the client has; or in vain."""

    def receive(self) -> bytes:
        """Return what the client has sent, b"" if it has closed. For upgraded connections."""

    def raw(self, data: bytes) -> None:
        """Send bytes as they are. For upgraded connections."""

    def reset(self) -> None:
        """Break the connection, so that the client sees it broken. Raises `OSError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is whole."""

    status: int
    body: bytes
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer that is produced while it is sent. `upgrade` leaves the connection to `run`."""

    run: Callable[[Wire], None]
    type: str = "application/json"
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
    if subresource and subresource not in (*resource.subresources, "finalize"):
        raise no_such_path()
    return Target(resource=resource, namespace=namespace, name=name, subresource=subresource)


def verb(request: Request, target: Target) -> str:
    """Return RBAC's word for a request. Raises `ApiError` 405."""
    if target.subresource in CONNECTS:
        return "create" if request.method == "POST" else "get"
    if request.method == "GET":
        if not target.name and (request.flag("watch")):
            return "watch"
        return "get" if target.name else "list"
    words = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    found = words.get(request.method, "")
    if found == "delete" and not target.name:
        found = "deletecollection"
    misplaced = (found in ("update", "patch")) != bool(target.name) and found in ("update", "patch")
    beside = found == "create" and target.name and not target.subresource
    if found not in target.resource.verbs or misplaced or beside:
        raise ApiError(405, "the server does not allow this method on the requested resource")
    return found


def _yaml(body: bytes) -> Any:
    import yaml

    try:
        return yaml.safe_load(body)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
