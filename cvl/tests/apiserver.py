"""What the tests of the fake API server share: a client that is a stranger to it, and objects."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPSConnection
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
        config = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = base64.b64decode(config["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)

    def raw(
        self, method: str, path: str, body: object = None, **query: object
    ) -> tuple[int, bytes]:
        """Return status and body."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        head = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body)
        there = ("127.0.0.1", self._port)
        with closing(HTTPSConnection(*there, timeout=self._timeout, context=self._tls)) as line:
            line.request(method, f"{path}?{urlencode(query)}" if query else path, data, head)
            reply = line.getresponse()
            return reply.status, reply.read()

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

    def patch(self, path: str, patch: object) -> Obj:
        """Patch an object; return it."""
        return self.ok("PATCH", path, patch)

    def names(self, path: str, **query: object) -> list[str]:
        """Return the names of a list."""
        return [each["metadata"]["name"] for each in self.ok("GET", path, **query)["items"]]


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
