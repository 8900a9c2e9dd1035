"""HTTP/1.1 with keep-alive on one connection, for servers that also have to misbehave."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

BODY_LIMIT = 64 * 2**20
IDLE_LIMIT = 600.0
"""Seconds."""


class Drop(Exception):
    """Raised by a hook: the connection is reset there and then."""


class Conversation(BaseHTTPRequestHandler):
    """One connection. Every request on it, whatever its method, goes to `respond` with its body."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_LIMIT

    def __init__(
        self,
        connection: socket.socket,
        address: tuple[str, int],
        respond: Callable[[Conversation, bytes], None],
    ) -> None:
        """Talk until the client goes or `close_connection` is set. Raises `OSError`."""
        self.request, self.client_address = connection, address
        self._respond = respond
        self.setup()
        try:
            self.handle()
        finally:
            with suppress(OSError):
                self.finish()

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Handle every method alike: the base class looks for `do_GET` and so on."""
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the log is kept elsewhere."""

    def reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _handle(self) -> None:
        body = self._body()
        if body is None:  # the client died while it was sending: that is no request
            self.close_connection = True
            return
        try:
            self._respond(self, body)
        except Drop:
            self.reset()

    def _body(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        length = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)
