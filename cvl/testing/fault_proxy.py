"""A cable that can be cut: a TCP proxy on loopback that delays, throttles, goes silent, resets.

Put it between a client and a server, then do to it what networks do. One thread carries
everything; the methods may be called from any other.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 1 << 16
WINDOW = 1 << 24
"""Bytes under way in one direction, at most."""
TICK = 0.02
"""Seconds between two looks at the settings."""
LIMIT = 10.0
"""Seconds that the thread may take to do what it is told."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 s: `close` sends RST."""


class Cable:
    """A proxy to `target`, from `with` to its end; `port` stays the same throughout.

    `delay` (seconds, each way), `rate` (bytes a second, each way; 0: any) and `silent` (nothing
    passes and nothing is closed: the other machine is gone) may be changed at any time. `passed`
    counts the bytes handed on, both ways together.
    """

    def __init__(self, target: tuple[str, int], *, address: str = "127.0.0.1") -> None:
        self.target, self.address, self.port = target, address, 0
        self.delay, self.rate, self.silent, self.passed = 0.0, 0.0, False, 0
        self._listener: socket.socket | None = None
        self._pairs: list[_Pair] = []
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._over = False

    def __enter__(self) -> Self:
        self._open()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        self._thread.join(LIMIT)

    def listen(self) -> None:
        """Take connections again, on the same port."""
        self._order(self._open)

    def refuse(self) -> None:
        """Refuse new connections; those that there are go on."""
        self._order(self._close)

    def reset(self) -> None:
        """Break all connections with a TCP reset."""
        self._order(self._break)

    def cut(self) -> None:
        """Break all connections and refuse new ones, until `listen`."""
        self.refuse()
        self.reset()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._pairs)

    def _order(self, what: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((what, done))
        if not done.wait(LIMIT):
            raise TimeoutError("the cable's thread is gone")

    def _open(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.address, self.port), backlog=100)
            self.port = self._listener.getsockname()[1]

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _break(self) -> None:
        for pair in self._pairs:
            pair.reset()
        self._pairs.clear()

    def _carry(self) -> None:
        """Do as ordered and move bytes, until all is over."""
        while not self._over:
            while self._orders:
                what, done = self._orders.popleft()
                what()
                done.set()
            self._round()
        self._close()
        self._break()

    def _round(self) -> None:
        now = time.monotonic()
        flows = [] if self.silent else [flow for pair in self._pairs for flow in pair.flows]
        readers = {flow.source: flow for flow in flows if flow.wants()}
        writers = {flow.sink: flow for flow in flows if flow.due() <= now}
        soon = min((flow.due() for flow in flows if flow.due() > now), default=now + TICK)
        doors = [self._listener] if self._listener else []
        wait = max(0.0, min(soon - now, TICK))
        ready = select.select([*readers, *doors], [*writers], [], wait)
        for source in ready[0]:
            if source is self._listener:
                self._accept(source)
            else:
                readers[source].read(self.delay)
        for sink in ready[1]:
            self.passed += writers[sink].write(self.rate)
        for pair in [pair for pair in self._pairs if pair.over()]:
            pair.reset()
            self._pairs.remove(pair)

    def _accept(self, listener: socket.socket) -> None:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(self.target, timeout=LIMIT)
        except OSError:
            near.close()
        else:
            self._pairs.append(_Pair(near, far))


class _Pair:
    """One connection: two sockets and what flows between them."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.ends = (near, far)
        self.flows = (_Flow(near, far), _Flow(far, near))
        for end in self.ends:
            end.settimeout(0.0)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def over(self) -> bool:
        return all(flow.ended for flow in self.flows) or any(flow.broken for flow in self.flows)

    def reset(self) -> None:
        """Close both ends: with a reset, unless both sides had said their last word."""
        for end in self.ends:
            if not all(flow.ended for flow in self.flows):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.close()


class _Flow:
    """What is under way from one socket to another."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.not_before = 0.0
        self.read_all = self.ended = self.broken = False

    def wants(self) -> bool:
        return not self.read_all and self.size < WINDOW

    def due(self) -> float:
        """When there is something to write next: monotonic seconds."""
        return max(self.chunks[0][0], self.not_before) if self.chunks else float("inf")

    def read(self, delay: float) -> None:
        try:
            data = self.source.recv(CHUNK)
        except OSError:
            self.broken = True
            return
        self.read_all = not data
        self.size += len(data)
        self.chunks.append((time.monotonic() + delay, data))

    def write(self, rate: float) -> int:
        """Hand on one chunk, or as much as `rate` lets through in one tick."""
        when, data = self.chunks.popleft()
        try:
            if not data:
                self.ended = True
                self.sink.shutdown(socket.SHUT_WR)
                return 0
            sent = self.sink.send(data[: max(1, int(rate * TICK))] if rate else data)
        except OSError:
            self.broken = True
            return 0
        if sent < len(data):
            self.chunks.appendleft((when, data[sent:]))
        self.size -= sent
        self.not_before = time.monotonic() + sent / rate if rate else 0.0
        return sent
