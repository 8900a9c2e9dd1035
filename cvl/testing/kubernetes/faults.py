"""Everything that can go wrong with this cluster, each by its name in `FAULTS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from cvl.testing.faults import EVER, Armed
from cvl.testing.kubernetes.requests import Stream
from cvl.testing.kubernetes.wire import Wire


class What(StrEnum):
    """What goes wrong. The first group happens on the wire, to any request."""

    RESET = "reset"  # the connection is reset
    HANG = "hang"  # no answer, until the client gives up
    SLOW = "slow"  # the answer takes `delay`
    GARBAGE = "garbage"  # 200 with a body that is not JSON
    TRUNCATED = "truncated"  # the answer breaks off in the middle
    HTTP = "http"  # the answer is `status`, a Status with `reason`; `retry_after` a header
    OUTAGE = "outage"  # for `delay`, nothing listens there
    LATE = "late"  # takes effect only `delay` later; the client hears nothing

    STREAM_DROPS = "stream-drops"  # log: reset after `count` bytes
    STREAM_ENDS = "stream-ends"  # log: ends as if all were well after `count` bytes
    STALE = "stale"  # a list shows nothing, a single object is 404

    STUCK = "stuck"  # delete: a finalizer holds the object back, until it is taken off
    IGNORED = "ignored"  # delete: says 200 and does nothing
    EVICTED = "evicted"  # a pod is evicted `delay` after it began to run, for its disk usage


WIRE = frozenset(
    {What.RESET, What.HANG, What.SLOW, What.GARBAGE, What.TRUNCATED, What.HTTP, What.LATE}
)
STREAM = frozenset({What.STREAM_DROPS, What.STREAM_ENDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and when.

    `on` is RBAC's verb and the resource ("create jobs", "list pods", "get pods/log"), "*" any.
    A wire fault strikes before the request has its effect, or `after` it. `skip` matching
    requests are let pass; then `times` are struck (0: no limit), for as long as `seconds` after
    the injection, each with this `chance`. Times are in seconds.
    """

    what: What
    on: str = "*"
    after: bool = False
    skip: int = 0
    times: int = 1
    seconds: float = EVER
    chance: float = 1.0
    delay: float = 0.0
    count: int = 0
    spread: int = 0
    """Up to so many bytes are added to `count`, drawn by lot."""
    status: int = 500
    reason: str = ""
    message: str = ""
    retry_after: int | None = None


Faults = Armed[Fault]

CREATE, DELETE = "create jobs", "delete jobs"
LOG = "get pods/log"
TIMEOUT = "Timeout: request did not complete within requested timeout"


def _everywhere(operation: str, stem: str) -> dict[str, Fault]:
    """Return what can happen on the wire to one operation, before and after its effect."""
    return {
        f"{stem}-timeout-before": Fault(what=What.HANG, on=operation),
        f"{stem}-timeout-after": Fault(what=What.HANG, on=operation, after=True),
        f"{stem}-reset-before": Fault(what=What.RESET, on=operation),
        f"{stem}-reset-after": Fault(what=What.RESET, on=operation, after=True),
        f"{stem}-500-before": Fault(what=What.HTTP, on=operation),
        f"{stem}-500-after": Fault(what=What.HTTP, on=operation, after=True),
        f"{stem}-504-after": Fault(
            what=What.HTTP, on=operation, after=True, status=504, message=TIMEOUT
        ),
        f"{stem}-garbage-after": Fault(what=What.GARBAGE, on=operation, after=True),
        f"{stem}-truncated-after": Fault(what=What.TRUNCATED, on=operation, after=True),
        f"{stem}-429-before": Fault(what=What.HTTP, on=operation, status=429, retry_after=1),
        f"{stem}-slow": Fault(what=What.SLOW, on=operation, delay=2.0),
        f"{stem}-late": Fault(what=What.LATE, on=operation, delay=2.0),
    }


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        **_everywhere(CREATE, "create"),
        **_everywhere("create secrets", "secret"),
        **_everywhere(DELETE, "delete"),
        **{
            f"create-{status}-{when}": Fault(
                what=What.HTTP, on=CREATE, status=status, after=when == "after"
            )
            for status in (401, 403)
            for when in ("before", "after")
        },
        "delete-stuck": Fault(what=What.STUCK, on=DELETE),
        "delete-ignored": Fault(what=What.IGNORED, on=DELETE),
        "job-get-500": Fault(what=What.HTTP, on="get jobs"),
        "job-get-404": Fault(what=What.STALE, on="get jobs"),
        "list-stale": Fault(what=What.STALE, on="list pods"),
        "list-500": Fault(what=What.HTTP, on="list pods"),
        "list-429": Fault(what=What.HTTP, on="list pods", status=429, retry_after=1),
        "list-410": Fault(what=What.HTTP, on="list pods", status=410, reason="Expired"),
        "log-400": Fault(what=What.HTTP, on=LOG, status=400),
        "log-500": Fault(what=What.HTTP, on=LOG),
        "log-429": Fault(what=What.HTTP, on=LOG, status=429, retry_after=1),
        "log-drops": Fault(what=What.STREAM_DROPS, on=LOG, times=0, count=1, spread=4096),
        "evicted": Fault(what=What.EVICTED, on="run", delay=1.0),
        "any-429": Fault(what=What.HTTP, status=429, retry_after=1),
        "any-500": Fault(what=What.HTTP),
        "outage": Fault(what=What.OUTAGE, delay=3.0),
        "outage-503": Fault(what=What.HTTP, times=0, seconds=3.0, status=503),
    }
)


def struck(faults: Faults, stream: Stream, fault: Fault) -> Stream:
    """Return a stream as its fault lets it be: it breaks off or ends after so many bytes."""

    def run(wire: Wire) -> None:
        try:
            stream.run(_Struck(wire, faults, fault))
        except _Over:
            return

    return replace(stream, run=run)


class _Over(Exception):
    """The stream ends here."""


class _Struck(Wire):
    """A connection that a fault lies in wait for."""

    def __init__(self, wire: Wire, faults: Faults, fault: Fault) -> None:
        super().__init__(wire.listener, wire.talk)
        self._fault = fault
        self._left = fault.count + (faults.draw(fault.spread) if fault.spread else 0)

    def send(self, data: bytes) -> None:
        super().send(data[: self._left])
        self._left -= len(data)
        if self._left <= 0:
            if self._fault.what is What.STREAM_DROPS:
                self.reset()
            raise _Over
