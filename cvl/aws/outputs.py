"""Brings a job's artifacts here and unpacks them: in their folder only, links and all checked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cvl.aws.place import Place
from cvl.aws.refusals import Missing, boundary
from cvl.aws.session import Account
from cvl.errors import CvlError, FetchError
from cvl.remote.archive import land_archive
from cvl.remote.incoming import FULL, incoming, no_room
from cvl.remote.inert import told
from cvl.remote.landing import Landed
from cvl.remote.results import Changed
from cvl.remote.tarstream import FILE, FOLDER, HARD, LINK, Member
from cvl.scope import Scope
from cvl.units import size

BLOCK = 1 << 20
ATTEMPTS = 3
KINDS = {FILE: "f", HARD: "f", LINK: "l", FOLDER: "d"}
ARCHIVES = (("output.tar.gz", b""), ("model.tar.gz", b"model/"))
"""What SageMaker leaves, and where below the results folder it lands."""
SHOWN = 5


def fetch(account: Account, place: Place, into: Path, scope: Scope) -> None:
    """Bring and unpack what there is. Raises `FetchError`; may be repeated."""
    files, total = 0, 0
    for name, below in ARCHIVES:
        landed = _one(account, place, name, below, into, scope)
        if landed is None:
            continue
        files, total = files + landed.files, total + landed.size
        if landed.inert:
            scope.warn(told(landed.inert))
        for each in landed.skipped[:SHOWN]:
            scope.tell("skipped", str(each))
    some = f"{files} file{'' if files == 1 else 's'}, {size(total)}, in {into}"
    scope.tell("fetched", some if files else "nothing new")


def _one(
    account: Account, place: Place, name: str, below: bytes, into: Path, scope: Scope
) -> Landed | None:
    try:
        head = account.call("s3", "head_object", Bucket=place.bucket, Key=(place / name).prefix)
    except Missing:
        return None  # a failed job has no model, one that never began has neither
    except CvlError as error:
        raise _kept(place, error) from error
    total = int(head["ContentLength"])
    scope.tell("fetching", f"{name}, {size(total)}")
    with incoming(into) as folder:
        archive = folder / name
        _download(account, place / name, total, archive, scope)
        skip = len(b"work/" + below)
        return land_archive(
            lambda: _plain(archive),
            lambda member: _changed(member, below),
            lambda source: source[skip:],
            b"",
            into,
        )


def _download(account: Account, place: Place, total: int, file: Path, scope: Scope) -> None:
    """Bring one object, from where it was cut; only attempts that bring nothing are counted."""
    failed = 0
    try:
        with file.open("wb") as out:
            while (start := out.tell()) < total:
                scope.checkpoint()
                try:
                    _stream(account, place, start, out, scope)
                except CvlError as error:
                    failed = 0 if out.tell() > start else failed + 1
                    if failed == ATTEMPTS:
                        raise _kept(place, error) from error
                    scope.tell("waiting", str(error))
    except OSError as error:
        if error.errno in FULL:
            raise no_room(file.parent.parent, error) from error
        raise _kept(place, error) from error


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
        raise FetchError(f"{archive.name} broke off before its end")


def _kept(place: Place, error: Exception) -> FetchError:
    return FetchError(
        f"the results could not be fetched: {error}",
        f"they are still in {place}; `cvl fetch RUN` gets them",
    )
