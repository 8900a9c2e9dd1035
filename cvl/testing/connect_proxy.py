"""A proxy on loopback that tells what went through it: `CONNECT`, or SOCKS 5.

It may want a login, refuse, say nothing, break off, or be spoken to by TLS itself. Names that only
it knows lead to real ports: so a test sees that a client did not look them up, nor go past it.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from select import select
from types import TracebackType
from typing import Self

BLOCK = 1 << 16
OK = "200 Connection established"


@dataclass(slots=True)
class Passage:
    """One wish: where to, the login that came with it, and the bytes that went each way."""

    place: str
    login: str = ""
    up: int = 0
    down: int = 0


@dataclass(kw_only=True)
class ConnectProxy:
    """Serves on 127.0.0.1 while it is entered.

    `names` maps `HOST:PORT` to a port on loopback, or to an address of this machine; what it lacks
    is dialled as it is, if that is loopback, and refused otherwise: nothing leaves this machine.
    `answer` is the status line it gives (`OK` opens the way), "" for none at all; `login` is the
    `USER:PASSWORD` it wants.
    """

    names: Mapping[str, int | tuple[str, int]] = field(default_factory=dict)
    answer: str = OK
    login: str = ""
    tls: ssl.SSLContext | None = None
    socks: bool = False
    passages: list[Passage] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def places(self) -> list[str]:
        """The places that were asked for, in order."""
        return [each.place for each in self.passages]

    def url(self, login: str = "") -> str:
        """Return what a variable is set to; `login` as `USER:PASSWORD`, quoted."""
        kind = "socks5" if self.socks else "https" if self.tls else "http"
        host = "localhost" if self.tls else "127.0.0.1"
        return f"{kind}://{login}{'@' if login else ''}{host}:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with suppress(OSError, ValueError, IndexError):
            if self.tls:
                near = self.tls.wrap_socket(near, server_side=True)
                self._open.append(near)
            passage = self._socks(near) if self.socks else self._connect(near)
            if passage:
                self._lead(near, passage)
        near.close()

    def _connect(self, near: socket.socket) -> Passage | None:
        """Hear a `CONNECT`, answer it, and return the passage if it may go on."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += _heard(near, 1)
        lines = head.decode("latin-1").split("\r\n")
        verb, place, _ = lines[0].split(" ")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        encoded = fields.get("Proxy-Authorization", "").removeprefix("Basic ")
        passage = Passage(place, base64.b64decode(encoded).decode("utf-8", "surrogateescape"))
        self.passages.append(passage)
        allowed = verb == "CONNECT" and passage.login == self.login
        answer = self.answer if allowed else "407 Proxy Authentication Required"
        if not answer:
            _heard(near, 1)  # until the client gives up
        near.sendall(f"HTTP/1.1 {answer}\r\nVia: 1.1 test\r\n\r\n".encode())
        return passage if answer == OK else None

    def _socks(self, near: socket.socket) -> Passage | None:
        ways = _heard(near, _heard(near, 2)[1])
        way = 2 if self.login else 0
        near.sendall(bytes([5, way if way in ways else 255]))
        login = ""
        if way in ways and way:
            _heard(near, 1)
            words = [_heard(near, _heard(near, 1)[0]) for _ in range(2)]
            login = b":".join(words).decode("utf-8", "surrogateescape")
            near.sendall(bytes([1, login != self.login]))
        _heard(near, 4)
        host = _heard(near, _heard(near, 1)[0]).decode()
        passage = Passage(f"{host}:{int.from_bytes(_heard(near, 2), 'big')}", login)
        self.passages.append(passage)
        near.sendall(bytes([5, 0 if self.answer == OK else 2, 0, 1, 0, 0, 0, 0, 0, 0]))
        return passage if self.answer == OK and login == self.login else None

    def _lead(self, near: socket.socket, passage: Passage) -> None:
        host, _, port = passage.place.rpartition(":")
        known = self.names.get(passage.place)
        if known is None and host not in {"127.0.0.1", "localhost"}:
            return
        there = known if isinstance(known, tuple) else ("127.0.0.1", known or int(port))
        with socket.create_connection(there) as far:
            self._open.append(far)
            while True:
                held = isinstance(near, ssl.SSLSocket) and near.pending()
                ready = [near] if held else select([near, far], [], [])[0]
                for source, target in ((near, far), (far, near)):
                    if source in ready:
                        data = source.recv(BLOCK)
                        if not data:
                            return
                        target.sendall(data)
                        passage.up += len(data) if source is near else 0
                        passage.down += len(data) if source is far else 0


def _heard(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = line.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data
