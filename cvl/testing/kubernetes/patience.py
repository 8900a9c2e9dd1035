"""How a pod waits: until something may have happened to it, or until it has to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cvl.testing.faults import EVER
from cvl.testing.kubernetes.objects import at, meta, seconds_of
from cvl.testing.kubernetes.pod_state import Report

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet

LOOK = 0.1
"""Seconds between two looks at the clock while a pod waits for a time."""

SAFETY = 10.0
"""Seconds after which a pod looks at its containers, though the engine told it nothing."""

FORCED_GRACE = 2.0
"""Seconds."""

DEADLINE = "Pod was active on the node longer than the specified deadline"
EVICTED = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "


class Ending(Exception):
    """Raised between two steps: the pod has to end. `reason` and `message` are its status."""

    def __init__(self, reason: str = "", message: str = "") -> None:
        super().__init__(reason)
        self.reason, self.message = reason, message


class Patience:
    """The waiting of one pod. Whoever rings `bell` lets it look again."""

    def __init__(self, kubelet: Kubelet, report: Report) -> None:
        self._kubelet, self._report = kubelet, report
        self._clock = kubelet.world.clock
        self.bell = threading.Event()
        self._evict_at: float | None = None

    def evict_after(self, seconds: float) -> None:
        """Let the pod be evicted then."""
        self._evict_at = self._clock.monotonic() + seconds

    def check(self) -> None:
        """Raise `Ending` if the pod has to end."""
        pod = self._report.current()
        if pod is not None:
            self._kubelet.answering(pod)
            pod = self._report.current()
        if pod is None or meta(pod).get("deletionTimestamp") or self._kubelet.closing.is_set():
            raise Ending
        if self._left() <= 0:
            raise Ending("DeadlineExceeded", DEADLINE)
        if self._evict_at is not None and self._clock.monotonic() >= self._evict_at:
            raise Ending("Evicted", EVICTED)

    def wait(self, seconds: float = SAFETY) -> None:
        """Wait until something may have happened. Raises `Ending`."""
        self.check()
        self.bell.wait(LOOK if self._evict_at is not None else min(seconds, self._left()))
        self.bell.clear()
        self.check()

    def _left(self) -> float:
        """Return the seconds until the pod's deadline."""
        pod = self._report.current()
        deadline, started = at(pod, "spec", "activeDeadlineSeconds"), at(pod, "status", "startTime")
        if not deadline or not started:
            return EVER
        return float(seconds_of(started) + deadline - self._clock.time())

    def until(self, done: Callable[[], bool]) -> None:
        """Wait until something holds; look again every second. Raises `Ending`."""
        while not done():
            self.wait(1.0)

    def pause(self, seconds: float) -> None:
        """Wait for a time. Raises `Ending`."""
        ends = self._clock.monotonic() + seconds
        while self._clock.monotonic() < ends:
            self.wait(LOOK)

    def nap(self) -> None:
        """Wait a moment, whatever happens."""
        self.bell.wait(LOOK)
        self.bell.clear()

    def grace(self) -> float:
        """Return the seconds between TERM and KILL; a second DELETE may have shortened them."""
        pod = self._report.current()
        if self._kubelet.closing.is_set():
            return 0.0
        if pod is None:
            return FORCED_GRACE
        told = meta(pod).get("deletionGracePeriodSeconds")
        return float(told if told is not None else pod["spec"]["terminationGracePeriodSeconds"])
