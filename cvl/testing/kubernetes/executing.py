"""Commands in containers, and the streams of containers themselves: exec and attach."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cvl.testing.kubernetes.calls import Call
from cvl.testing.kubernetes.engine_api import EngineApi, EngineError
from cvl.testing.kubernetes.frames import STDERR, STDOUT, Frames
from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.requests import Request, Stream, Wire
from cvl.testing.kubernetes.sockets import readable
from cvl.testing.kubernetes.spdy import Spdy
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.websocket import WebSocket
from cvl.testing.kubernetes.world import World

STDIN, ERROR, RESIZE = 0, 3, 4
"""Channels beside 1 and 2, which are the engine's numbers too."""

LOOK = 0.5
"""Seconds between two looks at whether the client is still there."""


class Channels(Protocol):
    """Several streams over one upgraded connection."""

    def begin(self, wire: Wire, wanted: frozenset[int]) -> None:
        """Answer the request, and wait until all wanted channels are there."""

    def receive(self, wire: Wire) -> Iterator[tuple[int, bytes | None]]:
        """Read what the client has sent: channel and data, None for a channel's end.

        Raises `EOFError` when the client has left.
        """

    def send(self, wire: Wire, channel: int, data: bytes) -> None:
        """Send some data on a channel. Raises `OSError`."""

    def finish(self, wire: Wire, status: bytes) -> None:
        """Send the status, and close all channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be connected."""

    container: str
    command: tuple[str, ...]
    attach: bool
    tty: bool
    channels: frozenset[int]

    @property
    def stdin(self) -> bool:
        return STDIN in self.channels


def upgraded(world: World, call: Call, container: str, *, attach: bool) -> Stream:
    """Return the upgraded connection. Raises `ApiError` 400 without a protocol we speak."""
    assert world.engine is not None
    engine, request = world.engine, call.request
    channels, tty = _channels(request), request.flag("tty")
    order = Order(
        container=container,
        command=tuple(request.query.get("command", ())),
        attach=attach,
        tty=tty,
        channels=_wanted(request, tty=tty),
    )
    return Stream(run=lambda wire: _run(engine, order, channels, wire), upgrade=True)


def _channels(request: Request) -> Channels:
    upgrade = request.headers.get("upgrade", "").lower()
    if upgrade == "websocket":
        return WebSocket(request)
    if upgrade.startswith("spdy/3.1"):
        return Spdy(request)
    raise ApiError(400, "Upgrade request required")


def _wanted(request: Request, *, tty: bool) -> frozenset[int]:
    named = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR}
    wanted = {number for name, number in named.items() if request.flag(name)}
    if not wanted:
        raise ApiError(400, "you must specify at least 1 of stdin, stdout, stderr")
    return frozenset(wanted - {STDERR} if tty else wanted)


def _run(engine: EngineApi, order: Order, channels: Channels, wire: Wire) -> None:
    channels.begin(wire, order.channels)
    try:
        if order.attach:
            connection, rest = _attach(engine, order)
            _carry(engine, connection, rest, order, channels, wire, "")
            status = _status(None)
        else:
            identity = _created(engine, order)
            body = {"Detach": False, "Tty": order.tty}
            path = f"/exec/{identity}/start"
            connection, rest = engine.open("POST", path, body, upgrade=True)
            _carry(engine, connection, rest, order, channels, wire, identity)
            status = _status(engine.do("GET", f"/exec/{identity}/json").get("ExitCode"))
    except EngineError as error:
        status = {
            "metadata": {},
            "status": "Failure",
            "message": f"error executing command in container: {error.message}",
            "reason": "InternalError",
            "code": 500,
        }
    except EOFError:
        return  # the client has left; what it started goes on, as in reality
    channels.finish(wire, json.dumps(status).encode())


def _created(engine: EngineApi, order: Order) -> str:
    wanted = {
        "AttachStdin": order.stdin,
        "AttachStdout": STDOUT in order.channels,
        "AttachStderr": STDERR in order.channels,
        "Tty": order.tty,
        "Cmd": list(order.command),
    }
    return str(engine.do("POST", f"/containers/{order.container}/exec", wanted)["Id"])


def _attach(engine: EngineApi, order: Order) -> tuple[socket.socket, bytes]:
    return engine.open(
        "POST",
        f"/containers/{order.container}/attach",
        upgrade=True,
        stream=1,
        stdin=int(order.stdin),
        stdout=int(STDOUT in order.channels),
        stderr=int(STDERR in order.channels),
    )


def _carry(
    engine: EngineApi,
    connection: socket.socket,
    rest: bytes,
    order: Order,
    channels: Channels,
    wire: Wire,
    identity: str,
) -> None:
    """Carry bytes both ways until the command has ended. Raises `EOFError`, `OSError`."""
    frames = Frames(connection, bytearray(rest))
    take: Callable[[], Iterator[tuple[int, bytes]]] = (
        (lambda: _raw(frames)) if order.tty else frames.take
    )
    with connection:
        while True:
            for kind, data in take():
                channels.send(wire, kind, data)
            if wire.ended() or not wire.wait(connection.fileno(), seconds=LOOK):
                if wire.ended():
                    raise EOFError
                continue
            if readable(0.0, connection.fileno()):
                if not frames.read():
                    return
            else:
                for channel, sent in channels.receive(wire):
                    _deliver(engine, connection, channel, sent, identity)


def _raw(frames: Frames) -> Iterator[tuple[int, bytes]]:
    """Return what a terminal said: there is but one stream, without frames."""
    data = bytes(frames.data)
    frames.data.clear()
    if data:
        yield STDOUT, data


def _deliver(
    engine: EngineApi, connection: socket.socket, channel: int, data: bytes | None, identity: str
) -> None:
    with suppress(OSError):  # the command may have closed its ears, or ended
        if channel == STDIN and data is None:
            connection.shutdown(socket.SHUT_WR)
        elif channel == STDIN and data:
            connection.sendall(data)
    if channel == RESIZE and data and identity:
        size = json.loads(data)
        path = f"/exec/{identity}/resize"
        engine.call("POST", path, h=size.get("Height", 24), w=size.get("Width", 80))


def _status(code: int | None) -> Obj:
    if code is None or code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
