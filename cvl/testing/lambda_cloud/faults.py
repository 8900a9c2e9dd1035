"""Everything that can go wrong with this cloud, each by its name in `FAULTS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from cvl.testing.faults import EVER, Armed
from cvl.testing.lambda_cloud.replies import CAPACITY, INVALID, MISSING


class What(StrEnum):
    """What goes wrong. The first group happens on the wire, to any request."""

    RESET = "reset"  # the connection is reset
    HANG = "hang"  # no answer, until the client gives up
    SLOW = "slow"  # the answer takes `delay`
    DRIP = "drip"  # the answer comes byte by byte, `delay` apart
    NO_DATE = "no-date"  # the answer is as it should be, without an HTTP `Date`
    GARBAGE = "garbage"  # 200 with a body that is not JSON
    TRUNCATED = "truncated"  # the answer breaks off in the middle
    HTTP = "http"  # the answer is `status` with `code`
    OUTAGE = "outage"  # for `delay`, nothing listens there

    STALE = "stale"  # a list shows nothing, a single object is 404
    UNKNOWN_STATUS = "unknown-status"  # instances are shown with a status nobody documented
    BARE = "bare"  # instances are shown with the required fields alone: no name, no tags
    SENSELESS = "senseless"  # what is shown lacks fields that are required

    LATE = "late"  # launch: takes effect only `delay` later; the client hears nothing
    HIDDEN = "hidden"  # launch: missing from the next `count` reads
    NO_BOOT = "no-boot"  # launch: boots for ever
    UNHEALTHY = "unhealthy"  # launch: unhealthy instead of active
    NO_IP = "no-ip"  # launch: active without `ip` for `delay`
    NEW_IP = "new-ip"  # launch: another address `delay` after it became active
    NO_SSH = "no-ssh"  # launch: active, but no SSH for `delay`
    OTHER_KEY = "other-key"  # launch: SSH shows another host key for `delay`
    PREEMPTED = "preempted"  # launch: taken away `delay` after it became active

    IGNORED = "ignored"  # terminate: says 200 and does nothing
    BUSY = "busy"  # terminate: refused for an instance that still boots
    LINGERS = "lingers"  # terminate: `terminating` for `delay`


WIRE = frozenset(
    {What.RESET, What.HANG, What.SLOW, What.GARBAGE, What.TRUNCATED, What.HTTP, What.LATE}
    | {What.DRIP, What.NO_DATE}
)
HARMLESS = frozenset({What.SLOW, What.NO_DATE})
"""What happens on the wire to an answer that is right all the same."""
SHOWN = frozenset({What.STALE, What.UNKNOWN_STATUS, What.BARE, What.SENSELESS})
BOOT = frozenset(
    {What.HIDDEN, What.NO_BOOT, What.UNHEALTHY, What.NO_IP, What.NEW_IP, What.NO_SSH}
    | {What.OTHER_KEY, What.PREEMPTED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and when.

    `on` is an operationId of the API document, "*" any. A wire fault strikes before the request
    has its effect, or `after` it. `skip` matching requests are let pass; then `times` are struck
    (0: no limit), for as long as `seconds` after the injection, each with this `chance`.
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
    status: int = 500
    code: str = "global/internal-error"


Faults = Armed[Fault]

LAUNCH, TERMINATE, LIST, GET = "launchInstance", "terminateInstance", "listInstances", "getInstance"
WRONG_KEY = "global/invalid-api-key"
ADD_KEY, DELETE_KEY = "addSSHKey", "deleteSSHKey"


def _everywhere(operation: str, stem: str) -> dict[str, Fault]:
    """Return what can happen on the wire to one operation, before and after its effect."""
    server_error = Fault(what=What.HTTP, on=operation, after=True)
    return {
        f"{stem}-timeout-before": Fault(what=What.HANG, on=operation),
        f"{stem}-timeout-after": Fault(what=What.HANG, on=operation, after=True),
        f"{stem}-reset-before": Fault(what=What.RESET, on=operation),
        f"{stem}-reset-after": Fault(what=What.RESET, on=operation, after=True),
        f"{stem}-500-before": Fault(what=What.HTTP, on=operation),
        f"{stem}-500-after": server_error,
        f"{stem}-502-after": Fault(what=What.HTTP, on=operation, after=True, status=502, code=""),
        f"{stem}-garbage-after": Fault(what=What.GARBAGE, on=operation, after=True),
        f"{stem}-truncated-after": Fault(what=What.TRUNCATED, on=operation, after=True),
        f"{stem}-drip-after": Fault(what=What.DRIP, on=operation, after=True, delay=0.2),
        f"{stem}-429-before": Fault(what=What.HTTP, on=operation, status=429, code=""),
        f"{stem}-429-after": Fault(what=What.HTTP, on=operation, after=True, status=429, code=""),
        f"{stem}-401-before": _refused(operation, 401, WRONG_KEY),
        f"{stem}-401-after": replace(_refused(operation, 401, WRONG_KEY), after=True),
        f"{stem}-403-before": _refused(operation, 403, "global/forbidden"),
        f"{stem}-403-after": replace(_refused(operation, 403, "global/forbidden"), after=True),
    }


def _refused(operation: str, status: int, code: str) -> Fault:
    return Fault(what=What.HTTP, on=operation, status=status, code=code)


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        **_everywhere(LAUNCH, "launch"),
        "launch-late": Fault(what=What.LATE, on=LAUNCH, delay=3.0),
        "launch-no-capacity": _refused(LAUNCH, 400, CAPACITY),
        "launch-quota": _refused(LAUNCH, 400, "global/quota-exceeded"),
        "launch-object-missing": _refused(LAUNCH, 404, MISSING),
        "launch-bad-address": _refused(LAUNCH, 403, "global/invalid-address"),
        "launch-hidden": Fault(what=What.HIDDEN, on=LAUNCH, count=3),
        "boot-for-ever": Fault(what=What.NO_BOOT, on=LAUNCH),
        "boot-unhealthy": Fault(what=What.UNHEALTHY, on=LAUNCH),
        "boot-no-ip": Fault(what=What.NO_IP, on=LAUNCH, delay=1.0),
        "boot-no-ip-ever": Fault(what=What.NO_IP, on=LAUNCH, delay=EVER),
        "boot-new-ip": Fault(what=What.NEW_IP, on=LAUNCH, delay=1.0),
        "boot-no-ssh": Fault(what=What.NO_SSH, on=LAUNCH, delay=EVER),
        "boot-late-ssh": Fault(what=What.NO_SSH, on=LAUNCH, delay=2.0),
        "boot-other-host-key": Fault(what=What.OTHER_KEY, on=LAUNCH, delay=2.0),
        "preempted": Fault(what=What.PREEMPTED, on=LAUNCH, delay=1.0),
        **_everywhere(TERMINATE, "terminate"),
        "terminate-refused": Fault(what=What.BUSY, on=TERMINATE, times=0),
        "terminate-ignored": Fault(what=What.IGNORED, on=TERMINATE),
        "terminate-404": _refused(TERMINATE, 404, MISSING),
        "terminate-unknown": _refused(TERMINATE, 400, "global/unknown"),
        "terminate-slow": Fault(what=What.LINGERS, on=TERMINATE, delay=3.0),
        "list-stale": Fault(what=What.STALE, on=LIST),
        "list-unknown-status": Fault(what=What.UNKNOWN_STATUS, on=LIST),
        "list-bare": Fault(what=What.BARE, on=LIST, times=0),
        "list-senseless": Fault(what=What.SENSELESS, on=LIST),
        "list-500": Fault(what=What.HTTP, on=LIST),
        "list-garbage": Fault(what=What.GARBAGE, on=LIST),
        "list-429": Fault(what=What.HTTP, on=LIST, status=429, code=""),
        "list-timeout": Fault(what=What.HANG, on=LIST),
        "list-drip": Fault(what=What.DRIP, on=LIST, after=True, delay=0.2),
        "get-404": Fault(what=What.STALE, on=GET),
        "get-unknown-status": Fault(what=What.UNKNOWN_STATUS, on=GET),
        "get-senseless": Fault(what=What.SENSELESS, on=GET),
        "get-500": Fault(what=What.HTTP, on=GET),
        **_everywhere(ADD_KEY, "key"),
        "key-duplicate": _refused(ADD_KEY, 400, "global/duplicate"),
        "key-delete-fails": Fault(what=What.HTTP, on=DELETE_KEY),
        "key-delete-refused": _refused(DELETE_KEY, 400, INVALID),
        "key-delete-reset-after": Fault(what=What.RESET, on=DELETE_KEY, after=True),
        "any-429": Fault(what=What.HTTP, status=429, code=""),
        "any-500": Fault(what=What.HTTP),
        "any-slow": Fault(what=What.SLOW, delay=1.0),
        "no-date": Fault(what=What.NO_DATE, times=0),
        "inactive": _refused("*", 403, "global/account-inactive"),
        "outage": Fault(what=What.OUTAGE, delay=3.0),
        "outage-500": Fault(what=What.HTTP, times=0, seconds=3.0, status=503, code=""),
    }
)
