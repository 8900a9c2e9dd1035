"""A port on loopback: a thread per connection, and times in which nothing listens there."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from cvl.testing.conversation import Conversation

BACKLOG = 512
HANDSHAKE_LIMIT = 30.0
"""Seconds."""


class Listener:
    """Listens on 127.0.0.1, with TLS or without. `closing` and `down` say whether it does."""

    def __init__(
        self,
        respond: Callable[[Listener, Conversation, bytes], None],
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`respond` answers one request; its last argument is the request's body."""
        self.closing = threading.Event()
        self.down = threading.Event()
        self._respond, self._tls = respond, tls
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        _LIVE.add(self)
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self.port: int = listener.getsockname()[1]
        self._end = self.serve(listener)

    def serve(self, listener: socket.socket) -> Callable[[], None]:
        """Serve on that socket too; return what ends that."""
        with self._lock:
            self._sockets.add(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

        def end() -> None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread
            listener.close()
            with self._lock:
                self._sockets.discard(listener)

        return end

    def refuse(self, seconds: float | None = None) -> None:
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
            listener = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
            self.down.clear()
            self._end = self.serve(listener)

    def close(self) -> None:
        """Listen no more and break every connection."""
        self.closing.set()
        self._end()
        self._break()

    def forget(self) -> None:
        """Close our copies of the sockets: what a forked child has to do.

        A reset is none, and a closed door stays open, for as long as a child holds a copy.
        """
        for copy in list(self._sockets):
            with suppress(OSError):  # it may be closed already
                os.close(copy.detach())  # `close` would wait for the files made of it

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
            if self._tls is not None:
                connection = self._secured(connection, self._tls)
            if not self.down.is_set():
                Conversation(connection, address, partial(self._respond, self))
        except (OSError, ValueError):
            pass  # the client has gone, or was let go
        finally:
            with self._lock:
                self._sockets.discard(connection)
            connection.close()

    def _secured(self, plain: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        plain.settimeout(HANDSHAKE_LIMIT)
        secured = tls.wrap_socket(plain, server_side=True)
        with self._lock:
            self._sockets.discard(plain)
            self._sockets.add(secured)
        return secured

    def _break(self) -> None:
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


_LIVE: weakref.WeakSet[Listener] = weakref.WeakSet()


def _forget_in_child() -> None:
    for listener in list(_LIVE):
        listener.forget()


os.register_at_fork(after_in_child=_forget_in_child)
