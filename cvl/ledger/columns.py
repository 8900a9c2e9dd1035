"""What a row says, as values: damage on the disk makes a value unknown, never an exception.

A bit that has flipped may turn any column into anything: another type, a number that no clock
has shown, text that is no UTF-8. Whoever cleans up must see the other columns all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from decimal import Decimal
from enum import StrEnum
from operator import index
from typing import TYPE_CHECKING, Any, TypeVar

from cvl.core.spec import Cause
from cvl.ledger.values import Lease, LeaseState, Run, RunState

if TYPE_CHECKING:
    from sqlite3 import Row

LATEST = 253402300799.0
"""The last second that a calendar shows: 9999-12-31T23:59:59Z."""
MOST_MONEY = Decimal(10**9)
DIGITS = 64
"""Characters of an amount; what is longer was not written by us."""
CODES = range(256)
SENSELESS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What is raised for a value that makes no sense, or for a column that has another name now."""

T = TypeVar("T", Run, Lease)


def run_of(row: Row) -> Run:
    """Return the run in a row of `runs`; `damage` says what of it cannot be read."""
    return _read(Run, row, RunState.RUNNING)


def lease_of(row: Row) -> Lease:
    """Return the lease in a row of `leases`. In a state that is not known it may cost money."""
    lease = _read(Lease, row, LeaseState.INTENDED)
    may_live = lease.id and "state" in lease.damage
    return replace(lease, state=LeaseState.LIVE) if may_live else lease


def decoded(stored: bytes) -> str:
    """Return text as it was written; bytes that nobody has written so are shown as hex."""
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")


def text(value: object) -> str:
    """Return text, which is stored as bytes where it is no valid Unicode. Raises `ValueError`."""
    match value:
        case str():
            return value
        case bytes():
            return decoded(value)
    raise ValueError(value)


def _read(table: type[T], row: Row, unknown: StrEnum) -> T:
    """Return a row as a value; a state that is not known counts as `unknown`."""
    columns: Mapping[str, Column] = {**COLUMNS, "state": (type(unknown), unknown)}
    values, damage = dict[str, Any](), list[str]()
    for field in fields(table):
        if field.name == "damage":
            continue
        reader, missing = columns.get(field.name, (text, ""))
        try:
            value = row[field.name]
            values[field.name] = None if value is missing is None else reader(value)
        except SENSELESS:
            values[field.name] = missing
            damage.append(field.name)
    return table(**values, damage=tuple(damage))


def _moment(value: float) -> float:
    """Return UTC epoch seconds that a calendar can show."""
    if not 0 <= value <= LATEST:
        raise ValueError(value)
    return float(value)


def _flag(value: int) -> bool:
    return bool((False, True).index(value))


def _money(value: str) -> Decimal:
    """Return an amount, but none that nobody has agreed to."""
    if len(value) > DIGITS or not 0 <= (amount := Decimal(value)) <= MOST_MONEY:
        raise ValueError(value)
    return amount


def _json(value: str) -> object:
    from json import loads

    return loads(text(value))


def _texts(value: str) -> dict[str, str]:
    """Return an object of JSON whose values are text."""
    match _json(value):
        case dict(pairs) if all(isinstance(each, str) for each in pairs.values()):
            return pairs
    raise ValueError(value)


def _words(value: str) -> tuple[str, ...]:
    """Return an array of text."""
    match _json(value):
        case list(words) if all(isinstance(each, str) for each in words):
            return tuple(words)
    raise ValueError(value)


def _cause(value: str) -> Cause | None:
    """Return a cause. One that only a newer version knows must not hide the run."""
    return Cause(value) if value in {*Cause} else None


Column = tuple[Callable[[Any], object], object]
COLUMNS: Mapping[str, Column] = {
    **dict.fromkeys(
        ("room", "started", "ended", "deadline", "created", "released"), (_moment, None)
    ),
    **dict.fromkeys(("price_per_hour", "cost"), (_money, None)),
    **dict.fromkeys(("fetched", "detached"), (_flag, False)),
    **dict.fromkeys(("seq", "key"), (index, 0)),
    "intended": (_moment, 0.0),
    "args": (_words, ()),
    "handle": (_texts, {}),
    "exit_code": (CODES.index, None),
    "cause": (_cause, None),
}
"""How a column is read that is not text, and what counts where it cannot be; None: it may lack."""
