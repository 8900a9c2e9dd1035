"""What a provider answers, read in one place: a value, or the word that it cannot be read.

An answer may be damaged, or made to do harm: too deep, too long, of another type, a number that
no clock and no purse has seen. What nobody can read is no reason to overlook the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from cvl.core.spec import RUN_ID, Resource

LATEST = 253402300799.0
"""The last second that a calendar shows: 9999-12-31T23:59:59Z."""
MOST_CENTS = 10**9
LONGEST_ID = 63
ANSWER = 3_000_000
"""Bytes of one answer: a machine takes some 1500."""
VALUES = 100_000
"""Values in one answer: a machine has some 60, and each costs up to 250 bytes of memory."""
NUMBER = 32
"""Characters of a number that we have written ourselves."""
LONGEST_WAIT = 60
"""Seconds that we wait because somebody asks us to, at most."""

Entry = Mapping[str, object]


class TooLong(ValueError):
    """An answer has more bytes, or values, than any that makes sense."""


def parsed(body: bytes, most: int = VALUES) -> object:
    """Return what JSON says. Raises `ValueError`, also for what is nested without end.

    Raises `TooLong` for more than `most` values: the smallest take a hundred times their bytes
    of memory. Signs are counted, also those within texts: never too few.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > most:
        raise TooLong(f"more than {most} values")
    try:
        value: object = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def taken(pieces: Iterable[bytes], most: int = ANSWER) -> bytes:
    """Return the pieces as one, reading no more than `most` bytes. Raises `TooLong`."""
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > most:
            raise TooLong(f"more than {most} bytes")
    return bytes(body)


def text(value: object) -> str:
    """Return text, "" for anything else."""
    return value if isinstance(value, str) else ""


def entry(value: object) -> Entry:
    """Return an object, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def entries(value: object) -> Sequence[object]:
    """Return a list, an empty one for anything else."""
    return value if isinstance(value, list) else ()


def run_id(value: object) -> str:
    """Return a run id, "" for what is none."""
    name = text(value)
    return name if len(name) <= LONGEST_ID and RUN_ID.match(name) else ""


def deadline(tag: object) -> float | None:
    """Return the UTC epoch seconds that a tag of ours tells, None for what is none."""
    digits = text(tag)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= NUMBER):
        return None
    return float(digits) if float(digits) <= LATEST else None


def price(cents: object) -> Decimal | None:
    """Return the dollars of an amount in cents, None for what nobody would ask."""
    if isinstance(cents, int) and not isinstance(cents, bool) and 0 <= cents <= MOST_CENTS:
        return Decimal(cents) / 100
    return None


def http_date(header: object) -> float | None:
    """Return the UTC epoch seconds of an HTTP `Date` (RFC 9110, 5.6.7), None for what is none."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text(header))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return None


def retry_after(header: object, date: object = None) -> float:
    """Return the seconds that a `Retry-After` asks for (RFC 9110, 10.2.3), `LONGEST_WAIT` at most.

    It tells seconds, or a date: by the clock of who answered (`Date`), where that is told. 0 for
    what is none, negative, or past.
    """
    delay = text(header).strip()
    if delay.isascii() and delay.isdigit():
        return float(min(int(delay[:NUMBER]), LONGEST_WAIT))
    if (until := http_date(delay)) is None:
        return 0.0
    now = http_date(date)
    return min(max(until - (time.time() if now is None else now), 0.0), float(LONGEST_WAIT))


def asked_to_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds that an HTTP answer asks us to wait, 0 where it does not."""
    return retry_after(headers.get("Retry-After"), headers.get("Date"))


def unreadable(kind: str, resource_id: str = "") -> Resource:
    """Return what stands for an entry that nobody can read: it may be anything, also ours."""
    return Resource(kind=kind, name="", id=resource_id, proven=False, unclear=True)


def read(
    kind: str, listed: Iterable[object], ours: Callable[[Entry], Resource | None]
) -> Iterator[Resource]:
    """Yield what is ours of a list; each entry by itself, whatever the others are."""
    for each in listed:
        try:
            if not isinstance(each, Mapping):
                raise TypeError(each)
            resource = ours(each)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            resource = unreadable(kind)
        if resource:
            yield resource
