"""Streams that go wrong: they drop, end early, or turn out to be too old."""

from __future__ import annotations

import json
from dataclasses import replace

from cvl.testing.faults import EVER
from cvl.testing.kubernetes.faults import Fault, What
from cvl.testing.kubernetes.requests import Stream, Wire
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World


class _Over(Exception):
    """The stream ends here."""


class _Struck:
    """A connection that a fault lies in wait for."""

    def __init__(self, wire: Wire, world: World, fault: Fault) -> None:
        self._wire, self._fault, self._clock = wire, fault, world.clock
        timed = fault.what in (What.STREAM_EXPIRES, What.GONE_EVENT)
        self._left = 2**62 if timed else _length(world, fault)
        self._ends = world.clock.monotonic() + (fault.delay if timed else EVER)

    def send(self, data: bytes) -> None:
        self._wire.send(data[: self._left])
        self._left -= len(data)
        if self._left <= 0:
            if self._fault.what is What.STREAM_DROPS:
                self._wire.reset()
            raise _Over

    def ended(self) -> bool:
        return self._wire.ended()

    def gone(self) -> bool:
        if self._clock.monotonic() >= self._ends:
            raise _Over
        return self._wire.gone()

    def wait(self, *others: int, seconds: float) -> bool:
        until = max(self._ends - self._clock.monotonic(), 0.0)
        return self._wire.wait(*others, seconds=min(seconds, until))

    def receive(self) -> bytes:
        return self._wire.receive()

    def raw(self, data: bytes) -> None:
        self._wire.raw(data)

    def reset(self) -> None:
        self._wire.reset()


def struck(world: World, stream: Stream, fault: Fault) -> Stream:
    """Return the stream as the fault lets it be."""

    def run(wire: Wire) -> None:
        try:
            stream.run(_Struck(wire, world, fault))
        except _Over:
            if fault.what is What.GONE_EVENT:
                wire.send(_gone())

    return replace(stream, run=run)


def _length(world: World, fault: Fault) -> int:
    """Return after how many bytes it strikes."""
    return fault.count + (world.faults.draw(fault.spread) if fault.spread else 0)


def _gone() -> bytes:
    status = ApiError(410, "The resourceVersion for the provided watch is too old.", "Expired")
    return json.dumps({"type": "ERROR", "object": status.status()}).encode() + b"\n"
