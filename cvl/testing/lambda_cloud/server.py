"""The wire: HTTP/1.1 with keep-alive on loopback, and everything that can go wrong there."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from cvl.testing.lambda_cloud.api import Answer, Drop, Request
from cvl.testing.lambda_cloud.faults import What
from cvl.testing.lambda_cloud.replies import Reply

BODY_LIMIT = 8 * 2**20


class Application(Protocol):
    """What the server serves."""

    def answer(self, request: Request) -> Answer | Reply: ...
    def answered(self, answer: Answer) -> None: ...
    def utc(self) -> float: ...


class Server:
    """Listens on 127.0.0.1; a thread per connection."""

    def __init__(self, application: Application, port: int = 0, hang: float = 600.0) -> None:
        self.application = application
        self.hang = hang
        self.closing = threading.Event()
        self.down = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        _LIVE.add(self)
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = listener.getsockname()[1]
        self._end = self.serve(listener)

    def serve(self, listener: socket.socket) -> Callable[[], None]:
        """Serve on that socket too; return what ends that."""
        with self._lock:
            self._sockets.add(listener)
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        thread.start()

        def end() -> None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread
            listener.close()
            with self._lock:
                self._sockets.discard(listener)

        return end

    def refuse(self, seconds: float | None) -> None:
        """Let nothing listen here for so long, or until `resume`. Open connections break."""
        self.down.set()
        self._end()
        self._break()
        if seconds is not None:
            timer = threading.Timer(seconds, self.resume)
            timer.daemon = True
            timer.start()

    def resume(self) -> None:
        """Listen again, on the same port. Idempotent."""
        if self.down.is_set() and not self.closing.is_set():
            listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.down.clear()
            self._end = self.serve(listener)

    def close(self) -> None:
        """Listen no more and break every connection."""
        self.closing.set()
        self._end()
        self._break()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(connection)
            arguments = (connection, address)
            threading.Thread(target=self._talk, args=arguments, daemon=True).start()

    def _talk(self, connection: socket.socket, address: tuple[str, int]) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Handler(connection, address, self)
        except (OSError, ValueError):
            pass  # the client has gone, or was let go
        finally:
            with self._lock:
                self._sockets.discard(connection)
            connection.close()

    def _break(self) -> None:
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close our copies of the sockets: what a forked child has to do.

        A reset is none, and a closed door stays open, for as long as a child holds a copy.
        """
        for copy in list(self._sockets):
            os.close(copy.detach())  # `close` would wait for the files made of it


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 600

    def __init__(self, connection: socket.socket, address: tuple[str, int], server: Server) -> None:
        self.ours = server
        self.request, self.client_address = connection, address
        self.setup()
        try:
            self.handle()
        finally:
            self.finish()

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Handle every method alike: the base class looks for `do_GET` and so on."""
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the log is kept elsewhere."""

    def _handle(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
        body = self.rfile.read(length)
        if len(body) < length:  # the client died while it was sending: that is no request
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            path=self.path,
            authorization=self.headers.get("Authorization", ""),
            body=body,
            port=self.client_address[1],
        )
        try:
            answer = self.ours.application.answer(request)
            if isinstance(answer, Reply):
                self._send(answer)
                return
            self._act(answer)
            self.ours.application.answered(answer)
        except Drop:
            self._reset()

    def _act(self, answer: Answer) -> None:
        if answer.delay and answer.act is not What.DRIP:
            self.ours.closing.wait(answer.delay)
        if answer.act is What.RESET or self.ours.down.is_set():
            self._reset()
        elif answer.act is What.HANG:
            self._hang()
        elif answer.reply is not None:
            self._send(answer.reply, answer.act, answer.delay)

    def _send(self, reply: Reply, act: What | None = None, delay: float = 0.0) -> None:
        """Send it whole, in one packet where it fits; or as `act` says."""
        date = f"Date: {formatdate(self.ours.application.utc(), usegmt=True)}\r\n"
        head = (
            f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}\r\n"
            f"{'' if act is What.NO_DATE else date}Content-Type: {reply.type}\r\n"
            f"Content-Length: {len(reply.body)}\r\n\r\n"
        )
        truncated = act is What.TRUNCATED
        body = reply.body[: len(reply.body) // 2] if truncated else reply.body
        if act is What.DRIP:
            self._drip(head.encode() + body, delay)
        else:
            self.wfile.write(head.encode() + body)
        self.close_connection = self.close_connection or truncated

    def _drip(self, data: bytes, pause: float) -> None:
        """Send byte by byte: never silent for long, never done."""
        for byte in data:
            if self.ours.closing.wait(pause):
                return
            self.wfile.write(bytes((byte,)))

    def _reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _hang(self) -> None:
        """Say nothing until the client gives up."""
        self.close_connection = True
        ends = time.monotonic() + self.ours.hang
        while time.monotonic() < ends and not self.ours.closing.is_set():
            ready, _, _ = select.select([self.connection], [], [], 0.2)
            if ready and not self.connection.recv(1, socket.MSG_PEEK):
                return


_LIVE: weakref.WeakSet[Server] = weakref.WeakSet()


def _forget_in_child() -> None:
    for server in list(_LIVE):
        server.forget()


os.register_at_fork(after_in_child=_forget_in_child)
