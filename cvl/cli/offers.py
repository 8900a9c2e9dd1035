"""`cvl offers`: what can be rented now, and for how much."""

from __future__ import annotations

from dataclasses import asdict

import click

from cvl.cli.terminal import say, show_json, show_table
from cvl.core.errors import explained
from cvl.core.interfaces import Offer
from cvl.operations.offers import listed


@click.command()
@click.option("-k", "--keyword", metavar="WORD", help="Only types or regions that hold WORD.")
@click.option("--gpus", type=int, default=0, metavar="N", help="At least N GPUs.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also what is taken now.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def offers(keyword: str | None, gpus: int, everything: bool, as_json: bool) -> None:
    """Show what can be rented now, the cheapest first."""
    everywhere, errors = listed()
    matches = [
        (runner, each)
        for runner, each in everywhere
        if (everything or each.regions) and each.gpus >= gpus and mentions(each, keyword)
    ]
    for error in errors:
        say(explained(error))
    if as_json:
        show_json([{"runner": runner, **asdict(each)} for runner, each in matches])
        return
    begin = 0 if len({runner for runner, _ in matches}) > 1 else 1  # of one all are, say nothing
    show_table([HEAD[begin:], *(row(*each)[begin:] for each in matches)])


HEAD = ("RUNNER", "TYPE", "PRICE", "GPUS", "GPU", "CPUS", "RAM", "DISK", "REGIONS")


def row(runner: str, offer: Offer) -> tuple[str, ...]:
    """Return one line of the table."""
    return (
        runner,
        offer.type,
        f"${offer.price_per_hour:.2f}/h",
        str(offer.gpus),
        offer.description,
        f"{offer.cpus:g}",
        f"{offer.ram_gib:g} GiB",
        f"{offer.disk_gib:g} GiB",
        ", ".join(offer.regions) or "none free",
    )


def mentions(offer: Offer, word: str | None) -> bool:
    """Return whether the offer's type, description or regions hold `word`."""
    text = f"{offer.type} {offer.description} {' '.join(offer.regions)}".casefold()
    return word is None or word.casefold() in text
