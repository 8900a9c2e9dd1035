"""From a request to what goes back: keys, limits, faults, the operation, the log.

Knows nothing of sockets: `answer` returns what to do to the connection.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from cvl.testing.clock import Clock
from cvl.testing.lambda_cloud.faults import HARMLESS, SHOWN, WIRE, Fault, What
from cvl.testing.lambda_cloud.limits import Pace
from cvl.testing.lambda_cloud.operations import perform
from cvl.testing.lambda_cloud.replies import INVALID, MISSING, ApiError, Reply, failure, success
from cvl.testing.lambda_cloud.schema import Document
from cvl.testing.lambda_cloud.state import Cloud

PREFIX = "/api/v1"
EVENTS = "getAuditEvents"
"""The one operation here whose list comes in pages."""
ROUTES = (
    ("GET", "/instance-types", "listInstanceTypes"),
    ("GET", "/regions", "listRegions"),
    ("GET", "/images", "listImages"),
    ("GET", "/instances", "listInstances"),
    ("GET", "/instances/{id}", "getInstance"),
    ("POST", "/instances/{id}", "postInstance"),
    ("POST", "/instance-operations/launch", "launchInstance"),
    ("POST", "/instance-operations/terminate", "terminateInstance"),
    ("POST", "/instance-operations/restart", "restartInstance"),
    ("GET", "/ssh-keys", "listSSHKeys"),
    ("POST", "/ssh-keys", "addSSHKey"),
    ("DELETE", "/ssh-keys/{id}", "deleteSSHKey"),
    ("GET", "/file-systems", "listFilesystems"),
    ("POST", "/filesystems", "createFilesystem"),
    ("DELETE", "/filesystems/{id}", "filesystemDelete"),
    ("GET", "/audit-events", EVENTS),
)
OPTIONAL = ("name", "hostname", "tags")
REQUIRED = ("id", "instance_type")
SECRET = frozenset({"user_data", "private_key"})
GARBAGE = Reply(status=200, body=b"<html><body>It works!</body></html>")


class Moment(StrEnum):
    """When a hook is called."""

    RECEIVED = "received"  # nothing has happened yet
    DONE = "done"  # the effect has taken place; nothing was sent
    ANSWERED = "answered"  # the answer is on its way


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request in the log. Times are UTC epoch seconds; no key and no user_data is in it."""

    number: int
    method: str
    path: str
    operation: str
    body: object
    received: float
    port: int = 0
    answered: float | None = None
    status: int | None = None
    code: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came over the wire. `port` is the client's."""

    method: str
    path: str
    authorization: str = ""
    body: bytes = b""
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to do to the connection: send `reply` after `delay`, or what `act` says instead."""

    entry: Entry
    reply: Reply | None
    act: What | None = None
    delay: float = 0.0


Hook = Callable[[Entry, Moment], None]


class Api:
    """Answers requests, in any number of threads."""

    def __init__(self, cloud: Cloud, clock: Clock, document: Document | None) -> None:
        self.cloud = cloud
        self.log: list[Entry] = []
        self.hooks: list[Hook] = []
        self.violations: list[str] = []
        self.active = True
        self.key = cloud.settings.key
        self._clock = clock
        self._document = document
        self._lock = threading.Lock()
        self._pace = Pace(cloud.settings.request_interval, clock)
        self._launches = Pace(cloud.settings.launch_interval, clock)

    def answer(self, request: Request) -> Answer:
        """Return what goes back. Raises `Drop` when a hook does."""
        operation, params = route(request.method, request.path)
        body = _json(request.body)
        entry = self._note(request, operation, body)
        self.tell(entry, Moment.RECEIVED)
        fault = self.cloud.faults.take(operation, WIRE) if operation else None
        if fault is not None:
            entry.fault = fault.what.value
            if fault.what is What.LATE:
                self.cloud.later(fault.delay, lambda: self._quietly(operation, params, body))
                return Answer(entry=entry, reply=None, act=What.HANG)
            if not fault.after and fault.what not in HARMLESS:
                return self._strike(entry, fault, None)
        reply = self._reply(request, operation, params, body)
        self.tell(entry, Moment.DONE)
        if fault is not None:
            return self._strike(entry, fault, reply)
        return self._close(entry, Answer(entry=entry, reply=self._distort(entry, reply)))

    def tell(self, entry: Entry, moment: Moment) -> None:
        """Call the hooks."""
        for hook in tuple(self.hooks):
            hook(entry, moment)

    def _note(self, request: Request, operation: str, body: object) -> Entry:
        entry = Entry(
            number=0,
            method=request.method,
            path=request.path,
            operation=operation,
            body=_redacted(body),
            received=self._clock.time(),
            port=request.port,
        )
        with self._lock:
            entry.number = len(self.log) + 1
            self.log.append(entry)
        return entry

    def _reply(
        self, request: Request, operation: str, params: Mapping[str, str], body: object
    ) -> Reply:
        try:
            self._admit(request, operation)
            if not operation:
                return failure(ApiError(404, "global/not-found"))
            done = perform(self.cloud, operation, params, self._checked(operation, body))
            reply = success(done, **({"page_token": None} if operation == EVENTS else {}))
        except ApiError as error:
            reply = failure(error)
        if operation and self._document is not None:
            told = json.loads(reply.body)
            self._complain(self._document.reply(operation, reply.status, told))
        return reply

    def _admit(self, request: Request, operation: str) -> None:
        if not _knows(self.key, request.authorization):
            raise ApiError(401, "global/invalid-api-key")
        if not self.active:
            raise ApiError(403, "global/account-inactive")
        if not self._pace.admits():
            raise ApiError(429, "global/too-many-requests", "Too many requests.")
        if operation == "launchInstance" and not self._launches.admits():
            raise ApiError(429, "global/too-many-requests", "Too many launches.")

    def _checked(self, operation: str, body: object) -> Mapping[str, object]:
        if self._document is not None:
            complaints = self._document.request(operation, body)
            self._complain(complaints)
            if complaints:
                raise ApiError(400, INVALID, complaints[0])
        if body is None:
            return {}
        if not isinstance(body, dict):
            raise ApiError(400, INVALID, "The body is not a JSON object.")
        return body

    def _complain(self, complaints: list[str]) -> None:
        with self._lock:
            self.violations.extend(complaints)

    def _quietly(self, operation: str, params: Mapping[str, str], body: object) -> None:
        """Do what nobody hears the answer of."""
        with suppress(ApiError):
            perform(self.cloud, operation, params, self._checked(operation, body))

    def _strike(self, entry: Entry, fault: Fault, reply: Reply | None) -> Answer:
        """Return the answer that a wire fault makes of a reply; None: nothing was done."""
        if fault.what is What.HTTP:
            return self._close(entry, Answer(entry=entry, reply=_error(fault)))
        if fault.what is What.GARBAGE:
            return self._close(entry, Answer(entry=entry, reply=GARBAGE))
        if fault.what in HARMLESS:
            answer = Answer(entry=entry, reply=reply, act=fault.what, delay=fault.delay)
            return self._close(entry, answer)
        return Answer(entry=entry, reply=reply or GARBAGE, act=fault.what, delay=fault.delay)

    def _distort(self, entry: Entry, reply: Reply) -> Reply:
        """Return the reply as the armed faults show it."""
        struck = self.cloud.faults.take(entry.operation, SHOWN) if entry.operation else None
        if struck is None or reply.status != 200:
            return reply
        entry.fault = struck.what.value
        data = json.loads(reply.body)["data"]
        if struck.what is What.STALE:
            return success([]) if isinstance(data, list) else failure(ApiError(404, MISSING))
        for shown in data if isinstance(data, list) else [data]:
            _change(shown, struck.what)
        return success(data)

    def _close(self, entry: Entry, answer: Answer) -> Answer:
        if answer.reply is not None:
            entry.status, entry.code = answer.reply.status, answer.reply.code
        return answer


def _change(shown: dict[str, object], what: What) -> None:
    """Show an object otherwise than it is."""
    if what is What.UNKNOWN_STATUS and "status" in shown:
        shown["status"] = "hibernating"
    for field in {What.BARE: OPTIONAL, What.SENSELESS: REQUIRED}.get(what, ()):
        shown.pop(field, None)


def route(method: str, path: str) -> tuple[str, dict[str, str]]:
    """Return the operationId and the parameters of a request; "" for an unknown one."""
    plain = path.partition("?")[0]
    for verb, pattern, operation in ROUTES:
        found = re.fullmatch(PREFIX + pattern.replace("{id}", "(?P<id>[^/]+)"), plain)
        if verb == method and found:
            return operation, found.groupdict()
    return "", {}


def _knows(key: str, authorization: str) -> bool:
    """Return whether this is the key: as a bearer's, or as the user of Basic."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value).decode().partition(":")[0]
        except ValueError:
            return False
    return scheme.lower() in ("bearer", "basic") and value.strip() == key


def _json(body: bytes) -> object:
    if not body:
        return None
    try:
        value: object = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return value


def _redacted(body: object) -> object:
    if not isinstance(body, dict):
        return None
    return {k: f"<redacted:{k}>" if k in SECRET else v for k, v in body.items()}


def _error(fault: Fault) -> Reply:
    """Return an error as a fault wants it: without a code it is not even JSON."""
    if fault.code:
        return failure(ApiError(fault.status, fault.code))
    body = f"<html><head><title>{fault.status}</title></head></html>".encode()
    return Reply(status=fault.status, body=body, type="text/html")
