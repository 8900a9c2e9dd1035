"""What can be rented, and which of it a job takes."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from cvl.errors import NoCapacity, UsageError
from cvl.provider import Offer
from cvl.spec import Needs

ELSEWHERE = "`cvl offers` shows what can be had now; --wait-capacity 2h keeps looking"


def choose(
    offers: Sequence[Offer], needs: Needs, *, kind: str | None, region: str | None
) -> tuple[Offer, str]:
    """Return the offer to take and the region: the named type, else the cheapest that will do.

    Raises `UsageError` for a type or a region that nobody has, `NoCapacity` when what fits is
    taken.
    """
    fitting = [named(offers, kind)] if kind else [each for each in offers if fits(each, needs)]
    if not fitting:
        raise UsageError(f"no type of machine has {wanted(needs)}", "name one with --gpu-type")
    here = [each for each in fitting if region is None or region in each.regions]
    free = [each for each in here if each.regions]
    if not free:
        raise NoCapacity(f"no {kind or wanted(needs)} is free {place(offers, region)}", ELSEWHERE)
    best = min(free, key=lambda each: (each.price_per_hour, each.type))
    return best, region or best.regions[0]


def named(offers: Sequence[Offer], kind: str) -> Offer:
    """Return the offer of that type. Raises `UsageError`, with what is near."""
    for each in offers:
        if each.type == kind:
            return each
    from difflib import get_close_matches

    near = get_close_matches(kind, [each.type for each in offers], 3, 0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`cvl offers` shows the types"
    raise UsageError(f"there is no type of machine {kind!r}", hint)


def fits(offer: Offer, needs: Needs) -> bool:
    """Return whether a machine has what an example asks for; 0 asks for nothing."""
    return (
        offer.gpus >= max(needs.gpus, 1)
        and (not offer.vram_gib or offer.vram_gib * max(offer.gpus, 1) >= needs.vram_gb)
        and offer.cpus >= needs.cpus
        and offer.ram_gib >= needs.ram_gb
        and offer.disk_gib >= needs.disk_gb
    )


def wanted(needs: Needs) -> str:
    """Return what an example asks for, in words."""
    parts = [
        (needs.gpus, f"{needs.gpus} GPU"),
        (needs.vram_gb, f"{needs.vram_gb:g} GB of GPU memory"),
        (needs.cpus, f"{needs.cpus:g} CPUs"),
        (needs.ram_gb, f"{needs.ram_gb:g} GB of memory"),
        (needs.disk_gb, f"{needs.disk_gb:g} GB of disk"),
    ]
    return ", ".join(text for amount, text in parts if amount) or "machine"


def place(offers: Sequence[Offer], region: str | None) -> str:
    """Return "in REGION" for a message. Raises `UsageError` for one that nobody lists."""
    if region is None:
        return "anywhere now"
    known = sorted({name for each in offers for name in each.regions})
    if known and region not in known:
        raise UsageError(
            f"nothing is free in a region {region!r}", f"there is capacity in {', '.join(known)}"
        )
    return f"in {region} now"


def hourly(price: Decimal) -> str:
    """Return a price for a person."""
    return f"${price:.2f}/h"
