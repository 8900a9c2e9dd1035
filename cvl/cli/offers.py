"""`cvl offers`: what can be rented now, and for how much."""

from __future__ import annotations

from dataclasses import asdict

import click

from cvl.cli.terminal import show_json, show_table
from cvl.core.interfaces import Offer
from cvl.rental.offers import hourly


@click.command()
@click.option("-k", "--keyword", metavar="WORD", help="Only types or regions that hold WORD.")
@click.option("--gpus", type=int, default=0, metavar="N", help="At least N GPUs.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also what is taken now.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def offers(keyword: str | None, gpus: int, everything: bool, as_json: bool) -> None:
    """Show what can be rented now, the cheapest first."""
    from cvl.providers.lambda_cloud.cloud import LambdaCloud, api

    found = [
        each
        for each in LambdaCloud(api()).offers()
        if (everything or each.regions) and each.gpus >= gpus and mentions(each, keyword)
    ]
    if as_json:
        show_json([asdict(each) for each in found])
        return
    show_table([HEAD, *map(row, found)])


HEAD = ("TYPE", "PRICE", "GPUS", "GPU", "CPUS", "RAM", "DISK", "REGIONS")


def row(offer: Offer) -> tuple[str, ...]:
    """Return one line of the table."""
    return (
        offer.type,
        hourly(offer.price_per_hour),
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
