"""Waits for a call no longer than a scope allows: it may hang in a dead pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from cvl.core.scope import Bell, Scope, limits

T = TypeVar("T")


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
