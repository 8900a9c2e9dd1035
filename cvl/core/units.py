"""What people write and read (`1h30m`, `$5.50`, `1.2 MB`) to and from numbers."""

from __future__ import annotations

import math
import os
import re
from decimal import Decimal

from cvl.core.errors import UsageError

YEAR = 365 * 86400.0
"""The longest duration that is taken for meant, in seconds."""

MOST_DOLLARS = Decimal(10**9)
"""The largest amount of money that is taken for meant."""

SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"([0-9]++(?:\.[0-9]++)?+)"
_DURATION = re.compile(
    r"\s*+" + "".join(rf"(?:{_NUMBER}\s*+{unit}\s*+)?" for unit in SECONDS), re.IGNORECASE
)
_BARE = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]+|inf|nan)", re.IGNORECASE)
_ZERO = re.compile(r"(?:0++(?:\.0++)?+\s*+[dhms]?\s*+)++", re.IGNORECASE)
_MONEY = re.compile(r"\$?\s*([0-9]{1,12}(?:\.[0-9]{1,4})?)")
_SIZES = ("kB", "MB", "GB", "TB", "PB", "EB")
_STEP = 1000


def duration(text: str) -> float:
    """Return the seconds of `2h`, `90m`, `1h30m` or `1.5d`; more than 0, at most a year.

    A bare number is refused: nobody can know whether it was meant as seconds or minutes.
    Raises `UsageError`.
    """
    words = text.strip()
    parts = _DURATION.fullmatch(words.removeprefix("-"))
    if parts and any(parts.groups()):
        numbers = (float(part or 0) for part in parts.groups())
        total = sum(each * number for each, number in zip(SECONDS.values(), numbers, strict=True))
        return sane(-total if words.startswith("-") else total, text)
    if _ZERO.fullmatch(words):
        return sane(0.0, text)
    if _BARE.fullmatch(words):
        hint = f"say {words}s, {words}m or {words}h" if words.isdecimal() else _EXAMPLES
        raise UsageError(f"duration {text!r} has no unit", hint)
    raise UsageError(f"cannot read the duration {text!r}", _EXAMPLES)


def pause(text: str) -> float:
    """As `duration`, of what may be 0, which needs no unit: `0`, `0s`, `0.0`, `0h0m`."""
    return 0.0 if _ZERO.fullmatch(text.strip()) else duration(text)


def minutes(number: float) -> float:
    """Return the seconds of `number` minutes, in the same bounds as `duration`."""
    return sane(float(number) * 60, f"{number} minutes")


def variable(name: str, default: float) -> float:
    """Return the number, 0 or more, that a variable of the environment holds.

    Raises `UsageError`, which names it.
    """
    text = os.environ.get(name) or str(default)
    number = float(text) if _BARE.fullmatch(text.strip()) else math.nan
    if not 0 <= number <= YEAR:
        raise UsageError(f"{name} is no number from 0 on: {_short(text)!r}", f"unset {name}")
    return number


def sane(seconds: float, text: str) -> float:
    """Return a duration that can be meant; `text` is how it was given. Raises `UsageError`."""
    if math.isnan(seconds):
        raise UsageError(f"{text!r} is not a duration", _EXAMPLES)
    if seconds <= 0:
        raise UsageError(f"a duration must be more than 0, not {text!r}", _EXAMPLES)
    if seconds > YEAR:
        raise UsageError(f"{_short(text)!r} is longer than a year", _EXAMPLES)
    return seconds


def elapsed(seconds: float) -> str:
    """Return `1h02m03s`: whole seconds, rounded down, at most days; never negative."""
    minute, second = divmod(int(max(0.0, seconds)), 60)
    hour, minute = divmod(minute, 60)
    day, hour = divmod(hour, 24)
    if day:
        return f"{day}d{hour:02}h{minute:02}m{second:02}s"
    if hour:
        return f"{hour}h{minute:02}m{second:02}s"
    return f"{minute}m{second:02}s" if minute else f"{second}s"


def size(count: int) -> str:
    """Return a number of bytes as `999 B`, `1.2 MB`, `48 GB`; powers of 1000."""
    if count < _STEP:
        return f"{count} B"
    number, power = count / _STEP, 0
    while float(_digits(number)) >= _STEP and power < len(_SIZES) - 1:
        number, power = number / _STEP, power + 1
    return f"{_digits(number)} {_SIZES[power]}"


def money(text: str) -> Decimal:
    """Return the dollars of `5`, `$5` or `5.50`: not negative, at most 4 decimals.

    Raises `UsageError`.
    """
    match = _MONEY.fullmatch(text.strip())
    amount = Decimal(match[1]) if match else None
    if amount is None or amount > MOST_DOLLARS:
        raise UsageError(f"cannot read the amount {text!r}", "say it in US dollars: 5, $5 or 5.50")
    return amount


def dollars(amount: Decimal) -> str:
    """Return `$5.50`; up to 4 decimals where cents do not say it all."""
    return priced(amount, "USD")


def priced(amount: Decimal, currency: str) -> str:
    """Return `$5.50`, `CNY 5.50`; up to 4 decimals where 2 do not say it all."""
    rounded = amount.quantize(Decimal("0.0001"))
    cents = rounded.quantize(Decimal("0.01"))
    text = str(cents) if cents == rounded else str(rounded).rstrip("0")
    return f"{sign(currency)}{text}"


def sign(currency: str) -> str:
    """Return what stands before an amount; no currency is US dollars, in which most is billed."""
    return "$" if currency in {"", "USD"} else f"{currency} "


_EXAMPLES = "write it as 45s, 90m, 2h, 1h30m or 1d"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004


def _digits(number: float) -> str:
    # 9.95 and more would be rounded to "10.0": three digits where two are meant
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"  # noqa: PLR2004
