"""Everything that can go wrong with this cluster, each by its name in `FAULTS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from cvl.testing.faults import EVER, Armed


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

    STREAM_DROPS = "stream-drops"  # watch, log: reset after `count` bytes
    STREAM_ENDS = "stream-ends"  # watch, log: ends as if all were well after `count` bytes
    STREAM_EXPIRES = "stream-expires"  # watch, log: ends as if all were well after `delay`
    STALE = "stale"  # a list shows nothing, a single object is 404
    GONE_EVENT = "gone-event"  # watch: an ERROR event says 410

    STUCK = "stuck"  # delete: a finalizer holds the object back, until `release`
    IGNORED = "ignored"  # delete: says 200 and does nothing
    EARLY_TTL = "early-ttl"  # jobs are deleted as soon as they have ended
    NO_PULL = "no-pull"  # images cannot be pulled: ErrImagePull, then ImagePullBackOff
    EVICTED = "evicted"  # a pod is evicted `delay` after it began to run, for its disk usage


WIRE = frozenset(
    {What.RESET, What.HANG, What.SLOW, What.GARBAGE, What.TRUNCATED, What.HTTP, What.LATE}
)
STREAM = frozenset({What.STREAM_DROPS, What.STREAM_ENDS, What.STREAM_EXPIRES, What.GONE_EVENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and when.

    `on` is RBAC's verb and the resource ("create jobs", "watch pods", "get pods/log"), "*" any.
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
LOG, WATCH = "get pods/log", "watch pods"
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
        **_everywhere("create services", "service"),
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
        "pod-stuck": Fault(what=What.STUCK, on="delete pods"),
        "job-get-500": Fault(what=What.HTTP, on="get jobs"),
        "job-get-404": Fault(what=What.STALE, on="get jobs"),
        "list-stale": Fault(what=What.STALE, on="list pods"),
        "list-500": Fault(what=What.HTTP, on="list pods"),
        "list-429": Fault(what=What.HTTP, on="list pods", status=429, retry_after=1),
        "list-410": Fault(what=What.HTTP, on="list pods", status=410, reason="Expired"),
        "watch-410": Fault(what=What.HTTP, on=WATCH, status=410, reason="Expired"),
        "watch-410-event": Fault(what=What.GONE_EVENT, on=WATCH, delay=0.2),
        "watch-closes": Fault(what=What.STREAM_EXPIRES, on=WATCH, times=0, delay=2.0),
        "watch-drops": Fault(what=What.STREAM_DROPS, on=WATCH, count=500, spread=5000),
        "log-400": Fault(what=What.HTTP, on=LOG, status=400),
        "log-500": Fault(what=What.HTTP, on=LOG),
        "log-429": Fault(what=What.HTTP, on=LOG, status=429, retry_after=1),
        "log-drops": Fault(what=What.STREAM_DROPS, on=LOG, times=0, count=1, spread=4096),
        "log-ends": Fault(what=What.STREAM_ENDS, on=LOG, times=0, count=1, spread=4096),
        "log-expires": Fault(what=What.STREAM_EXPIRES, on=LOG, times=0, delay=1.0),
        "ttl-early": Fault(what=What.EARLY_TTL, on="ttl", times=0),
        "pull-fails": Fault(what=What.NO_PULL, on="pull"),
        "pull-fails-ever": Fault(what=What.NO_PULL, on="pull", times=0),
        "evicted": Fault(what=What.EVICTED, on="run", delay=1.0),
        "any-401": Fault(what=What.HTTP, status=401, message="Unauthorized"),
        "any-429": Fault(what=What.HTTP, status=429, retry_after=1),
        "any-500": Fault(what=What.HTTP),
        "any-slow": Fault(what=What.SLOW, delay=1.0),
        "any-reset": Fault(what=What.RESET),
        "outage": Fault(what=What.OUTAGE, delay=3.0),
        "outage-503": Fault(what=What.HTTP, times=0, seconds=3.0, status=503),
    }
)
