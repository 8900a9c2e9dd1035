"""Makes an ordinary socket of a connection that is encrypted already.

A proxy may itself be spoken to by TLS, and within that the host is: Python's TLS takes real sockets
only. So the far end of a pair of them is read and written here, by a thread of its own.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from select import select

BLOCK = 1 << 16


def relayed(far: ssl.SSLSocket, seconds: float) -> socket.socket:
    """Return a socket with this timeout whose bytes are those of `far`; closing it ends both."""
    ours, near = socket.socketpair()
    ours.settimeout(seconds)
    for each in (near, far):
        each.settimeout(0)
    threading.Thread(target=_Relay(near, far).run, name="cvl-relay", daemon=True).start()
    return ours


class _Relay:
    """Carries bytes both ways until either end closes."""

    def __init__(self, near: socket.socket, far: ssl.SSLSocket) -> None:
        self._near, self._far = near, far
        self._out, self._in = bytearray(), bytearray()
        self._over = False

    def run(self) -> None:
        with self._near, self._far, suppress(OSError, ValueError):
            while not self._over or self._in or self._out:
                self._wait()
                self._take(self._near, self._out)
                self._take(self._far, self._in)
                self._give(self._near, self._in)  # first: what has come is not lost with the rest
                self._give(self._far, self._out)

    def _wait(self) -> None:
        """Wait until anything can be done; TLS may have bytes that no socket shows any more."""
        sources = () if self._over else ((self._near, self._out), (self._far, self._in))
        targets = ((self._near, self._in), (self._far, self._out))
        reads = [source for source, data in sources if len(data) < BLOCK]
        writes = [target for target, data in targets if data]
        ready = self._far.pending() and len(self._in) < BLOCK
        select(reads, writes, [], 0 if ready else None)

    def _take(self, source: socket.socket, into: bytearray) -> None:
        if self._over or len(into) >= BLOCK:
            return
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            data = source.recv(BLOCK)
            into += data
            self._over = not data

    def _give(self, target: socket.socket, data: bytearray) -> None:
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if data:
                del data[: target.send(data)]
