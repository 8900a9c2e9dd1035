"""What stands behind an instance: nothing, a plain sshd, or a machine with a power switch."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from cvl.testing.clock import Clock
from cvl.testing.machine import Image


class Host(Protocol):
    """One computer. Nothing here waits: what takes time is done in the background, in order."""

    @property
    def address(self) -> str:
        """Where it is reached, once it has booted."""
        ...

    @property
    def ready_at(self) -> float | None:
        """When it had booted, by the cloud's monotonic clock; None while it has not."""
        ...

    @property
    def alive(self) -> bool:
        """Whether its system runs. Only asked once it has booted."""
        ...

    def power_on(self) -> None: ...
    def power_cut(self) -> None:
        """Nobody at the other end of a connection is told."""
        ...

    def reboot(self) -> None: ...
    def move(self) -> None:
        """Get another address."""
        ...

    def destroy(self) -> None:
        """Take it away for good. Idempotent."""
        ...


class Hosts(Protocol):
    """Builds computers. `close` destroys every one, and waits for that."""

    kind: str

    @property
    def errors(self) -> list[str]:
        """What went wrong in the background."""
        ...

    def new(self, image: Image) -> Host: ...
    def close(self) -> None: ...


class NoHosts:
    """Nothing at all: connections to the address are refused. Costs nothing."""

    kind = "none"

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.errors: list[str] = []

    def new(self, image: Image) -> Host:
        del image
        return _NoHost(self._address)

    def close(self) -> None:
        pass

    def _address(self) -> str:
        high, low = divmod(next(self._numbers), 250)
        return f"127.77.{high % 250}.{low + 1}"


class _NoHost:
    ready_at: float | None = float("-inf")

    def __init__(self, fresh: Callable[[], str]) -> None:
        self._fresh = fresh
        self.address = fresh()
        self.alive = True

    def power_on(self) -> None:
        self.alive = True

    def power_cut(self) -> None:
        self.alive = False

    def reboot(self) -> None:
        self.alive = True

    def move(self) -> None:
        self.address = self._fresh()

    def destroy(self) -> None:
        self.alive = False


class Worker:
    """Does what takes time for one host, in order, and keeps the time of its last boot."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._lock = threading.Lock()
        self._ended = False
        self.ready_at: float | None = None
        self.error = ""

    def boot(self, work: Callable[[], None]) -> None:
        """Do `work`; the host has booted when it returns."""
        self.ready_at = None
        self.do(work, booted=True)

    def do(self, work: Callable[[], None], *, booted: bool = False, last: bool = False) -> None:
        """Do `work` after what was asked before; nothing is done after the `last`."""
        with self._lock:
            if not self._ended:
                self._ended = last
                self._pool.submit(self._run, work, booted)
            if last:
                self._pool.shutdown(wait=False)

    def join(self) -> None:
        """Wait until the last thing is done."""
        self._pool.shutdown(wait=True)

    def _run(self, work: Callable[[], None], booted: bool) -> None:  # noqa: FBT001
        try:
            work()
            if booted:
                self.ready_at = self._clock.monotonic()
        except (OSError, ValueError, RuntimeError) as error:
            self.error = str(error)
