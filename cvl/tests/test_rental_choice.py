"""What is rented: chosen once, at a price that stays; waited for, where that was asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.errors import AuthError, CvlError, NoCapacity, UsageError
from cvl.core.interfaces import Offer
from cvl.core.scope import Cancelled, Scope
from cvl.core.spec import Cause, Limits, Needs
from cvl.rental import choice as market
from cvl.rental.choice import Market
from cvl.rental.deadline import too_little
from cvl.tests.fakes import FakeClock

SMALL = Offer(type="small", price_per_hour=Decimal("0.5"), gpus=1, regions=("east", "west"))
LARGE = Offer(type="large", price_per_hour=Decimal(2), gpus=1, regions=("west",))
TAKEN = replace(SMALL, regions=())


class Shelf:
    """Shows one list of offers after another, the last one for ever."""

    def __init__(self, *lists: Sequence[Offer] | CvlError) -> None:
        self.lists, self.looks = list(lists), 0

    def __call__(self) -> Sequence[Offer]:
        self.looks += 1
        found = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(found, CvlError):
            raise found
        return found


def market_of(
    shelf: Shelf, *, kind: str | None = None, region: str | None = None, patience: float = 0.0
) -> Market:
    return Market(shelf, kind=kind, region=region, patience=patience)


def test_the_cheapest_that_is_free_and_it_is_looked_for_once() -> None:
    shelf = Shelf([LARGE, SMALL])
    found = market_of(shelf)
    choice = found.planned(Needs())
    assert (choice.offer.type, choice.region) == ("small", "east")
    assert next(found.choices(Needs(), Scope(FakeClock()))) == choice
    assert shelf.looks == 1


def test_one_that_turns_out_to_be_taken_is_tried_in_another_region_and_no_more() -> None:
    found = market_of(Shelf([LARGE, SMALL]))
    found.planned(Needs())
    tried, choices = [], found.choices(Needs(), Scope(FakeClock()))
    for _ in range(2):
        choice = next(choices)
        tried.append((choice.offer.type, choice.region))
        found.taken(choice, NoCapacity("none left"))
    with pytest.raises(NoCapacity, match="none left"):
        next(choices)
    assert tried == [("small", "east"), ("small", "west")], "never another type: its price differs"


@pytest.mark.parametrize("region", [None, "west", "north"])
def test_while_there_is_none_it_waits_as_long_as_was_asked(region: str | None) -> None:
    shelf, clock = Shelf([TAKEN, LARGE]), FakeClock()
    found = market_of(shelf, kind="small", region=region, patience=100.0)
    choice = found.planned(Needs())
    assert (choice.offer.price_per_hour, choice.region) == (
        SMALL.price_per_hour,
        region or market.SOMEWHERE,
    )
    before = clock.now
    with pytest.raises(NoCapacity):
        next(found.choices(Needs(), Scope(clock)))
    assert 100 <= clock.now - before < 100 + market.PAUSE


def test_it_is_taken_as_soon_as_there_is_one() -> None:
    clock, there = FakeClock(), replace(SMALL, regions=("west",))
    found = market_of(Shelf([TAKEN], [TAKEN], [LARGE, TAKEN], [LARGE, there]), patience=7200.0)
    assert found.planned(Needs()).offer.type == "small"
    choice = next(found.choices(Needs(), Scope(clock)))
    assert (choice.offer.type, choice.region) == ("small", "west")


DEAR, CHEAP = (replace(SMALL, price_per_hour=Decimal(p)) for p in ("5", "0.25"))


def test_waiting_keeps_the_price_that_was_agreed_to() -> None:
    """Ten times the price is waited out, and said once; a lower one is taken."""
    clock, said = FakeClock(), list[str]()
    found = market_of(Shelf([TAKEN], [DEAR], [DEAR], [DEAR], [CHEAP]), patience=7200.0)
    assert found.planned(Needs()).offer.price_per_hour == SMALL.price_per_hour
    scope = Scope(clock, tell=lambda _phase, text: said.append(text))
    choice = next(found.choices(Needs(), scope))
    assert choice.offer.price_per_hour == Decimal("0.25")
    assert [text for text in said if "$5.00" in text] == [
        "small costs $5.00 an hour now, and $0.50 was agreed to"
    ]


@pytest.mark.parametrize("patience", [0.0, 100.0])
def test_no_dearer_machine_is_rented_while_patience_lasts_nor_after(patience: float) -> None:
    found = market_of(Shelf([SMALL], [DEAR]), patience=patience)
    found.planned(Needs())
    found._fresh = Scope(seconds=0.0)  # the question was before the person for long
    with pytest.raises(NoCapacity, match=r"\$0\.50 was agreed to") as caught:
        next(found.choices(Needs(), Scope(FakeClock())))
    assert "asks at the new price" in caught.value.hint


def test_nor_in_another_region_nor_one_with_less_in_it() -> None:
    found = market_of(Shelf([LARGE, SMALL], [LARGE, DEAR]))
    found.planned(Needs())
    choices = found.choices(Needs(), Scope(FakeClock()))
    found.taken(next(choices), NoCapacity("none left"))
    with pytest.raises(NoCapacity):
        next(choices)
    fewer = replace(SMALL, gpus=0)
    found = market_of(Shelf([TAKEN], [fewer]), kind="small", patience=50.0)
    found.planned(Needs())
    with pytest.raises(NoCapacity, match="not what was agreed to"):
        next(found.choices(Needs(), Scope(FakeClock())))


@given(st.lists(st.decimals("0.01", "9", places=2), min_size=1, max_size=8), st.booleans())
def test_whatever_prices_do_none_above_the_agreed_one_is_yielded(
    prices: list[Decimal],
    free: bool,
) -> None:
    first = SMALL if free else TAKEN
    shelf = Shelf([first], *([replace(SMALL, price_per_hour=each)] for each in prices))
    found = market_of(shelf, patience=300.0)
    found.planned(Needs())
    found._fresh = Scope(seconds=0.0)
    with suppress(NoCapacity):
        choice = next(found.choices(Needs(), Scope(FakeClock())))
        assert choice.offer.price_per_hour <= SMALL.price_per_hour


def test_who_waits_can_be_called_off() -> None:
    scope = Scope(FakeClock())
    found = market_of(Shelf([TAKEN]), patience=7200.0)
    found.planned(Needs())
    scope.cancel(Cause.INTERRUPTED)
    with pytest.raises(Cancelled):
        next(found.choices(Needs(), scope))


def test_without_patience_a_plan_says_that_there_is_none() -> None:
    with pytest.raises(NoCapacity):
        market_of(Shelf([TAKEN, LARGE]), kind="small").planned(Needs())


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_a_type_that_nobody_has_is_wrong_and_not_taken(patience: float) -> None:
    with pytest.raises(UsageError, match="'smal'") as caught:
        market_of(Shelf([SMALL]), kind="smal", patience=patience).planned(Needs())
    assert "small" in caught.value.hint


def test_where_nobody_can_be_asked_the_plan_says_why() -> None:
    found = market_of(Shelf(AuthError("no key")), kind="small", region="east")
    choice = found.planned(Needs())
    assert (choice.offer.type, choice.region, str(choice.obstacle)) == ("small", "east", "no key")


@pytest.mark.parametrize("most", ["0", "0.001"])
def test_what_buys_no_time_is_refused(most: str) -> None:
    with pytest.raises(UsageError, match="not worth a machine"):
        too_little(Limits(max_cost=Decimal(most)), Decimal("0.75"))


def test_what_buys_little_time_is_said() -> None:
    (warning,) = too_little(Limits(max_cost=Decimal("0.01")), Decimal("0.75"))
    assert "buys 48" in warning
    assert too_little(Limits(max_cost=Decimal(5)), Decimal("0.75")) == ()
    assert too_little(Limits(), Decimal("0.75")) == ()
    assert too_little(Limits(max_cost=Decimal(0)), Decimal(0)) == ()
