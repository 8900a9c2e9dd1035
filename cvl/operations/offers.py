"""What can be rented, wherever a runner lists it."""

from __future__ import annotations

from cvl.core.interfaces import Offer
from cvl.core.parallel import together
from cvl.providers import every

LIMIT = 120.0
"""Seconds in which all of them have to answer."""


def listed() -> tuple[list[tuple[str, Offer]], list[Exception]]:
    """Return all offers, the cheapest first, each with its runner's name; and what was wrong.

    Raises what was wrong where nobody has answered.
    """
    runners = [each for each in every() if each.lists_offers]
    answers = together([each.offers for each in runners], LIMIT)
    wrong = [each for each in answers if isinstance(each, Exception)]
    if wrong and len(wrong) == len(runners):
        raise wrong[0]
    offers = [
        (runner.name, offer)
        for runner, answer in zip(runners, answers, strict=True)
        if not isinstance(answer, Exception)
        for offer in answer
    ]
    return sorted(offers, key=lambda each: each[1].price_per_hour), wrong
