"""The wire: HTTPS/1.1 with keep-alive on loopback, and everything that can go wrong there."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from cvl.testing.kubernetes.api import Answer
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.requests import Reply, Request, Stream
from cvl.testing.kubernetes.sockets import readable

BODY_LIMIT = 64 * 2**20
IDLE_LIMIT = 600.0
HANDSHAKE_LIMIT = 30.0
"""Seconds."""


class Drop(Exception):
    """Raised by a hook: the connection is reset there and then."""


class Application(Protocol):
    """What the server serves."""

    def answer(self, request: Request) -> Answer: ...
    def answered(self, answer: Answer) -> None: ...


class Server:
    """Listens on 127.0.0.1; a thread per connection."""

    def __init__(
        self, application: Application, tls: ssl.SSLContext, port: int = 0, hang: float = IDLE_LIMIT
    ) -> None:
        """`hang` is how long a request that gets no answer waits for one, in seconds."""
        self.application, self.tls, self.hang = application, tls, hang
        self.closing = threading.Event()
        self.down = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._serve()

    def refuse(self, seconds: float | None = None) -> None:
        """Let nothing listen here for so long, or until `resume`. Open connections break."""
        self.down.set()
        self._stop()
        if seconds is not None:
            timer = threading.Timer(seconds, self.resume)
            timer.daemon = True
            timer.start()

    def resume(self) -> None:
        """Listen again, on the same port. Idempotent."""
        if self.down.is_set() and not self.closing.is_set():
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
            self.down.clear()
            self._serve()

    def close(self) -> None:
        """Listen no more and break every connection."""
        self.closing.set()
        self._stop()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread
        self._listener.close()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            arguments = (connection, address)
            threading.Thread(target=self._talk, args=arguments, daemon=True).start()

    def _talk(self, plain: socket.socket, address: tuple[str, int]) -> None:
        with self._lock:
            self._sockets.add(plain)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(HANDSHAKE_LIMIT)
            with self.tls.wrap_socket(plain, server_side=True) as connection:
                with self._lock:
                    self._sockets.discard(plain)
                    self._sockets.add(connection)
                plain = connection
                if not self.down.is_set():
                    _Handler(connection, address, self)
        except (OSError, ValueError):
            pass  # the client has gone, or was let go
        finally:
            with self._lock:
                self._sockets.discard(plain)
            plain.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_LIMIT

    def __init__(self, connection: ssl.SSLSocket, address: tuple[str, int], server: Server) -> None:
        self.ours = server
        self.request, self.client_address = connection, address
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

    def _handle(self) -> None:
        body = self._body()
        if body is None:  # the client died while it was sending: that is no request
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            path=self.path,
            headers={key.lower(): ", ".join(self.headers.get_all(key, ())) for key in self.headers},
            body=body,
            port=self.client_address[1],
        )
        try:
            answer = self.ours.application.answer(request)
            self._act(answer)
            self.ours.application.answered(answer)
        except Drop:
            self._reset()

    def _body(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        length = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes | None:
        parts: list[bytes] = []
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _act(self, answer: Answer) -> None:
        if answer.delay:
            self.ours.closing.wait(answer.delay)
        if answer.act is What.RESET or self.ours.down.is_set():
            self._reset()
        elif answer.act in (What.HANG, What.LATE):
            self._hang()
        elif isinstance(answer.reply, Stream):
            self._stream(answer.reply)
        elif answer.reply is not None:
            self._send(answer.reply, truncated=answer.act is What.TRUNCATED)

    def _send(self, reply: Reply, *, truncated: bool) -> None:
        """Send it whole, in one packet where it fits; or only half of what was promised."""
        word = self.responses.get(reply.status, ("",))[0]
        lines = [
            f"HTTP/1.1 {reply.status} {word}",
            f"Date: {self.date_time_string()}",
            f"Content-Type: {reply.type}",
            "Cache-Control: no-cache, private",
            *(f"{key}: {value}" for key, value in reply.headers.items()),
            f"Content-Length: {len(reply.body)}",
        ]
        body = reply.body[: len(reply.body) // 2] if truncated else reply.body
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.close_connection = self.close_connection or truncated

    def _stream(self, stream: Stream) -> None:
        wire = _Wire(self)
        if stream.upgrade:
            self.close_connection = True
            stream.run(wire)
            return
        head = f"HTTP/1.1 200 OK\r\nDate: {self.date_time_string()}\r\nContent-Type: {stream.type}"
        self.wfile.write(f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        stream.run(wire)
        if self.ours.down.is_set() or self.ours.closing.is_set():
            self._reset()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _hang(self) -> None:
        """Say nothing until the client gives up."""
        self.close_connection = True
        wire, ends = _Wire(self), time.monotonic() + self.ours.hang
        while time.monotonic() < ends and not wire.gone():
            wire.wait(seconds=0.2)


class _Wire:
    """The connection while an answer is streamed: see `requests.Wire`."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self._connection: ssl.SSLSocket = handler.connection
        self._socket = handler.connection.fileno()

    def send(self, data: bytes) -> None:
        if data:
            self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def raw(self, data: bytes) -> None:
        self._handler.wfile.write(data)

    def receive(self) -> bytes:
        return bytes(self._handler.rfile.read1(2**16))

    def ended(self) -> bool:
        return self._handler.ours.closing.is_set() or self._handler.ours.down.is_set()

    def gone(self) -> bool:
        return self.ended() or readable(0.0, self._socket)

    def wait(self, *others: int, seconds: float) -> bool:
        """Wait until one of `others` can be read, or the client speaks or goes."""
        return bool(self._connection.pending()) or readable(seconds, self._socket, *others)

    def reset(self) -> None:
        self._handler._reset()  # noqa: SLF001  (the two are one)
        raise ConnectionResetError("injected")
