"""When and why to stop: one clock, deadlines, signals that only set a flag, checkpoints.

A `Scope` is handed down to everything that waits. Code between two checkpoints is atomic: a
signal sets a flag, the next `checkpoint()` raises, so no id is lost between an API's reply and
the ledger. Clean-up runs in `shielded(...)`, which a signal does not interrupt but a deadline
of its own ends.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from math import inf
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Protocol

from cvl.core.attempts import Attempts
from cvl.core.spec import Cause

Tell = Callable[[str, str], None]
"""Hears a phase and a sentence about it, for a person."""

CAUSES = {
    signal.SIGINT: Cause.INTERRUPTED,
    signal.SIGTERM: Cause.TERMINATED,
    signal.SIGHUP: Cause.HANGUP,
}


def silent(_phase: str, _text: str) -> None:
    """Say nothing to anybody."""


class Bell:
    """Wakes one waiter, also from within a signal handler.

    There `threading.Event` would not do: its lock may be held by the very code that the signal
    interrupted. `SimpleQueue.put` is reentrant by contract.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait."""
        self._queue.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait until rung or until `seconds` have passed; return whether it was rung."""
        try:
            self._queue.get(timeout=max(seconds, 0.0))
        except Empty:
            return False
        return True


class Clock(Protocol):
    """The only source of time. `time` is UTC epoch seconds; `monotonic` never jumps."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
    def wait(self, bell: Bell, seconds: float) -> bool:
        """Wait until `bell` rings or `seconds` have passed; return whether it rang."""
        ...


class SystemClock:
    """The real one."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, bell: Bell, seconds: float) -> bool:
        return bell.wait(seconds)


LOOK = 0.5
"""Seconds between two looks at a patience that may have become shorter."""

WARNING = "warning"
"""The phase that is none: what is told under it goes to `Observer.warn`."""
SILENT, BACK = "silent", "back"
"""Nor are these: a host gives no answer for long; it does again, and the phase before goes on."""


class Cancelled(Exception):
    """Raised at a checkpoint after a signal or `Scope.cancel`."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.value)
        self.cause = cause


class DeadlineExceeded(Exception):
    """Raised at a checkpoint after the scope's own deadline."""


class Hushed(DeadlineExceeded):
    """The same, because nothing was heard from the other side for as long as the scope allows."""


class _Flag:
    """Whether, and why, somebody asked to stop: shared by a scope and those inside it."""

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.bells: list[Bell] = []
        self.heard = -inf


