"""Logs of containers, as the kubelet gives them out: since when, how much, with what before it.

A line of over 16 KiB comes in parts, of which only the first has a time, as from 1.29 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice

from cvl.testing.kubernetes.engine_api import EngineApi, EngineError
from cvl.testing.kubernetes.logfile import LogFile, Record
from cvl.testing.kubernetes.wire import Wire, readable
from cvl.testing.kubernetes.world import LogWish

LOOK = 1.0
"""Seconds between two looks at whether anybody still listens."""


class Log:
    """One reading of one container's log."""

    def __init__(self, engine: EngineApi, container: str, wish: LogWish) -> None:
        self._engine, self._container, self._wish = engine, container, wish
        self._path = engine.root / "containers" / container / "local-logs/container.log"
        self._left = 2**62 if wish.limit is None else wish.limit
        self._fresh = True

    def send(self, wire: Wire) -> None:
        """Send the log, and what comes if that is wished, until the container has ended."""
        if self._wish.tail is None:
            self._write_all(wire, self._wanted(self._read(wire, follow=self._wish.follow)))
            return
        seen = list(self._wanted(self._read(wire, follow=False)))
        self._write_all(wire, _tail(seen, self._wish.tail))
        if self._wish.follow:  # from where we were: what came in between is not lost
            more = self._wanted(self._read(wire, follow=True))
            self._write_all(wire, islice(more, len(seen), None))

    def _wanted(self, records: Iterable[Record]) -> Iterator[Record]:
        return (each for each in records if each.time >= (self._wish.since or 0))

    def _read(self, wire: Wire, *, follow: bool) -> Iterator[Record]:
        with closing(LogFile(self._path)) as file:
            if follow:
                for _ in self._bells(wire):
                    yield from file.read()
            yield from file.read()

    def _bells(self, wire: Wire) -> Iterator[None]:
        """Yield whenever there may be more, until the container has ended or nobody listens."""
        path = f"/containers/{self._container}/logs"
        try:
            connection, _ = self._engine.open("GET", path, stdout=1, stderr=1, follow=1, tail=0)
        except EngineError:
            return  # the container has just been removed
        with connection:
            yield
            while _ready(wire, connection.fileno()):
                if not connection.recv(2**16):
                    return
                yield

    def _write_all(self, wire: Wire, records: Iterable[Record]) -> None:
        for record in records:
            if self._left <= 0:
                return
            self._write(wire, record)

    def _write(self, wire: Wire, record: Record) -> None:
        stamped = self._wish.timestamps and self._fresh
        data = record.stamp + b" " + record.data if stamped else record.data
        self._fresh = record.data.endswith(b"\n")
        wire.send(data[: self._left])
        self._left -= len(data)


def _ready(wire: Wire, engine: int) -> bool:
    """Wait for the engine; return False if the client has gone first."""
    while not wire.gone():
        wire.wait(engine, seconds=LOOK)
        if readable(0.0, engine):
            return True
    return False


def _tail(records: list[Record], lines: int) -> list[Record]:
    """Return the last lines, each with all its parts."""
    kept: list[Record] = []
    for record in reversed(records):
        if record.data.endswith(b"\n") or not kept:
            lines -= 1
        if lines < 0:
            break
        kept.append(record)
    return kept[::-1]
