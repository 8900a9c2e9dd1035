"""The Docker engine's own API: quick, and with the bytes as they are.

https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

VERSION = "/v1.41"
LIMIT = 300.0
"""Seconds for one answer."""


class EngineError(Exception):
    """The engine refused; `status` is its HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = dial(self._path)


def dial(path: str, limit: float | None = LIMIT) -> socket.socket:
    """Return a connection to the engine's socket."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(limit)
    made.connect(path)
    return made


class EngineApi:
    """An engine, by its socket. Safe in any thread: a connection for each call."""

    def __init__(self, url: str) -> None:
        """`url` is a `unix://` one."""
        self.path = url.removeprefix("unix://")

    @cached_property
    def root(self) -> Path:
        """The engine's own folder, on this machine."""
        return Path(self.do("GET", "/info")["DockerRootDir"])

    def call(
        self, method: str, path: str, body: object = None, **query: object
    ) -> tuple[int, bytes]:
        """Return status and body. Raises `OSError`."""
        connection = _Connection(self.path)
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        try:
            connection.request(method, VERSION + path + _query(query), data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def do(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """Return what a call answers with. Raises `EngineError`, `OSError`."""
        status, data = self.call(method, path, body, **query)
        if status >= 400:
            raise EngineError(status, _message(data))
        return json.loads(data) if data.strip() else None

    def create(self, name: str, body: object) -> str:
        """Create a container; return its id. Raises `EngineError`."""
        return str(self.do("POST", "/containers/create", body, name=name)["Id"])

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all about a container. Raises `EngineError`."""
        found: dict[str, Any] = self.do("GET", f"/containers/{container}/json")
        return found

    def image(self, name: str) -> bool:
        """Return whether an image is here."""
        status, data = self.call("GET", f"/images/{quote(name, safe='/:@')}/json")
        if status >= 400 and status != 404:
            raise EngineError(status, _message(data))
        return status == 200

    def pull(self, name: str) -> str:
        """Pull an image; return why that failed, "" if it did not."""
        named = name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"
        status, data = self.call("POST", "/images/create", fromImage=named)
        if status >= 400:
            return _message(data)
        for line in data.splitlines():
            if line.strip() and (error := json.loads(line).get("error")):
                return str(error)
        return ""

    def remove(self, container: str) -> None:
        """Kill and remove a container. Already gone is success."""
        self.call("DELETE", f"/containers/{container}", force="1", v="1")

    def open(
        self, method: str, path: str, body: object = None, *, upgrade: bool = False, **query: object
    ) -> tuple[socket.socket, bytes]:
        """Begin a call whose answer is a stream; return the connection and what came already.

        Raises `EngineError`, `OSError`. HTTP/1.0, so that the stream is not in chunks.
        """
        data = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {VERSION}{path}{_query(query)} HTTP/{'1.1' if upgrade else '1.0'}",
            "Host: docker",
            *(["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []),
            *(["Content-Type: application/json"] if data else []),
            f"Content-Length: {len(data)}",
        ]
        connection = dial(self.path)
        try:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
            head, rest = _head(connection)
            status = int(head.split(b" ", 2)[1])
            if status >= 400:
                while more := connection.recv(2**16):
                    rest += more
                raise EngineError(status, _message(rest))
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
        return connection, rest


def _query(query: Mapping[str, object]) -> str:
    return f"?{urlencode(query)}" if query else ""


def _head(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(2**16)
        if not more:
            raise ConnectionError("the engine closed the connection")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip()
