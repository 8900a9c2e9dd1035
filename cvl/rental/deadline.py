"""When a rented machine must be gone, whatever happens: reckoned from time and from money."""

from __future__ import annotations

from decimal import Decimal

from cvl.cleanup.leases import HOUR
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.spec import Limits
from cvl.core.units import elapsed

BUILD_LIMIT = 3600.0
"""Seconds that building an image may take, when the deadline is reckoned."""
NO_LIMIT = 24 * 3600.0
"""Seconds after which a machine is ended when neither time nor money was limited."""
SHARE = 0.2
"""The part of a bought time that is kept for fetching, at most."""
POINTLESS, SHORT = 10.0, 600.0
"""Seconds that are not worth a machine; that may go by before it is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """How long a machine may live: seconds from its creation, and why just so long.

    `room` are the last of them: to stop the job, and to fetch.
    """

    seconds: float
    room: float
    why: str


def deadline_of(limits: Limits, price: Decimal, boot: float, *, builds: bool) -> Deadline:
    """Return boot + build + timeout + grace + fetch, or what the money buys if that is less."""
    room = limits.grace + limits.fetch
    if limits.timeout is None:
        deadline = Deadline(seconds=NO_LIMIT, room=room, why="no --timeout was given")
    else:
        build = BUILD_LIMIT if builds else 0.0
        total = boot + build + limits.timeout + room
        why = "the timeout, with room to boot, build and fetch"
        deadline = Deadline(seconds=total, room=room, why=why)
    bought = time_bought(limits, price)
    if bought is None or (bought >= deadline.seconds and limits.timeout is not None):
        return deadline
    reserve, why = min(room, bought * SHARE), f"--max-cost {limits.max_cost}"
    return Deadline(seconds=bought, room=reserve, why=why)


def time_bought(limits: Limits, price: Decimal) -> float | None:
    """Return the seconds that `--max-cost` buys, None without one or without a price."""
    if limits.max_cost is None or price <= 0:
        return None
    return float(limits.max_cost / price * HOUR)


def too_little(limits: Limits, price: Decimal) -> tuple[str, ...]:
    """Return a warning if the money may not even last until a machine is up.

    Raises `UsageError` for an amount that is not worth a machine.
    """
    bought = time_bought(limits, price)
    if bought is None or bought >= SHORT:
        return ()
    text = f"--max-cost {limits.max_cost} buys {elapsed(bought)} at ${price} an hour"
    if bought < POINTLESS:
        raise UsageError(f"{text}: that is not worth a machine", "allow more, or leave it out")
    return (f"{text}, and booting takes its part of that",)
