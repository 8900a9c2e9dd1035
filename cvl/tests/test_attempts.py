"""One attempt after another: how many, how far apart, and what ends them."""

from __future__ import annotations

from math import inf

import pytest

from cvl.core.retry import MOST_WAIT, briefly
from cvl.core.scope import Cancelled, Scope
from cvl.core.spec import Cause
from cvl.tests.fakes import FakeClock


def test_the_last_pause_repeats_until_the_scope_is_over() -> None:
    clock = FakeClock()
    numbers = [each.number for each in Scope(clock, seconds=10.0).attempts((0.0, 1.0, 3.0))]
    assert numbers == [0, 1, 2, 3, 4]
    assert clock.waited == [1.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(("own", "limit"), [(None, 2.0), (2.0, None), (2.0, 50.0), (50.0, 2.0)])
def test_the_sooner_end_counts(own: float | None, limit: float | None) -> None:
    clock = FakeClock()
    began = clock.now
    assert len(list(Scope(clock, seconds=own).attempts((1.0,), limit=limit))) == 2
    assert clock.now - began == 2.0


def test_there_is_always_one_and_no_pause_behind_the_last() -> None:
    clock = FakeClock()
    assert len(list(Scope(clock, seconds=0.0).attempts((1.0,)))) == 1
    assert len(list(Scope(clock).attempts((1.0,), most=3))) == 3
    assert clock.waited == [1.0, 1.0]


def test_who_answers_may_ask_for_more() -> None:
    clock = FakeClock()
    for attempt in Scope(clock).attempts((1.0,), most=4):
        attempt.asked((0.5, 7.0, 0.0)[attempt.number % 3])
    assert clock.waited == [1.0, 7.0, 1.0]


def test_news_begin_the_pauses_anew_and_a_pause_may_be_left_out() -> None:
    clock = FakeClock()
    for attempt in Scope(clock).attempts((1.0, 2.0, 4.0), most=8):
        if attempt.number == 3:
            attempt.anew()
        if attempt.number == 5:
            attempt.at_once()
    assert clock.waited == [1.0, 2.0, 4.0, 1.0, 2.0, 4.0]


def test_a_cancel_is_raised_between_two_and_not_before_the_first() -> None:
    scope = Scope(FakeClock())
    scope.cancel(Cause.STOPPED)
    attempts = iter(scope.attempts((1.0,)))
    assert next(attempts).number == 0
    with pytest.raises(Cancelled):
        next(attempts)


def test_patience_ends_them_too() -> None:
    clock = FakeClock()
    scope = Scope(clock).patient(lambda: 3.0)
    assert 3 <= len(list(scope.attempts((1.0,)))) <= 4


@pytest.mark.parametrize(("asked", "made"), [(0.0, 3), (MOST_WAIT / 2, 3), (MOST_WAIT + 1, 1)])
def test_without_a_scope_they_are_few(asked: float, made: int) -> None:
    clock, last = FakeClock(), -1
    for attempt in briefly((0.5, 1.0), clock):
        attempt.asked(asked)
        last = attempt.number
    assert last + 1 == made
    assert sum(clock.waited) < inf
