"""Brings a job's artifacts here and unpacks them: in their folder only, links and all checked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cvl.core.errors import AuthError, BrokenOff, CvlError, FetchError, Missing
from cvl.core.retry import PASSING, steadily
from cvl.core.scope import Scope
from cvl.core.staging import incoming, landing_in, not_taken
from cvl.core.units import size
from cvl.host.download.archive import land_archive
from cvl.host.download.inert import told
from cvl.host.download.landing import NOTHING, Landed
from cvl.host.download.report import report
from cvl.host.download.results import Changed
from cvl.host.tarstream import FILE, FOLDER, HARD, LINK, Member
from cvl.providers.aws.api_errors import boundary
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.s3_location import Place

BLOCK = 1 << 20
MAY_PASS = (*PASSING, AuthError)
"""Also a login that has expired: somebody may log in again, or the session renews it."""
KINDS = {FILE: "f", HARD: "f", LINK: "l", FOLDER: "d"}
ARCHIVES = (("output.tar.gz", b""), ("model.tar.gz", b"model/"))
"""What SageMaker leaves, and where below the results folder it lands."""


def fetch(account: Account, place: Place, into: Path, scope: Scope) -> None:
    """Bring and unpack what there is. Raises `FetchError`; may be repeated.

    What may pass is tried again until `scope` is over.
    """
    total = NOTHING
    for name, below in ARCHIVES:
        landed = _one(account, place, name, below, into, scope)
        if landed is None:
            continue
        total = total.joined(landed)
        if landed.inert:
            scope.warn(told(landed.inert))
    report(scope, total, into, lasts=False)


def _one(
    account: Account, place: Place, name: str, below: bytes, into: Path, scope: Scope
) -> Landed | None:
    there, skip = place / name, len(b"work/" + below)
    try:
        total = steadily(scope, lambda: _size(account, there), passing=MAY_PASS)
        scope.tell("fetching", f"{name}, {size(total)}")
        with incoming(into) as folder, landing_in(into):
            archive = folder / name
            with archive.open("wb") as out:
                whole = lambda: _download(account, there, total, out, scope)  # noqa: E731
                steadily(scope, whole, passing=MAY_PASS)
            landed = land_archive(
                lambda: _plain(archive),
                lambda member: _changed(member, below),
                lambda source: source[skip:],
                b"",
                into,
            )
    except Missing:
        return None  # a failed job has no model, one that never began has neither
    except CvlError as error:
        raise _kept(place, error) from error
    if refused := landed.refused_here:
        raise _kept(place, not_taken(into, refused))
    return landed


def _size(account: Account, place: Place) -> int:
    head = account.call("s3", "head_object", Bucket=place.bucket, Key=place.prefix)
    return int(head["ContentLength"])


def _download(account: Account, place: Place, total: int, out: IO[bytes], scope: Scope) -> None:
    """Bring the rest of one object. Raises `BrokenOff` where that brings nothing."""
    while (start := out.tell()) < total:
        scope.checkpoint()
        _stream(account, place, start, out, scope)
        if out.tell() == start:
            raise BrokenOff(f"S3 gives nothing of {place} from byte {start} on")


def _stream(account: Account, place: Place, start: int, out: IO[bytes], scope: Scope) -> None:
    rest = {"Range": f"bytes={start}-"} if start else {}
    reply = account.call("s3", "get_object", Bucket=place.bucket, Key=place.prefix, **rest)
    try:
        for block in _blocks(reply["Body"]):
            out.write(block)
            scope.heard()
            scope.checkpoint()
    finally:
        reply["Body"].close()


def _blocks(body: Any) -> Iterator[bytes]:
    """Yield what comes. Raises `Unreachable` where it breaks off, or its length is wrong."""
    while True:
        with boundary("s3"):
            block: bytes = body.read(BLOCK)
        if not block:
            return
        yield block


def _changed(member: Member, below: bytes) -> Changed | None:
    """Return what a member is and where it lands, None for the archive's own folder."""
    name = _plain_name(member)
    if not name:
        return None
    kind = KINDS.get(member.kind, "o")
    return Changed(kind=kind, size=member.size, area="w", path=below + name, link=member.link)


def _plain_name(member: Member) -> bytes:
    name = member.name.removeprefix(b"./")
    return name.rstrip(b"/") if member.kind == FOLDER else name


def _plain(archive: Path) -> Iterator[bytes]:
    """Yield the content of a gzip file. Raises `FetchError` when it is none, or broken off."""
    gunzip = zlib.decompressobj(wbits=31)
    with archive.open("rb") as packed:
        try:
            while block := packed.read(BLOCK):
                while block:
                    yield gunzip.decompress(block, BLOCK)
                    block = gunzip.unconsumed_tail
        except zlib.error as error:
            raise FetchError(f"{archive.name} is no gzip file: {error}") from error
    if not gunzip.eof:
        raise BrokenOff(f"{archive.name} broke off before its end")


def _kept(place: Place, error: CvlError) -> FetchError:
    there = f"they are still in {place}; `cvl fetch RUN` gets them"
    return FetchError(
        f"the results could not be fetched: {error}",
        f"{error.hint}; {there}" if error.hint else there,
    )
