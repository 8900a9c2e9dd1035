"""Brings a job's artifacts here and unpacks them: in their folder only, links and all checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cvl.core.errors import BrokenOff, CvlError, FetchError, Missing
from cvl.core.retry import steadily
from cvl.core.scope import Scope
from cvl.core.units import size
from cvl.host.download.archive import MAY_PASS, Layout, fetch_archive
from cvl.host.download.landing import NOTHING, Landed
from cvl.host.download.report import report
from cvl.providers.aws.api_errors import boundary
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.s3_location import Place

BLOCK = 1 << 20
ARCHIVES = (("output.tar.gz", b""), ("model.tar.gz", b"model/"))
"""What SageMaker leaves, and where below the results folder it lands."""


def fetch(account: Account, place: Place, into: Path, scope: Scope) -> None:
    """Bring and unpack what there is. Raises `FetchError`; may be repeated.

    What may pass is tried again until `scope` is over.
    """
    total = NOTHING
    for name, below in ARCHIVES:
        try:
            total = total.joined(_one(account, place / name, below, into, scope))
        except Missing:
            continue  # a failed job has no model, one that never began has neither
        except CvlError as error:
            raise _kept(place, error) from error
    report(scope, total, into, lasts=False)


def _one(account: Account, there: Place, below: bytes, into: Path, scope: Scope) -> Landed:
    name, skip = there.prefix.rpartition("/")[2], len(b"work/" + below)
    total = steadily(scope, lambda: _size(account, there), passing=MAY_PASS)
    scope.tell("fetching", f"{name}, {size(total)}")

    def bring(out: IO[bytes]) -> None:
        steadily(scope, lambda: _download(account, there, total, out, scope), passing=MAY_PASS)

    layout = Layout(
        where=lambda member: ("w", below + member) if member else None,
        source=lambda source: source[skip:],
        gzipped=True,
    )
    return fetch_archive(name, bring, layout, into, scope)


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


def _kept(place: Place, error: CvlError) -> FetchError:
    there = f"they are still in {place}; `cvl fetch RUN` gets them"
    return FetchError(
        f"the results could not be fetched: {error}",
        f"{error.hint}; {there}" if error.hint else there,
    )