class Scope:
    """A deadline and a reason to stop, shared by everything that works for one purpose."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        seconds: float | None = None,
        tell: Tell = silent,
    ) -> None:
        """`seconds` from now is the deadline; `tell(phase, text)` hears about progress."""
        self.clock = clock or SystemClock()
        self.deadline = None if seconds is None else self.clock.monotonic() + seconds
        self._flag = _Flag()
        self._tell = tell
        self._patience: Callable[[], float] | None = None
        self._began = self.clock.monotonic()

    @property
    def cause(self) -> Cause | None:
        """Why this scope was cancelled, or None."""
        return self._flag.cause

    def cancel(self, cause: Cause) -> None:
        """Ask to stop. The first cause stays; safe in a signal handler and in any thread."""
        if self._flag.cause is None:
            self._flag.cause = cause
        for bell in tuple(self._flag.bells):
            bell.ring()

    def remaining(self) -> float | None:
        """Return the seconds until this is over (never negative), or None without an end."""
        ends = [end for end in (self.deadline, self._hushed()) if end not in {None, inf}]
        return max(0.0, min(ends) - self.clock.monotonic()) if ends else None

    def checkpoint(self) -> None:
        """Raise `Cancelled` or `DeadlineExceeded` if this scope is over."""
        if self._flag.cause is not None:
            raise Cancelled(self._flag.cause)
        if self.deadline is not None and self.clock.monotonic() >= self.deadline:
            raise DeadlineExceeded
        hushed = self._hushed()
        if hushed is not None and self.clock.monotonic() >= hushed:
            raise Hushed

    def sleep(self, seconds: float) -> None:
        """Wait, but not past a cancel or the deadline, and raise as `checkpoint` does."""
        until = self.clock.monotonic() + seconds
        self.wait(lambda: self.clock.monotonic() >= until, Bell(), pause=seconds)

    def wait(self, done: Callable[[], bool], bell: Bell, *, pause: float = 60.0) -> None:
        """Wait until `done()`; whoever changes that rings `bell`. Raises as `checkpoint`."""
        self._flag.bells.append(bell)
        try:
            self.checkpoint()
            while not done():
                left = self.remaining()
                most = pause if self._patience is None else min(pause, LOOK)
                self.clock.wait(bell, most if left is None else min(left, most))
                self.checkpoint()
        finally:
            self._flag.bells.remove(bell)

    def attempts(
        self, pauses: Sequence[float], *, limit: float | None = None, most: float = inf
    ) -> Attempts:
        """Give attempts at one thing: the first now, more until `limit` seconds or this are over.

        Then the loop just ends, as after `most` of them; what stands behind it says what follows.
        Raises `Cancelled` between two of them.
        """
        scope = self.within(limit)

        def rest(pause: float, asked: float) -> bool:
            with suppress(DeadlineExceeded):
                scope.sleep(max(pause, asked))
                return True
            return False

        return Attempts(pauses, rest, most)

    def within(self, seconds: float | None) -> Scope:
        """Return a scope that ends with this one, or after `seconds` if that is sooner."""
        child = copy(self)
        if seconds is not None:
            end = self.clock.monotonic() + seconds
            child.deadline = end if self.deadline is None else min(self.deadline, end)
        return child

    def patient(self, patience: Callable[[], float]) -> Scope:
        """Return a scope that also ends once nothing was `heard` for so many seconds.

        They count from now at the earliest. `patience` is asked again at every look.
        """
        child: Scope = copy(self)
        child._patience, child._began = patience, self.clock.monotonic()
        return child

    def heard(self) -> None:
        """Note that something came from the other side."""
        self._flag.heard = self.clock.monotonic()

    def shielded(self, seconds: float) -> Scope:
        """Return a scope for clean-up: no cancel reaches it, only its own deadline."""
        return Scope(self.clock, seconds=seconds, tell=self._tell)

    def _hushed(self) -> float | None:
        """Return when the patience ends, if there is any to end."""
        if self._patience is None:
            return None
        return max(self._flag.heard, self._began) + self._patience()

    def warn(self, text: str) -> None:
        """Pass on what the user should know, though all goes on."""
        self.tell(WARNING, text)

    def tell(self, phase: str, text: str = "") -> None:
        """Report progress to whoever listens: a phase in one word, the rest for a person."""
        self._tell(phase, text)


_HERE = threading.local()
"""`scope`: what limits the waits in this thread."""


@contextmanager
def limits(scope: Scope) -> Iterator[None]:
    """Let what `nap` waits in this thread end with `scope`: for calls that are given none."""
    before = getattr(_HERE, "scope", None)
    _HERE.scope = scope
    try:
        yield
    finally:
        _HERE.scope = before


def nap(pause: float, asked: float = 0.0, clock: Clock | None = None) -> None:
    """Wait `pause` seconds between two attempts, or as long as the other side has `asked` for.

    What it asked for ends with the scope that `limits` gave, without a word: whoever waits then
    tries once more. Raises nothing.
    """
    clock = clock or SystemClock()
    clock.wait(Bell(), pause)
    if asked > pause:
        scope: Scope = getattr(_HERE, "scope", None) or Scope(clock)
        with suppress(Cancelled, DeadlineExceeded):
            scope.sleep(asked - pause)


_SIGNALLED: list[Scope] = []
"""The scopes that a signal to this process cancels at the moment."""


def interrupted() -> None:
    """Raise `Cancelled` if a signal has come: for work that takes long and is given no scope."""
    for scope in _SIGNALLED:
        if scope.cause is not None:
            raise Cancelled(scope.cause)


@contextmanager
def signals(scope: Scope, again: Callable[[int], None]) -> Iterator[None]:
    """Let INT, TERM and HUP cancel `scope` while the block runs; then restore the old handlers.

    The first signal only sets the flag. `again(n)` is called, in the handler, for the n-th of
    them from the second on: it may say what is being cleaned up, or leave. Outside the main
    thread, where Python allows no handlers, the block just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        scope.cancel(CAUSES[signal.Signals(number)])
        if count > 1:
            again(count)

    before = {number: signal.signal(number, handle) for number in CAUSES}
    _SIGNALLED.append(scope)
    try:
        yield
    finally:
        _SIGNALLED.remove(scope)
        for number, handler in before.items():
            signal.signal(number, handler)
