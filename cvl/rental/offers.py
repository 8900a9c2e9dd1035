"""What can be rented, and which of it a job takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cvl.core.errors import NoCapacity, UsageError
from cvl.core.interfaces import Offer
from cvl.core.spec import Needs

AMD64 = "amd64"
ELSEWHERE = "`cvl offers` shows what can be had now; --wait-capacity 2h keeps looking"


def choose(
    offers: Sequence[Offer], needs: Needs, *, kind: str | None, region: str | None
) -> tuple[Offer, str]:
    """Return the offer to take and the region: the named type, else the cheapest that will do.

    Raises `UsageError` for a type or a region that nobody has, `NoCapacity` when what fits is
    taken.
    """
    most = per_gpu(offers, needs)
    fitting = [named(offers, kind)] if kind else [e for e in offers if fits(e, needs, most)]
    if not fitting:
        raise UsageError(
            f"no type of machine has {wanted(needs, most)}", _hint(offers, needs, most)
        )
    here = [each for each in fitting if region is None or region in each.regions]
    free = [each for each in here if each.regions]
    if not free:
        sought = kind or wanted(needs, most)
        raise NoCapacity(f"no {sought} is free {place(offers, region)}", ELSEWHERE)
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


def per_gpu(offers: Sequence[Offer], needs: Needs) -> float:
    """Return the GB that each GPU must have.

    `vram_gb` says that. Only where several GPUs are asked for, and none on offer has so much, it
    is what they have together.
    """
    biggest = max((each.vram_gib for each in offers if runs(each, needs)), default=0.0)
    together = needs.gpus > 1 and 0 < biggest < needs.vram_gb
    return needs.vram_gb / needs.gpus if together else needs.vram_gb


def reading(offers: Sequence[Offer], needs: Needs) -> str:
    """Return how the memory of several GPUs was understood, "" if that is no question."""
    if needs.gpus <= 1 or needs.vram_gb == 0:
        return ""
    phrase = f"{needs.vram_gb:g} GB of GPU memory was taken as"
    if per_gpu(offers, needs) == needs.vram_gb:
        return f"{phrase} what each of {needs.gpus} GPUs has"
    return f"{phrase} what {needs.gpus} GPUs have together: no GPU on offer has so much"


def fits(offer: Offer, needs: Needs, most: float | None = None) -> bool:
    """Return whether a machine has what an example asks for; 0 asks for nothing.

    `most` are the GB that each GPU must have, where that is not `vram_gb`. A type of which nobody
    says how much it has is not taken for enough.
    """
    vram = needs.vram_gb if most is None else most
    return (
        offer.gpus >= max(needs.gpus, 1)
        and offer.vram_gib >= vram
        and offer.cpus >= needs.cpus
        and offer.ram_gib >= needs.ram_gb
        and offer.disk_gib >= needs.disk_gb
        and runs(offer, needs)
    )


def runs(offer: Offer, needs: Needs) -> bool:
    """Return whether a machine's processor is one that the example runs on."""
    return offer.arch in (needs.archs or (AMD64,))


def _hint(offers: Sequence[Offer], needs: Needs, most: float) -> str:
    """Return what to do where no type will do: another processor may be all that is in the way."""
    anywhere = replace(needs, archs=tuple({each.arch for each in offers}))
    others = [each for each in offers if fits(each, anywhere, most)]
    if not others:
        return "name one with --gpu-type"
    best = min(others, key=lambda each: each.price_per_hour)
    return f"{best.type} has, but is {best.arch}: name it with --gpu-type if the image runs there"


def wanted(needs: Needs, most: float) -> str:
    """Return what an example asks for, in words; `most` as in `fits`."""
    shared = f" {'each' if most == needs.vram_gb else 'together'}" if needs.gpus > 1 else ""
    parts = [
        (needs.gpus, f"{needs.gpus} GPU"),
        (needs.vram_gb, f"{needs.vram_gb:g} GB of GPU memory{shared}"),
        (needs.cpus, f"{needs.cpus:g} CPUs"),
        (needs.ram_gb, f"{needs.ram_gb:g} GB of memory"),
        (needs.disk_gb, f"{needs.disk_gb:g} GB of disk"),
        (len(needs.archs), f"{' or '.join(needs.archs)} processors"),
    ]
    return ", ".join(text for amount, text in parts if amount > 0) or "machine"


def place(offers: Sequence[Offer], region: str | None) -> str:
    """Return "in REGION" for a message. Raises `UsageError` for one that nobody lists."""
    if region is None:
        return "anywhere now"
    regions = sorted({name for each in offers for name in each.regions})
    if regions and region not in regions:
        raise UsageError(
            f"nothing is free in a region {region!r}", f"there is capacity in {', '.join(regions)}"
        )
    return f"in {region} now"
