"""The faults that lie in wait in a fake service, and when each of them strikes."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cvl.testing.clock import Clock

EVER = 10.0**9
"""Seconds that stand for "does not end"."""


class Fault(Protocol):
    """One thing that goes wrong, and when: what each service's own `Fault` has.

    `on` is an operation, "*" any. `skip` matching requests are let pass; then `times` are struck
    (0: no limit), for as long as `seconds` after the injection, each with this `chance`.
    """

    @property
    def what(self) -> str: ...
    @property
    def on(self) -> str: ...
    @property
    def skip(self) -> int: ...
    @property
    def times(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def chance(self) -> float: ...


F = TypeVar("F", bound=Fault)


@dataclass(slots=True, kw_only=True)
class _Waiting(Generic[F]):
    fault: F
    until: float
    skip: int
    left: int


class Armed(Generic[F]):
    """The faults that are armed now. Safe in any thread."""

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[F]] = []
        self._random = random.Random(seed)

    def inject(self, fault: F) -> None:
        """Arm `fault`, from now on."""
        until = self._clock.monotonic() + fault.seconds
        waiting = _Waiting(fault=fault, until=until, skip=fault.skip, left=fault.times or 2**62)
        with self._lock:
            self._waiting.append(waiting)

    def clear(self) -> None:
        """Disarm everything."""
        with self._lock:
            self._waiting.clear()

    def take(self, operation: str, kinds: Collection[str]) -> F | None:
        """Return the first armed fault of these kinds that strikes `operation`."""
        with self._lock:
            return next(self._striking(operation, kinds), None)

    def take_all(self, operation: str, kinds: Collection[str]) -> list[F]:
        """Return every armed fault of these kinds that strikes `operation`."""
        with self._lock:
            return list(self._striking(operation, kinds))

    def draw(self, below: int) -> int:
        """Return a number from 0 to less than `below`, by lot."""
        with self._lock:
            return self._random.randrange(below)

    def _striking(self, operation: str, kinds: Collection[str]) -> Iterator[F]:
        now = self._clock.monotonic()
        self._waiting = [each for each in self._waiting if each.left and each.until > now]
        for waiting in self._waiting:
            fault = waiting.fault
            if fault.what in kinds and fault.on in ("*", operation) and self._strikes(waiting):
                yield fault

    def _strikes(self, waiting: _Waiting[F]) -> bool:
        if waiting.skip:
            waiting.skip -= 1
            return False
        if self._random.random() >= waiting.fault.chance:
            return False
        waiting.left -= 1
        return True
