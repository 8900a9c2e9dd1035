"""Does several things side by side, so that one that hangs or fails is in nobody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST = 16
"""Calls that are made at once."""


def together(calls: Sequence[Callable[[], T]], seconds: float) -> list[T | Exception]:
    """Make all calls, each in a thread; return what each returned or raised, in their order.

    What has not come back after `seconds` is a `TimeoutError`; it goes on in its thread, which
    keeps no process alive.
    """
    late = TimeoutError(f"no answer within {seconds:.0f} s")
    found: list[T | Exception] = [late] * len(calls)
    left = iter(range(len(calls)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                place = next(left, None)
            if place is None:
                return
            try:
                found[place] = calls[place]()
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller judges
                found[place] = error

    count = min(MOST, len(calls))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(found)
