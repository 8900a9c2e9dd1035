"""What a row says, as values: damage on the disk makes a value unknown, never an exception.

A bit that has flipped may turn any column into anything: another type, a number that no clock
has shown, text that is no UTF-8. Whoever cleans up must see the other columns all the same.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from cvl.core.octets import loaded, own
from cvl.core.spec import Cause

if TYPE_CHECKING:
    from sqlite3 import Row

LATEST = 253402300799.0
"""The last second that a calendar shows: 9999-12-31T23:59:59Z."""
MOST_MONEY = Decimal(10**9)
DIGITS = 64
"""Characters of an amount; what is longer was not written by us."""
LAST_CODE = 255

T = TypeVar("T")
Enum = TypeVar("Enum", bound=StrEnum)


def decoded(stored: bytes) -> str:
    """Return text as it was written; bytes that nobody has written so are shown as hex."""
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")


class Columns:
    """One row. `damage` names the columns read so far that make no sense."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.damage: list[str] = []

    def text(self, name: str) -> str:
        """Return text, "" if there is none."""
        value = self._value(name)
        if isinstance(value, str):
            return own(value)
        if isinstance(value, bytes):
            return own(decoded(value))
        return self._lost(name, "")

    def key(self, name: str) -> int:
        """Return the row's own number."""
        value = self._value(name)
        return value if isinstance(value, int) else self._lost(name, 0)

    def moment(self, name: str) -> float | None:
        """Return UTC epoch seconds that a calendar can show."""
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= LATEST:
            return float(value)
        return self._lost(name, None)

    def code(self, name: str) -> int | None:
        """Return an exit code."""
        value = self._value(name)
        if value is None or (isinstance(value, int) and 0 <= value <= LAST_CODE):
            return value
        return self._lost(name, None)

    def flag(self, name: str) -> bool:
        """Return whether something is so; what is not known is not."""
        value = self._value(name)
        return value == 1 if value in {0, 1} else self._lost(name, value=False)

    def money(self, name: str) -> Decimal | None:
        """Return an amount, None also for one that nobody has agreed to."""
        value = self._value(name)
        if value is None:
            return None
        try:
            amount = Decimal(value) if isinstance(value, str) and len(value) <= DIGITS else None
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or not 0 <= amount <= MOST_MONEY:
            return self._lost(name, None)
        return amount

    def texts(self, name: str) -> dict[str, str]:
        """Return an object of JSON whose values are text."""
        content = self._json(name)
        if not isinstance(content, dict):
            return self._lost(name, {})
        pairs = {key: value for key, value in content.items() if isinstance(value, str)}
        return pairs if len(pairs) == len(content) else self._lost(name, pairs)

    def words(self, name: str) -> tuple[str, ...]:
        """Return an array of text."""
        content = self._json(name)
        if not isinstance(content, list) or not all(isinstance(each, str) for each in content):
            return self._lost(name, ())
        return tuple(content)

    def cause(self, name: str) -> Cause | None:
        """Return a cause. One that only a newer version knows must not hide the run."""
        text = "" if self._value(name) is None else self.text(name)
        return Cause(text) if text in {*Cause} else None

    def state(self, name: str, unknown: Enum) -> Enum:
        """Return a state; one that is not known counts as `unknown`."""
        try:
            return type(unknown)(str(self._value(name)))
        except ValueError:
            return self._lost(name, unknown)

    def _value(self, name: str) -> object:
        try:
            return self._row[name]
        except IndexError:  # the column itself has another name now
            return self._lost(name, None)

    def _json(self, name: str) -> object:
        try:
            return loaded(self.text(name))
        except (ValueError, RecursionError):
            return None

    def _lost(self, name: str, value: T) -> T:
        if name not in self.damage:
            self.damage.append(name)
        return value
