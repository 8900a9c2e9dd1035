"""Logs of containers, as the kubelet gives them out: since when, how much, with what before it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from cvl.testing.kubernetes.engine_api import EngineApi, EngineError
from cvl.testing.kubernetes.frames import Frames
from cvl.testing.kubernetes.objects import nanoseconds_of
from cvl.testing.kubernetes.requests import Wire
from cvl.testing.kubernetes.sockets import readable
from cvl.testing.kubernetes.world import LogWish

LOOK = 1.0
"""Seconds between two looks at whether anybody still listens."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a container wrote at one moment: a line, or 16 KiB of a longer one."""

    time: bytes
    data: bytes

    @property
    def nanoseconds(self) -> int:
        return nanoseconds_of(self.time.decode())


class Log:
    """One reading of one container's log."""

    def __init__(
        self, engine: EngineApi, container: str, wish: LogWish, *, split: bool = False
    ) -> None:
        """`split`: put timestamps into the middle of long lines, as kubelets did up to 1.28."""
        self._engine, self._container, self._wish, self._split = engine, container, wish, split
        self._left = 2**62 if wish.limit is None else wish.limit
        self._fresh = True

    def send(self, wire: Wire) -> None:
        """Send the log, and what comes if that is wished, until the container has ended."""
        if self._wish.tail is not None:
            seen = list(self._wanted(self._read(wire, follow=False)))
            self._write_all(wire, _tail(seen, self._wish.tail))
            if self._wish.follow:  # from where we were: what came in between is not lost
                more = self._wanted(self._read(wire, follow=True))
                self._write_all(wire, islice(more, len(seen), None))
            return
        self._write_all(wire, self._wanted(self._read(wire, follow=self._wish.follow)))

    def _write_all(self, wire: Wire, records: Iterable[Record]) -> None:
        for record in records:
            if self._left <= 0:
                return
            self._write(wire, record)

    def _wanted(self, records: Iterator[Record]) -> Iterator[Record]:
        since = self._wish.since
        if self._wish.age is not None:
            since = time.time_ns() - self._wish.age * 10**9
        for record in records:
            if since is None or record.nanoseconds >= since:
                yield record

    def _read(self, wire: Wire, *, follow: bool) -> Iterator[Record]:
        """Read from the engine, for as long as somebody listens."""
        wish = self._wish
        try:
            connection, rest = self._engine.open(
                "GET",
                f"/containers/{self._container}/logs",
                stdout=int(wish.stream in ("All", "Stdout")),
                stderr=int(wish.stream in ("All", "Stderr")),
                timestamps=1,
                follow=int(follow),
            )
        except EngineError:
            return  # the container has just been removed
        with connection:
            frames = Frames(connection, bytearray(rest))
            while True:
                for _, data in frames.take():
                    stamp, _, line = data.partition(b" ")
                    yield Record(stamp, line)
                if not _ready(wire, connection.fileno()) or not frames.read():
                    return

    def _write(self, wire: Wire, record: Record) -> None:
        stamped = self._wish.timestamps and (self._fresh or self._split)
        data = record.time + b" " + record.data if stamped else record.data
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
