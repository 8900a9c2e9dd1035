"""Does things in threads of their own, so that one that hangs or fails is in nobody's way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from cvl.core.scope import Bell, Scope, limits

T = TypeVar("T")

MOST = 16
"""Calls that are made at once."""


def bounded(call: Callable[[], T], scope: Scope) -> T:
    """Return what `call` returns, but wait no longer than `scope`: it may hang in a dead pipe.

    It goes on in a thread of its own when the scope ends first. Raises as `call` and `scope`.
    """
    bell, results, errors = Bell(), list[T](), list[BaseException]()

    def work() -> None:
        try:
            with limits(scope):
                results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            errors.append(error)
        finally:
            bell.ring()

    threading.Thread(target=work, name="cvl-bounded", daemon=True).start()
    scope.wait(lambda: bool(results or errors), bell)
    if errors:
        raise errors[0]
    return results[0]


def together(calls: Sequence[Callable[[], T]], seconds: float) -> list[T | Exception]:
    """Make all calls, each in a thread; return what each returned or raised, in their order.

    What has not come back after `seconds` is a `TimeoutError`; it goes on in its thread, which
    keeps no process alive.
    """
    late = TimeoutError(f"no answer within {seconds:.0f} s")
    results: list[T | Exception] = [late] * len(calls)
    places = iter(range(len(calls)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            try:
                results[place] = calls[place]()
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller judges
                results[place] = error

    count = min(MOST, len(calls))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    limit = Scope(seconds=seconds)
    for thread in threads:
        thread.join(limit.remaining())
    return list(results)


def as_they_come(
    calls: Sequence[Callable[[], T]], seconds: Sequence[float]
) -> Iterator[tuple[int, T | Exception]]:
    """Make all calls, each in a thread; yield which it was and what it returned or raised.

    The first to be done comes first. A call that is not back after its `seconds` is a
    `TimeoutError`; it goes on in its thread, which keeps no process alive.
    """
    queue: SimpleQueue[tuple[int, T | Exception]] = SimpleQueue()

    def work(place: int) -> None:
        try:
            queue.put((place, calls[place]()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller judges
            queue.put((place, error))

    scopes = {place: Scope(seconds=each) for place, each in enumerate(seconds)}
    for place in range(len(calls)):
        threading.Thread(target=work, args=(place,), daemon=True).start()
    while scopes:
        first = min(scopes, key=lambda place: seconds[place])
        try:
            place, result = queue.get(timeout=scopes[first].remaining())
        except Empty:
            del scopes[first]
            yield first, TimeoutError(f"no answer within {seconds[first]:.0f} s")
            continue
        if scopes.pop(place, None) is not None:
            yield place, result
