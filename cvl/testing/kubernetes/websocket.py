"""Channels over a WebSocket: `v4.channel.k8s.io`, and `v5`, where a channel can be closed.

The first byte of each message is the channel. https://github.com/kubernetes/enhancements 4006
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from cvl.testing.kubernetes.requests import Request, Wire
from cvl.testing.kubernetes.statuses import ApiError

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
CLOSE, ERROR = 255, 3
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

FRAME = 2**15


class WebSocket:
    """One WebSocket, on the server's side."""

    def __init__(self, request: Request) -> None:
        """Raises `ApiError` 400 when no protocol is asked for that we speak."""
        from wsproto.connection import Connection, ConnectionType

        asked = request.headers.get("sec-websocket-protocol", "").replace(" ", "").split(",")
        found = next((each for each in PROTOCOLS if each in asked), None)
        if found is None:
            raise ApiError(400, f"unable to upgrade: no protocol of {', '.join(asked)} is spoken")
        self._protocol = found
        self._key = request.headers.get("sec-websocket-key", "").encode()
        self._frames = Connection(ConnectionType.SERVER)
        self._part = b""

    def begin(self, wire: Wire, wanted: frozenset[int]) -> None:
        accept = base64.b64encode(hashlib.sha1(self._key + GUID).digest()).decode()
        lines = (
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
            f"Sec-WebSocket-Protocol: {self._protocol}",
        )
        wire.raw("\r\n".join(lines).encode() + b"\r\n\r\n")
        for channel in sorted(wanted - {0}):  # the real server opens each with an empty message
            self.send(wire, channel, b"")

    def receive(self, wire: Wire) -> Iterator[tuple[int, bytes | None]]:
        from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

        data = wire.receive()
        if not data:
            raise EOFError
        self._frames.receive_data(data)
        for event in self._frames.events():
            if isinstance(event, CloseConnection):
                wire.raw(self._frames.send(event.response()))
                raise EOFError  # noqa: TRY004  (it is no error of types)
            if isinstance(event, Ping):
                wire.raw(self._frames.send(event.response()))
            elif isinstance(event, BytesMessage | TextMessage):
                text = event.data
                yield from self._message(
                    text.encode() if isinstance(text, str) else bytes(text),
                    whole=event.message_finished,
                )

    def send(self, wire: Wire, channel: int, data: bytes) -> None:
        from wsproto.events import BytesMessage

        for start in range(0, len(data) or 1, FRAME):
            message = bytes([channel]) + data[start : start + FRAME]
            wire.raw(self._frames.send(BytesMessage(data=message)))

    def finish(self, wire: Wire, status: bytes) -> None:
        from wsproto.events import CloseConnection

        self.send(wire, ERROR, status)
        wire.raw(self._frames.send(CloseConnection(code=1000)))

    def _message(self, data: bytes, *, whole: bool) -> Iterator[tuple[int, bytes | None]]:
        data, self._part = self._part + data, b""
        if not whole:
            self._part = data
        elif data and data[0] == CLOSE and self._protocol == PROTOCOLS[0]:
            yield data[1], None
        elif data:
            yield data[0], data[1:]
