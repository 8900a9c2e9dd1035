"""Lands results out of a tar that lies here whole, in parts: little of it is in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from cvl.host.download.landing import NOTHING, Landed, land_tar
from cvl.host.download.results import Changed, Places, Results, arrange, batches
from cvl.host.download.spool import DiskSet
from cvl.host.tarstream import Member, TarReader


def land_archive(
    blocks: Callable[[], Iterable[bytes]],
    named: Callable[[Member], Changed | None],
    source: Callable[[bytes], bytes],
    place: bytes,
    into: Path,
) -> Landed:
    """Land what a tar holds, read anew by `blocks` for each part.

    `named` tells what a member is, None for nothing of ours; `source` turns what `arrange` takes
    for a run's file into the member's name. Raises as `land_tar`.
    """
    found = (each for member in TarReader(blocks()).members() if (each := named(member)))
    parts = batches(found)
    first, second = next(parts, []), next(parts, None)
    places, total = Places(set if second is None else DiskSet), NOTHING
    for part in chain([first], [second] if second else [], parts):
        results = arrange(part, place, places)
        pieces = tuple(replace(each, source=source(each.source)) for each in results.pieces)
        chosen = Results(pieces=pieces, skipped=results.skipped)
        total = total.joined(land_tar(blocks(), chosen, into, others=True))
    return total
