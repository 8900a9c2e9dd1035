from decimal import Decimal

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cli.parameter_types import PAUSE
from cvl.core import units
from cvl.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 2 h ", 7200),
        ("1D", 86400),
        ("1.5h", 5400),
        ("0.5s", 0.5),
        ("1d2h3m4s", 93784),
        ("0h5m", 300),
        ("365d", units.YEAR),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "cannot read"),
        ("  ", "cannot read"),
        ("h", "cannot read"),
        ("soon", "cannot read"),
        ("1m2h", "cannot read"),
        ("1h1h", "cannot read"),
        ("1,5h", "cannot read"),
        ("٣h", "cannot read"),
        ("--5m", "cannot read"),
        ("10", "no unit"),
        ("-10", "no unit"),
        ("1.5", "no unit"),
        ("nan", "no unit"),
        ("inf", "no unit"),
        ("0s", "more than 0"),
        ("0h0m", "more than 0"),
        ("0", "more than 0"),
        ("0.0", "more than 0"),
        ("-5m", "more than 0"),
        ("366d", "longer than a year"),
        ("9" * 400 + "h", "longer than a year"),
    ],
)
def test_what_is_no_duration_is_refused_with_a_hint(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as raised:
        units.duration(text)
    assert raised.value.hint
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize("text", ["0", "00", "0.0", "0s", "0 s", "0m", "0h0m0s", " 0.0d "])
def test_a_grace_may_be_nothing_however_that_is_written(text: str) -> None:
    assert PAUSE.convert(text, None, None) == 0.0


@pytest.mark.parametrize("text", ["", "0x", "-0", "0..0", "0h-1m"])
def test_what_is_no_grace_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError):
        PAUSE.convert(text, None, None)


def test_a_bare_number_says_what_to_write() -> None:
    with pytest.raises(UsageError) as raised:
        units.duration("90")
    assert raised.value.hint == "say 90s, 90m or 90h"


@given(st.integers(1, int(units.YEAR)))
def test_what_is_shown_can_be_typed(seconds: int) -> None:
    assert units.duration(units.elapsed(seconds)) == seconds


@given(st.text())
def test_any_text_is_a_sane_duration_or_refused(text: str) -> None:
    try:
        seconds = units.duration(text)
    except UsageError:
        return
    assert 0 < seconds <= units.YEAR


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3723, "1h02m03s"),
        (93784, "1d02h03m04s"),
    ],
)
def test_elapsed(seconds: float, text: str) -> None:
    assert units.elapsed(seconds) == text


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf"), 1e300, 366 * 1440])
def test_minutes_that_make_no_sense_are_refused(number: float) -> None:
    with pytest.raises(UsageError):
        units.minutes(number)


def test_minutes() -> None:
    assert units.minutes(1.5) == 90


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (9_949, "9.9 kB"),
        (9_960, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (999_999_999, "1.0 GB"),
        (10**24, "1000000 EB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert units.size(count) == text


@given(st.integers(0, 10**20))
def test_a_size_is_short_and_off_by_less_than_six_percent(count: int) -> None:
    text = units.size(count)
    number, unit = text.split()
    shown = float(number) * 1000 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert abs(shown - count) <= 0.06 * count
    assert len(text) <= 6 or count >= 999 * 10**18


@given(st.decimals(0, 10**9, places=4))
def test_money_round_trips(amount: Decimal) -> None:
    assert units.money(units.dollars(amount)) == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("5", "5"), ("$5", "5"), ("5.50", "5.5"), ("$ 0.0001", "0.0001")]
)
def test_money_is_read(text: str, amount: str) -> None:
    assert units.money(text) == Decimal(amount)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "-1",
        "+1",
        "nan",
        "inf",
        "1e3",
        "5.",
        ".5",
        "5.00001",
        "1_0",
        "€5",
        "1000000001",
        "٣",
    ],
)
def test_what_is_no_money_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the amount"):
        units.money(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [("5.5", "$5.50"), ("0", "$0.00"), ("0.0125", "$0.0125"), ("1.199", "$1.199")],
)
def test_dollars(amount: str, text: str) -> None:
    assert units.dollars(Decimal(amount)) == text
