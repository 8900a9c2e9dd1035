"""The API of one cluster as one user: a handful of requests, and the bytes of a log as they come.

A request is repeated here only where that is safe; whoever creates something decides for himself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cvl.core import replies
from cvl.core.errors import Rejected, Unreachable
from cvl.core.http.errors import reason
from cvl.core.http.pool import CONNECT_LIMIT
from cvl.core.octets import to_send
from cvl.core.paths import absolutes
from cvl.core.retry import repeated
from cvl.core.scope import Clock, SystemClock
from cvl.core.server_clock import ServerClock
from cvl.core.units import variable
from cvl.providers.kubernetes.api_errors import understandable, understood
from cvl.providers.kubernetes.kubeconfig import Access, configured
from cvl.providers.kubernetes.login import Door, Doors

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

Object = Mapping[str, Any]
"""An object of the API, as JSON has it."""
Query = Mapping[str, str]

READ_LIMIT = variable("CVL_KUBE_READ", 30)
"""Seconds that the API server may take for an answer."""
PAUSES = (0.3, 1.0, 2.0)
"""Seconds between the attempts of a request that may be repeated."""
MERGE = "application/merge-patch+json"
BLOCK = 1 << 16
LONGEST = 1 << 25
"""Bytes of one answer; a page has 500 objects."""
VALUES = 1_000_000
"""Values in one answer: a pod has some 500."""
MOST_PAGES = 1000


def api_path(kind: str, namespace: str = "", name: str = "") -> str:
    """Return where the API has the objects of a kind (`pods`), or the one of that name."""
    root = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
    below = f"namespaces/{namespace}/" if namespace else ""
    return f"{root}/{below}{kind}" + (f"/{name}" if name else "")


class Client:
    """A cluster. Connects on first use; may be shared by threads."""

    def __init__(
        self,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """`context` None is the current one; `kubeconfig` None what the environment names."""
        self._file = absolutes(str(kubeconfig)) if kubeconfig else None
        self._context = context
        self.clock = clock or SystemClock()
        self.doors = Doors(context, self._file, self.clock)
        self._server = ServerClock(self.clock)
        self._uids: dict[tuple[str, bytes | None], str] = {}

    @property
    def access(self) -> Access:
        """Where this is, and as whom. Raises `UsageError`."""
        return self.doors.access

    @property
    def address(self) -> Mapping[str, str]:
        """What finds this cluster again from another process; no secrets. Raises `UsageError`."""
        return {"context": self.access.context, "kubeconfig": self._file or ""}

    @property
    def namespace(self) -> str:
        """The context's own namespace, as kubectl takes it; `default` where there is none.

        Raises `UsageError`, but not where nothing on this machine speaks of a cluster.
        """
        chosen = self._context or self._file
        return (self.access.namespace if chosen or configured() else "") or "default"

    def now(self) -> float:
        """Return UTC epoch seconds by the API server's clock, as it last answered (`Date`)."""
        return self._server.now()

    def uid(self, *, patient: bool = True) -> str:
        """Return the uid of kube-system, which is the cluster's own; "" where none may be read.

        Asked until there is an answer. Raises `Unreachable` and `AuthError`; at the first
        failure, unless `patient`.
        """
        access, ask = self.access, self._patient if patient else self._once
        at = (access.server, access.data(access.cluster, "certificate-authority"))
        if at not in self._uids:  # another cluster may be at this address by now
            try:
                namespace = ask("GET", api_path("namespaces", name="kube-system"), {})
            except Rejected:
                namespace = {}
            self._uids[at] = replies.text(replies.entry(namespace.get("metadata")).get("uid"))
        return self._uids[at]

    def get(self, path: str, **query: str) -> Object:
        """Return an object. Raises `CvlError` as `api_errors.understood` says."""
        return self._patient("GET", path, query)

    def items(self, path: str, **query: str) -> Iterator[Object]:
        """Yield a list's objects, page by page."""
        more: Query = {"limit": "500"}
        for _ in range(MOST_PAGES):
            page = self.get(path, **query, **more)
            objects = page.get("items") or []
            if not isinstance(objects, list):
                raise Unreachable("the API server's list makes no sense")
            yield from objects
            if not (token := replies.text(replies.entry(page.get("metadata")).get("continue"))):
                return
            more = {"limit": "500", "continue": token}
        raise Unreachable("the API server's list has no end")

    def create(self, path: str, body: Object) -> Object:
        """Create an object, sent once: `Unreachable` leaves open whether anything came of it."""
        return self._once("POST", path, {}, body)

    def review(self, path: str, body: Object) -> Object:
        """Post a question: nothing is created."""
        return self._patient("POST", path, {}, body)

    def patch(self, path: str, body: Object) -> Object:
        """Merge `body` into an object."""
        return self._patient("PATCH", path, {}, body, MERGE)

    def delete(
        self, path: str, uid: str = "", propagation: str = "Foreground", *, grace: int | None = None
    ) -> None:
        """Delete an object, if it is still the one with that uid. Raises `Missing`, `Taken`.

        `grace`, in seconds, stands for a pod's own.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options["propagationPolicy"] = propagation
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        self._patient("DELETE", path, {}, options)

    @contextmanager
    def stream(self, path: str, read_limit: float, **query: str) -> Iterator[Stream]:
        """Yield a body that is read as it comes. Raises as `get`, and `Unreachable` while read."""
        response = self._send("GET", path, query, read_limit=read_limit)
        try:
            yield Stream(response)
        finally:
            response.close()

    def _patient(
        self, method: str, path: str, query: Query, body: Object | None = None, kind: str = ""
    ) -> Object:
        return repeated(lambda: self._once(method, path, query, body, kind), PAUSES, self.clock)

    def _once(
        self, method: str, path: str, query: Query, body: Object | None = None, kind: str = ""
    ) -> Object:
        response = self._send(method, path, query, body, kind)
        try:
            return _json(_read(response))
        finally:
            response.release_conn()

    def _send(
        self,
        method: str,
        path: str,
        query: Query,
        body: Object | None = None,
        kind: str = "",
        *,
        read_limit: float = READ_LIMIT,
    ) -> BaseHTTPResponse:
        """Send a request, twice where the first is refused for who we are and that has changed.

        Raises as `api_errors` says, also for what an answer means.
        """
        from urllib3 import HTTPHeaderDict
        from urllib3.util import Timeout

        own = [("Accept", "application/json, */*")]
        own += [] if body is None else [("Content-Type", kind or "application/json")]
        data = None if body is None else to_send(body, "Kubernetes")

        def ask(door: Door) -> BaseHTTPResponse:
            with understandable(door.access.server):
                response = door.pool.request(
                    method,
                    door.access.server + path + (f"?{urlencode(query)}" if query else ""),
                    body=data,
                    headers=HTTPHeaderDict([*door.headers, *own]),
                    timeout=Timeout(connect=CONNECT_LIMIT, read=read_limit),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            self._server.heard(response.headers)
            return _judged(response)

        return self.doors.through(ask)


class Stream:
    """A body that is read while it is written."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def blocks(self) -> Iterator[bytes]:
        """Yield what has come, as soon as anything has. Raises `Unreachable` when it breaks."""
        try:
            while block := self._response.read1(BLOCK):
                yield block
        except Exception as error:
            raise Unreachable(f"the connection broke: {reason(error)}") from error

    def end(self) -> None:
        """End the reading, from any thread."""
        try:
            self._response.shutdown()
        except (OSError, RuntimeError, ValueError):
            self._response.close()


def _judged(response: BaseHTTPResponse) -> BaseHTTPResponse:
    """Return an answer that is no refusal. Raises `CvlError` for one."""
    if response.status < HTTPStatus.MULTIPLE_CHOICES:
        return response
    try:
        error = understood(response.status, _read(response))
    finally:
        response.release_conn()
    error.wait = replies.asked_to_wait(response.headers)
    raise error


def _read(response: BaseHTTPResponse) -> bytes:
    try:
        return replies.taken(response.stream(BLOCK), LONGEST)
    except replies.TooLong as error:
        response.close()
        raise Unreachable(f"the API server answered {error}") from None
    except Exception as error:
        raise Unreachable(f"the API server's answer broke off: {reason(error)}") from error


def _json(body: bytes) -> Object:
    try:
        answer = replies.parsed(body, VALUES)
    except ValueError as error:
        raise Unreachable("the API server's answer makes no sense") from error
    if not isinstance(answer, dict):
        raise Unreachable("the API server's answer is no object")
    return answer
