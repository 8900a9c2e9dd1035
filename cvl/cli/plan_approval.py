"""The plan before a run: shown, agreed to, or all that `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cvl.cli.console import Console
from cvl.cli.terminal import agree as agree_to
from cvl.cli.terminal import complain, say, show, show_exact, show_json, show_text
from cvl.core.errors import explained
from cvl.core.printable import one_line
from cvl.core.spec import Plan
from cvl.core.units import priced
from cvl.operations.orphan_notice import notify


class Planned(Exception):
    """Raised by `--dry-run` once the plan is made."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


def agreement(params: Mapping[str, Any], console: Console) -> Any:
    """Return what sees the plan before anything happens: it shows, asks, or refuses."""

    def agree(plan: Plan) -> None:
        notify(complain)
        if params["dry_run"]:
            raise Planned(plan)
        if not plan.quote.rented or plan.obstacle is not None:
            return
        for line in price_lines(plan):
            console.say(line)
        if plan.quote.price_per_hour is not None:
            console.price(plan.quote.price_per_hour, plan.quote.currency)
        if params["yes"]:
            return
        nobody = "this costs money, and nobody is there to ask"
        agree_to("go ahead?", "nothing was rented", nobody=nobody)

    return agree


def price_lines(plan: Plan) -> list[str]:
    """Return the price and what would end the run, for a person."""
    quote = plan.quote
    price = f"price: {quote.note}"
    if quote.price_per_hour is not None and quote.rented:
        most, unit = quote.max_cost, quote.currency
        worst = f", at most {priced(most, unit)}" if most is not None else ""
        price = f"price: {priced(quote.price_per_hour, unit)} an hour{worst}"
        price += f" ({quote.note or plan.where})"
    return [price, *(f"ends it: {layer}" for layer in plan.layers)]


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print the plan on stdout."""
    if plan.obstacle and str(plan.obstacle) not in plan.quote.note:
        say(f"warning: {explained(plan.obstacle)}")
    if as_json:
        show_json(plan_json(plan))
        return
    before = (f"runner: {plan.runner}", f"where: {plan.where}")
    if plan.format == "yaml":
        for line in (*before, *price_lines(plan)):
            show(f"# {line}")
        show_exact(yaml(plan.request))
    else:
        for line in before:
            show(line)
        if isinstance(plan.request, str):
            show_text(plan.request)
        else:
            show_json(plan.request)
        for line in price_lines(plan):
            show(line)
    for warning in plan.warnings:
        say(f"warning: {warning}")


def yaml(request: object) -> str:
    """Return a request as YAML: a list as one document each."""
    from yaml import safe_dump_all

    documents = request if isinstance(request, list) else [request]
    text = safe_dump_all(documents, sort_keys=False, explicit_start=True, allow_unicode=True)
    if all(line == one_line(line, len(line)) for line in text.split("\n")):
        return text
    return safe_dump_all(documents, sort_keys=False, explicit_start=True)  # YAML's own escapes


def plan_json(plan: Plan) -> dict[str, object]:
    """Return `--dry-run --json`: money as decimal strings, null where it cannot be had."""
    quote = plan.quote

    def text(amount: Decimal | None) -> str | None:
        return None if amount is None else format(amount, "f")

    return {
        "runner": plan.runner,
        "request": plan.request,
        "quote": {
            "price_per_hour": text(quote.price_per_hour),
            "max_hours": text(quote.max_hours),
            "max_cost": text(quote.max_cost),
            "currency": quote.currency,
            "note": quote.note,
        },
        "layers": list(plan.layers),
    }
