"""From a request to what goes back: who asks, faults, the operation, the log.

Knows nothing of sockets: `answer` returns what to do to the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from cvl.testing.kubernetes import operations
from cvl.testing.kubernetes.access import asking, demand
from cvl.testing.kubernetes.calls import Call, operation
from cvl.testing.kubernetes.faults import STREAM, WIRE, Fault, What, struck
from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.remote import connection, log
from cvl.testing.kubernetes.requests import Reply, Request, Stream, json_reply, target, verb
from cvl.testing.kubernetes.resources import SECRETS
from cvl.testing.kubernetes.schema import META
from cvl.testing.kubernetes.statuses import REASONS, ApiError
from cvl.testing.kubernetes.world import World

GARBAGE = Reply(status=200, body=b"<html><body>It works!</body></html>")
VERSION = {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}


class Moment(StrEnum):
    """When a hook is called."""

    RECEIVED = "received"  # nothing has happened yet
    DONE = "done"  # the effect has taken place; nothing was sent


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request in the log; no token and no secret is in it."""

    method: str
    path: str
    operation: str
    body: object
    user: str = ""
    status: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to do to the connection: send `reply` after `delay`, or what `act` says instead."""

    reply: Reply | Stream | None
    act: What | None = None
    delay: float = 0.0


Hook = Callable[[Entry, Moment], None]


class Api:
    """Answers requests, in any number of threads."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log: list[Entry] = []
        self.hooks: list[Hook] = []

    def answer(self, request: Request) -> Answer:
        """Return what goes back. Raises what a hook raises."""
        entry = _noted(request)
        self.log.append(entry)
        self._tell(entry, Moment.RECEIVED)
        fault = self.world.faults.take(entry.operation, WIRE) if entry.operation else None
        if fault is not None:
            entry.fault = fault.what.value
            if fault.what is What.LATE:
                timer = threading.Timer(fault.delay, self._reply, (request, entry))
                timer.daemon = True
                timer.start()
                return Answer(reply=None, act=What.LATE)
            if not fault.after and fault.what is not What.SLOW:
                return _answered(entry, _struck(fault, None))
        reply = self._reply(request, entry)
        self._tell(entry, Moment.DONE)
        return _answered(entry, _struck(fault, reply) if fault else Answer(reply=reply))

    def _tell(self, entry: Entry, moment: Moment) -> None:
        for hook in tuple(self.hooks):
            hook(entry, moment)

    def _reply(self, request: Request, entry: Entry) -> Reply | Stream:
        try:
            return self._perform(request, entry)
        except ApiError as error:
            self._check_status(error.status())
            return json_reply(error.status(), error.code)

    def _perform(self, request: Request, entry: Entry) -> Reply | Stream:
        if request.route == "/version":  # told to everybody
            return json_reply(VERSION)
        user = asking(self.world.tokens, request)
        entry.user = user.name
        aim = target(request.route)
        call = Call(request=request, target=aim, user=user, verb=verb(request, aim))
        self._check_request(call)
        demand(self.world.store, user, call.verb, aim)
        if aim.subresource == "log":
            stream, fault = log(self.world, call), self.world.faults.take(entry.operation, STREAM)
            return struck(self.world.faults, stream, fault) if fault else stream
        if aim.subresource == "exec":
            return connection(self.world, call)
        made = _OPERATIONS[call.verb](self.world, call)
        return json_reply(made, 201 if call.verb == "create" else 200)

    def _check_request(self, call: Call) -> None:
        document = self.world.document
        if document is not None and call.target.subresource != "exec":
            request = call.request
            wrong = document.request(request.method, request.route, list(request.query))
            self.world.complain(*wrong)

    def _check_status(self, status: Obj) -> None:
        if self.world.document is not None:
            found = self.world.document.object(f"{META}Status", status)
            self.world.complain(*(f"Status: {each}" for each in found.all))


def _noted(request: Request) -> Entry:
    """Return what is noted of a request; `operation` is "" where there is none."""
    name, body = "", None
    with suppress(ApiError):
        aim = target(request.route)
        name = operation(verb(request, aim), aim)
        body = None if aim.resource is SECRETS else request.value()
    return Entry(method=request.method, path=request.path, operation=name, body=body)


def _answered(entry: Entry, answer: Answer) -> Answer:
    """Note the status that a client hears, if it hears any."""
    if answer.act is None:
        entry.status = answer.reply.status if isinstance(answer.reply, Reply) else 200
    return answer


def _struck(fault: Fault, reply: Reply | Stream | None) -> Answer:
    """Return the answer that a wire fault makes of a reply; None: nothing was done."""
    if fault.what is What.HTTP:
        return Answer(reply=_error(fault))
    if fault.what is What.GARBAGE:
        return Answer(reply=GARBAGE)
    if fault.what is What.SLOW:
        return Answer(reply=reply, delay=fault.delay)
    return Answer(reply=reply or GARBAGE, act=fault.what)


def _error(fault: Fault) -> Reply:
    """Return an error as a fault wants it."""
    message = fault.message or f"injected: {REASONS.get(fault.status, 'error')}"
    status = ApiError(fault.status, message, fault.reason)
    if fault.retry_after is None:
        return json_reply(status.status(), fault.status)
    status.details["retryAfterSeconds"] = fault.retry_after
    return json_reply(status.status(), fault.status, {"Retry-After": str(fault.retry_after)})


_OPERATIONS: Mapping[str, Callable[[World, Call], Obj]] = {
    "get": operations.get,
    "list": operations.listed,
    "create": operations.create,
    "patch": operations.patch,
    "delete": operations.remove,
}
