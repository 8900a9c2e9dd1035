"""What the tests of the fake API server share: a client that is a stranger to it, and objects."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from cvl.testing.kubernetes import KubernetesCluster

LIMIT = 30.0
"""Seconds: far more than anything takes, for a machine that has a lot to do."""

JOBS, PODS = "/apis/batch/v1/namespaces/default/jobs", "/api/v1/namespaces/default/pods"
Obj = dict[str, Any]


class Client:
    """Speaks HTTP to the server: a connection for each request."""

    def __init__(self, cluster: KubernetesCluster, token: str = "", timeout: float = LIMIT) -> None:
        self._port, self._timeout = cluster.port, timeout
        self.token = token or cluster.admin_token
        self._tls = ssl.create_default_context(cadata=cluster.authority.decode())
        self.headers: Mapping[str, str] = {}

    def open(
        self,
        method: str,
        path: str,
        body: object = None,
        kind: str = "application/json",
        **query: object,
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """Return the connection and the reply, of which only the head is read."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=self._timeout, context=self._tls
        )
        data = None if body is None else json.dumps(body)
        head = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, **self.headers}
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, data, head)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def raw(
        self, method: str, path: str, body: object = None, **query: object
    ) -> tuple[int, bytes]:
        """Return status and body."""
        connection, reply = self.open(method, path, body, **query)  # type: ignore[arg-type]
        try:
            return reply.status, reply.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None, **query: object) -> tuple[int, Obj]:
        """Return status and object."""
        status, data = self.raw(method, path, body, **query)
        return status, json.loads(data)

    def ok(self, method: str, path: str, body: object = None, **query: object) -> Obj:
        """Return the object of a reply that must be a good one."""
        status, found = self.call(method, path, body, **query)
        assert status < 300, found
        return found

    def refused(
        self, method: str, path: str, body: object = None, **query: object
    ) -> tuple[int, str, str]:
        """Return code, reason and message of a refusal."""
        status, found = self.call(method, path, body, **query)
        assert found["kind"] == "Status", found
        assert found["code"] == status
        return status, found["reason"], found["message"]

    def patch(self, path: str, patch: object, kind: str = "merge-patch", **query: object) -> Obj:
        """Patch an object; return it."""
        connection, reply = self.open("PATCH", path, patch, f"application/{kind}+json", **query)
        found = json.loads(reply.read())
        connection.close()
        assert reply.status < 300, found
        return dict(found)

    def names(self, path: str, **query: object) -> list[str]:
        """Return the names of a list."""
        return [each["metadata"]["name"] for each in self.ok("GET", path, **query)["items"]]

    def watch(self, path: str, **query: object) -> Iterator[Obj]:
        """Yield the events of a watch, until the server ends it."""
        connection, reply = self.open("GET", path, watch="1", **query)  # type: ignore[arg-type]
        try:
            assert reply.status == 200, reply.read()
            data = b""
            while more := reply.read1(2**16):  # iterating over it would hide that it breaks off
                *lines, data = (data + more).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            reply.close()
            connection.close()


def until(true: Callable[[], object], seconds: float = LIMIT) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.02)


def pod(name: str = "p", image: str = "busybox", **spec: object) -> Obj:
    """Return a pod of one container."""
    container = {"name": "main", "image": image, "command": ["true"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


def job(name: str = "j", image: str = "busybox", template: Obj | None = None, **spec: Any) -> Obj:
    """Return a job of one container; `template` goes into its pods' spec."""
    made = pod(image=image, **(template or {}))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": made["spec"]}, **spec},
    }


def secret(name: str = "s", **data: str) -> Obj:
    """Return a secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
