"""Commands in containers, over a WebSocket: `v5.channel.k8s.io`.

The first byte of each message is the channel. https://github.com/kubernetes/enhancements 4006
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from cvl.testing.kubernetes.engine_api import EngineApi, EngineError
from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.requests import Request, Stream
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.wire import Wire, readable

PROTOCOL = "v5.channel.k8s.io"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

STDIN, ERROR = 0, 3
"""Channels beside 1 and 2, which are the engine's numbers too."""

FRAME = 2**15
LOOK = 0.5
"""Seconds between two looks at whether the client is still there."""


def upgraded(engine: EngineApi, request: Request, container: str) -> Stream:
    """Return the connection to a command. Raises `ApiError` 400 without a protocol we speak."""
    asked = request.headers.get("sec-websocket-protocol", "").replace(" ", "").split(",")
    if PROTOCOL not in asked:
        raise ApiError(400, f"unable to upgrade: no protocol of {', '.join(asked)} is spoken")
    return Stream(run=lambda wire: _run(engine, request, container, wire), upgrade=True)


def _run(engine: EngineApi, request: Request, container: str, wire: Wire) -> None:
    channels = _Channels(request, wire)
    wanted = {
        "AttachStdin": request.flag("stdin"),
        "AttachStdout": request.flag("stdout"),
        "AttachStderr": request.flag("stderr"),
        "Cmd": request.query["command"],
    }
    try:
        identity = engine.do("POST", f"/containers/{container}/exec", wanted)["Id"]
        body = {"Detach": False, "Tty": False}
        connection, rest = engine.open("POST", f"/exec/{identity}/start", body, upgrade=True)
        with connection:
            _carry(connection, bytearray(rest), channels)
        status = _status(engine.do("GET", f"/exec/{identity}/json").get("ExitCode"))
    except EngineError as error:
        message = f"error executing command in container: {error.message}"
        status = {"status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    except EOFError:
        return  # the client has left; what it started goes on, as in reality
    channels.finish({"metadata": {}, **status})


class _Channels:
    """Several streams over one WebSocket, on the server's side. The client's is answered here."""

    def __init__(self, request: Request, wire: Wire) -> None:
        from websockets.protocol import Protocol, Side

        key = request.headers.get("sec-websocket-key", "").encode()
        lines = (
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()}",
            f"Sec-WebSocket-Protocol: {PROTOCOL}",
        )
        self.wire, self._part = wire, b""
        self._frames = Protocol(Side.SERVER)
        wire.raw("\r\n".join(lines).encode() + b"\r\n\r\n")
        for channel in (1, 2):  # the real server opens each with an empty message
            self.send(channel, b"")

    def receive(self) -> Iterator[bytes]:
        """Yield what the client has sent for the command. Raises `EOFError` when it has left."""
        from websockets.frames import DATA_OPCODES, Frame, Opcode

        data = self.wire.receive()
        if not data:
            raise EOFError
        self._frames.receive_data(data)
        for frame in self._frames.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                raise EOFError
            if frame.opcode in DATA_OPCODES:
                self._part += bytes(frame.data)
            if frame.opcode in DATA_OPCODES and frame.fin:
                message, self._part = self._part, b""
                yield message[1:] if message[:1] == bytes([STDIN]) else b""
        self._flush()

    def send(self, channel: int, data: bytes) -> None:
        """Send some data on a channel. Raises `OSError`."""
        for start in range(0, len(data) or 1, FRAME):
            self._frames.send_binary(bytes([channel]) + data[start : start + FRAME])
        self._flush()

    def finish(self, status: Obj) -> None:
        """Send the status, and close all channels."""
        self.send(ERROR, json.dumps(status).encode())
        self._frames.send_close(1000)
        self._flush()

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            self.wire.raw(data)


def _carry(connection: socket.socket, data: bytearray, channels: _Channels) -> None:
    """Carry bytes both ways until the command has ended. Raises `EOFError`, `OSError`."""
    wire = channels.wire
    while True:
        for kind, whole in _frames(data):
            channels.send(kind, whole)
        if wire.ended():
            raise EOFError
        if not wire.wait(connection.fileno(), seconds=LOOK):
            continue
        if readable(0.0, connection.fileno()):
            more = connection.recv(2**16)
            if not more:
                return
            data += more
        else:
            for sent in channels.receive():
                with suppress(OSError):  # the command may have closed its ears, or ended
                    connection.sendall(sent)


def _frames(data: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take the engine's whole frames: eight bytes of head, then so many bytes of one stream."""
    while len(data) >= 8:
        kind, size = struct.unpack(">BxxxI", data[:8])
        if len(data) < 8 + size:
            return
        whole = bytes(data[8 : 8 + size])
        del data[: 8 + size]
        yield kind, whole


def _status(code: int | None) -> Obj:
    if not code:
        return {"status": "Success"}
    return {
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
