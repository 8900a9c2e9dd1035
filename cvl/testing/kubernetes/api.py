"""From a request to what goes back: who asks, faults, the operation, the log.

Knows nothing of sockets: `answer` returns what to do to the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cvl.testing.kubernetes import operations
from cvl.testing.kubernetes.access import Wish, acting, demand
from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.discovery import OPEN, discover
from cvl.testing.kubernetes.faults import STREAM, WIRE, Fault, What
from cvl.testing.kubernetes.listing import listed, matching
from cvl.testing.kubernetes.objects import Obj, meta
from cvl.testing.kubernetes.remote import connection, log
from cvl.testing.kubernetes.requests import (
    CONNECTS,
    Reply,
    Request,
    Stream,
    Target,
    json_reply,
    target,
    verb,
)
from cvl.testing.kubernetes.resources import SECRETS
from cvl.testing.kubernetes.schema import META
from cvl.testing.kubernetes.statuses import REASONS, ApiError
from cvl.testing.kubernetes.streams import struck
from cvl.testing.kubernetes.tables import table
from cvl.testing.kubernetes.watch import Wanted, Watch
from cvl.testing.kubernetes.world import World

GARBAGE = Reply(status=200, body=b"<html><body>It works!</body></html>")
AS_TABLE = "as=table"
Shown = Callable[[Obj], Obj]


class Moment(StrEnum):
    """When a hook is called."""

    RECEIVED = "received"  # nothing has happened yet
    DONE = "done"  # the effect has taken place; nothing was sent
    ANSWERED = "answered"  # the answer is on its way, or, of a stream, at its end


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request in the log. Times are UTC epoch seconds; no token and no secret is in it."""

    number: int
    method: str
    path: str
    operation: str
    body: object
    received: float
    user: str = ""
    port: int = 0
    answered: float | None = None
    status: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to do to the connection: send `reply` after `delay`, or what `act` says instead."""

    entry: Entry
    reply: Reply | Stream | None
    act: What | None = None
    delay: float = 0.0


Hook = Callable[[Entry, Moment], None]


class Api:
    """Answers requests, in any number of threads."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.address = ""
        self.log: list[Entry] = []
        self.hooks: list[Hook] = []
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Return what goes back. Raises what a hook raises."""
        entry = self._note(request)
        self.tell(entry, Moment.RECEIVED)
        fault = self.world.faults.take(entry.operation, WIRE) if entry.operation else None
        if fault is not None:
            entry.fault = fault.what.value
            if fault.what is What.LATE:
                timer = threading.Timer(fault.delay, self._quietly, (request, entry))
                timer.daemon = True
                timer.start()
                return Answer(entry=entry, reply=None, act=What.LATE)
            if not fault.after and fault.what is not What.SLOW:
                return self._strike(entry, fault, None)
        reply = self._reply(request, entry)
        self.tell(entry, Moment.DONE)
        if fault is not None:
            return self._strike(entry, fault, reply)
        return self._close(entry, Answer(entry=entry, reply=reply))

    def tell(self, entry: Entry, moment: Moment) -> None:
        """Call the hooks."""
        for hook in tuple(self.hooks):
            hook(entry, moment)

    def _note(self, request: Request) -> Entry:
        operation, secret = _operation(request)
        body: object = None
        if not secret:
            with suppress(ApiError):
                body = request.value()
        entry = Entry(
            number=0,
            method=request.method,
            path=request.path,
            operation=operation,
            body=body,
            received=self.world.clock.time(),
            port=request.port,
        )
        with self._lock:
            entry.number = len(self.log) + 1
            self.log.append(entry)
        return entry

    def _reply(self, request: Request, entry: Entry) -> Reply | Stream:
        try:
            return self._perform(request, entry)
        except ApiError as error:
            reply = json_reply(error.status(), error.code)
            self._check_status(error.status())
            return reply

    def _perform(self, request: Request, entry: Entry) -> Reply | Stream:
        if request.route.rstrip("/") in OPEN:
            return discover(request, self.world.document, self.address) or GARBAGE
        user = acting(self.world.tokens.user(request.headers.get("authorization", "")), request)
        entry.user = user.name
        found = discover(request, self.world.document, self.address)
        if found is not None:
            return found
        aim = target(request.route)
        call = Call(request=request, target=aim, user=user, verb=verb(request, aim))
        self._check_request(call)
        demand(self.world.store, user, aim.resource, _wish(call))
        return self._answered(call)

    def _answered(self, call: Call) -> Reply | Stream:
        if call.target.subresource == "log":
            return self._struck(call, log(self.world, call))
        if call.target.subresource in CONNECTS:
            return connection(self.world, call)
        if call.verb == "watch" or (call.verb == "get" and call.request.flag("watch")):
            return self._struck(call, self._watch(call))
        if call.verb in ("list", "deletecollection"):
            many = listed if call.verb == "list" else operations.remove_all
            objects, about = many(self.world, call)
            return json_reply(self._list(call, objects, about))
        made = _ONE[call.verb](self.world, call)
        shown = self._shown(call)(made) if made.get("kind") != "Status" else made
        return json_reply(shown, 201 if call.created else 200, _warnings(call))

    def _struck(self, call: Call, stream: Stream) -> Stream:
        fault = self.world.faults.take(call.operation, STREAM)
        return struck(self.world, stream, fault) if fault else stream

    def _list(self, call: Call, objects: list[Obj], about: Obj) -> Obj:
        if _wants_table(call.request):
            made = table(
                call.target.resource, objects, about["resourceVersion"], self.world.clock.time()
            )
            return {**made, "metadata": about}
        resource = call.target.resource
        items = [
            {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
            for obj in objects
        ]
        kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return {**kind, "metadata": about, "items": items}

    def _shown(self, call: Call) -> Shown:
        """Return how objects are shown: as they are, or as tables of one row."""
        if not _wants_table(call.request):
            return lambda obj: obj

        def row(obj: Obj) -> Obj:
            version = meta(obj).get("resourceVersion", "")
            return table(call.target.resource, [obj], version, self.world.clock.time())

        return row

    def _watch(self, call: Call) -> Stream:
        request = call.request
        start = request.first("resourceVersion")
        seconds = request.number("timeoutSeconds")
        initial = request.flag("sendInitialEvents")
        try:
            version = int(start) if start not in ("", "0") and not initial else None
        except ValueError as error:
            raise ApiError(400, f"Invalid value: {start!r}: invalid resourceVersion") from error
        wanted = Wanted(
            resource=call.target.resource,
            namespace=call.target.namespace,
            matches=matching(call),
            start=version,
            seconds=float(seconds) if seconds is not None and seconds > 0 else None,
            bookmarks=request.flag("allowWatchBookmarks"),
            initial=initial,
            shown=self._shown(call),
        )
        watch = Watch(self.world.store, self.world.clock, wanted)
        return Stream(run=watch.run)

    def _check_request(self, call: Call) -> None:
        document = self.world.document
        if document is None or not self.world.settings.check or call.target.subresource in CONNECTS:
            return
        request = call.request
        wrong = document.request(request.method, request.route, list(request.query))
        self.world.complain(*wrong)

    def _check_status(self, status: Obj) -> None:
        if self.world.document is not None:
            found = self.world.document.object(f"{META}Status", status)
            self.world.complain(*(f"Status: {each}" for each in found.all))

    def _quietly(self, request: Request, entry: Entry) -> None:
        """Do what nobody hears the answer of."""
        self._reply(request, entry)

    def _strike(self, entry: Entry, fault: Fault, reply: Reply | Stream | None) -> Answer:
        """Return the answer that a wire fault makes of a reply; None: nothing was done."""
        if fault.what is What.HTTP:
            return self._close(entry, Answer(entry=entry, reply=_error(fault)))
        if fault.what is What.GARBAGE:
            return self._close(entry, Answer(entry=entry, reply=GARBAGE))
        if fault.what is What.SLOW:
            return self._close(entry, Answer(entry=entry, reply=reply, delay=fault.delay))
        return Answer(entry=entry, reply=reply or GARBAGE, act=fault.what)

    def _close(self, entry: Entry, answer: Answer) -> Answer:
        entry.status = answer.reply.status if isinstance(answer.reply, Reply) else 200
        return answer


def _operation(request: Request) -> tuple[str, bool]:
    """Return what faults and the log call a request, "" for discovery; and whether it is secret."""
    try:
        aim = target(request.route)
        part = f"/{aim.subresource}" if aim.subresource else ""
        word = f"{verb(request, aim)} {aim.resource.plural}{part}"
        return word, aim.resource is SECRETS or aim.subresource == "token"
    except ApiError:
        return "", False


def _wish(call: Call) -> Wish:
    aim: Target = call.target
    return Wish(
        verb=call.verb,
        resource=aim.resource.plural,
        group=aim.resource.group,
        subresource=aim.subresource,
        namespace=aim.namespace,
        name=aim.name,
    )


def _wants_table(request: Request) -> bool:
    return AS_TABLE in request.headers.get("accept", "").lower().replace(" ", "")


def _warnings(call: Call) -> Mapping[str, str]:
    told = ", ".join(f'299 - "{_escaped(each)}"' for each in call.warnings)
    return {"Warning": told} if told else {}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _error(fault: Fault) -> Reply:
    """Return an error as a fault wants it."""
    message = fault.message or f"injected: {REASONS.get(fault.status, 'error')}"
    status = ApiError(fault.status, message, fault.reason)
    if fault.retry_after is not None:
        status.details["retryAfterSeconds"] = fault.retry_after
        headers = {"Retry-After": str(fault.retry_after)}
        return json_reply(status.status(), fault.status, headers)
    return json_reply(status.status(), fault.status)


_ONE: Mapping[str, Callable[[World, Call], Any]] = {
    "get": operations.get,
    "create": operations.create,
    "update": operations.replace,
    "patch": operations.patch,
    "delete": operations.remove,
}
