"""Lands results out of a tar that is brought here whole first, by whatever way there is.

It lands in parts: little of it is in memory at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from cvl.core.errors import AuthError, BrokenOff, CvlError, FetchError
from cvl.core.retry import PASSING
from cvl.core.scope import Scope
from cvl.core.staging import incoming, landing_in, not_taken
from cvl.host.download.inert_names import told
from cvl.host.download.landing import land_tar
from cvl.host.download.report import NOTHING, Landed
from cvl.host.download.results import Changed, TakenPaths, arrange, batches
from cvl.host.download.spool import DiskSet
from cvl.host.tarstream import FILE, FOLDER, HARD, LINK, Member, TarReader

BLOCK = 1 << 20
MAY_PASS = (*PASSING, AuthError)
"""Also a login that has expired: somebody may log in again, and a credential program does."""
Where = Callable[[bytes], tuple[str, bytes] | None]
KINDS = {FILE: "f", HARD: "f", LINK: "l", FOLDER: "d"}


def fetch_archive(
    name: str,
    bring: Callable[[IO[bytes]], CvlError | None],
    where: Where,
    into: Path,
    scope: Scope,
) -> Landed:
    """Have `bring` write an archive, gzipped if `name` says so, and land what it holds.

    `where` tells the area and the path of a member by its name, None for nothing of ours. `bring`
    may return what of it could not be packed: that is raised once all the rest has landed. Raises
    as `land_tar`, and `Blocked` where single files cannot be written here.
    """
    with incoming(into) as folder, landing_in(into):
        archive = folder / name
        with archive.open("wb") as out:
            failure = bring(out)
        try:
            landed = _landed(archive, where, into)
        except BrokenOff as error:
            raise BrokenOff(f"{error}: {failure}") if failure else error from error
    if failure:
        raise failure
    if refused := landed.refused_here:
        raise not_taken(into, refused)
    if landed.inert:
        scope.warn(told(landed.inert))
    return landed


def _landed(archive: Path, where: Where, into: Path) -> Landed:
    """Land what a tar holds, read anew for each part."""
    if archive.suffix == ".gz":
        read = partial(_gunzipped, archive)
    elif archive.stat().st_size:
        read = partial(_plain, archive)
    else:
        return NOTHING
    changes = (each for member in TarReader(read()).members() if (each := _changed(member, where)))
    parts = batches(changes)
    first, second = next(parts, []), next(parts, None)
    taken, total = TakenPaths(set if second is None else DiskSet), NOTHING
    for part in chain([first], [second] if second else [], parts):
        results = arrange(part, b"", taken)
        total = total.joined(land_tar(read(), results, into, others=True))
    return total


def _changed(member: Member, where: Where) -> Changed | None:
    """Return what a member is and where it lands, None for nothing of ours."""
    name = member.name.removeprefix(b"./").rstrip(b"/")
    if (location := where(name)) is None:
        return None
    return Changed(
        kind=KINDS.get(member.kind, "o"),
        size=member.size,
        area=location[0],
        path=location[1],
        link=member.link,
        source=name,
    )


def _plain(archive: Path) -> Iterator[bytes]:
    with archive.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _gunzipped(archive: Path) -> Iterator[bytes]:
    """Yield the content of a gzip file. Raises `FetchError` when it is none, or broken off."""
    gunzip = zlib.decompressobj(wbits=31)
    try:
        for packed in _plain(archive):
            block = packed
            while block:
                yield gunzip.decompress(block, BLOCK)
                block = gunzip.unconsumed_tail
    except zlib.error as error:
        raise FetchError(f"{archive.name} is no gzip file: {error}") from error
    if not gunzip.eof:
        raise BrokenOff(f"{archive.name} broke off before its end")
