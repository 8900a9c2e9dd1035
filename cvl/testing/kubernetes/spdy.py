"""Channels over SPDY/3.1, as kubectl spoke them before it took to WebSockets (1.31).

https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ : of it only what a
client of `remotecommand` uses: streams that the client opens, data, ends, pings.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from cvl.testing.kubernetes.requests import Request, Wire
from cvl.testing.kubernetes.spdy_dictionary import DICTIONARY
from cvl.testing.kubernetes.statuses import ApiError

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
NAMES = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}
ERROR = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = (
    1, 2, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
FIN = 0x01
FRAME = 2**15


class Spdy:
    """One SPDY session, on the server's side."""

    def __init__(self, request: Request) -> None:
        """Raises `ApiError` 403 when no protocol is asked for that we speak."""
        asked = request.headers.get("x-stream-protocol-version", "").replace(" ", "").split(",")
        found = next((each for each in PROTOCOLS if each in asked), None)
        if found is None:
            raise ApiError(403, f"unable to upgrade: unable to negotiate protocol: {asked}")
        self._protocol = found
        self._data = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._channels: dict[int, int] = {}
        self._streams: dict[int, int] = {}

    def begin(self, wire: Wire, wanted: frozenset[int]) -> None:
        lines = (
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: SPDY/3.1",
            "Connection: Upgrade",
            f"X-Stream-Protocol-Version: {self._protocol}",
        )
        wire.raw("\r\n".join(lines).encode() + b"\r\n\r\n")
        while not wanted | {ERROR} <= set(self._streams):
            for _ in self.receive(wire):
                pass  # nothing can be said before all streams are open

    def receive(self, wire: Wire) -> Iterator[tuple[int, bytes | None]]:
        data = wire.receive()
        if not data:
            raise EOFError
        self._data += data
        while len(self._data) >= 8:
            first, second = struct.unpack(">II", self._data[:8])
            flags, size = second >> 24, second & 0xFFFFFF
            if len(self._data) < 8 + size:
                return
            body = bytes(self._data[8 : 8 + size])
            del self._data[: 8 + size]
            if first >> 31:
                self._control(wire, first & 0xFFFF, body)
            else:
                yield from self._payload(wire, first, body, flags)

    def send(self, wire: Wire, channel: int, data: bytes) -> None:
        stream = self._streams[channel]
        for start in range(0, len(data), FRAME):
            part = data[start : start + FRAME]
            wire.raw(struct.pack(">II", stream, len(part)) + part)

    def finish(self, wire: Wire, status: bytes) -> None:
        self.send(wire, ERROR, status)
        for stream in self._channels:
            wire.raw(struct.pack(">II", stream, FIN << 24))
        wire.raw(_frame(GOAWAY, struct.pack(">II", max(self._channels), 0)))

    def _payload(
        self, wire: Wire, stream: int, body: bytes, flags: int
    ) -> Iterator[tuple[int, bytes | None]]:
        channel = self._channels.get(stream)
        if channel is None:
            return
        if body:
            wire.raw(_frame(WINDOW_UPDATE, struct.pack(">II", stream, len(body))))
            yield channel, body
        if flags & FIN:
            yield channel, None

    def _control(self, wire: Wire, kind: int, body: bytes) -> None:
        if kind == SYN_STREAM:
            (stream,) = struct.unpack(">I", body[:4])
            headers = _headers(self._inflate.decompress(body[10:]))
            channel = NAMES[headers["streamtype"]]
            self._channels[stream], self._streams[channel] = channel, stream
            empty = self._deflate.compress(struct.pack(">I", 0))
            empty += self._deflate.flush(zlib.Z_SYNC_FLUSH)
            wire.raw(_frame(SYN_REPLY, struct.pack(">I", stream) + empty))
        elif kind == PING:
            wire.raw(_frame(PING, body))
        elif kind == GOAWAY:
            raise EOFError


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, len(body)) + body


def _headers(data: bytes) -> dict[str, str]:
    (count,) = struct.unpack(">I", data[:4])
    place, words = 4, []
    for _ in range(2 * count):
        (size,) = struct.unpack(">I", data[place : place + 4])
        words.append(data[place + 4 : place + 4 + size].decode())
        place += 4 + size
    return {key.lower(): value for key, value in zip(words[::2], words[1::2], strict=True)}
