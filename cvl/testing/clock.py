"""The only source of time here; tests inject their own."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """`time` is UTC epoch seconds; `monotonic` never jumps. `cvl.core.scope.SystemClock` is one."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
