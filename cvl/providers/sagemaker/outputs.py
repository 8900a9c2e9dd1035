"""Brings a job's artifacts here and unpacks them: in their folder only, links and all checked."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

from cvl.core.errors import BrokenOff, CvlError, FetchError, Missing
from cvl.core.retry import steadily
from cvl.core.scope import Scope
from cvl.core.units import size
from cvl.host.download.archive import MAY_PASS, fetch_archive
from cvl.host.download.report import NOTHING, Landed, report
from cvl.providers.aws.api_errors import boundary
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.s3_location import S3Location

BLOCK = 1 << 20
ARCHIVES = (("output.tar.gz", b""), ("model.tar.gz", b"model/"))
"""What SageMaker leaves, and where below the results folder it lands."""


def fetch(account: Account, location: S3Location, into: Path, scope: Scope) -> None:
    """Bring and unpack what there is. Raises `FetchError`; may be repeated.

    What may pass is tried again until `scope` is over.
    """
    total = NOTHING
    for name, below in ARCHIVES:
        try:
            total = total.joined(_one(account, location / name, below, into, scope))
        except Missing:
            continue  # a failed job has no model, one that never began has neither
        except CvlError as error:
            raise _kept(location, error) from error
    report(scope, total, into, lasts=False)


def _one(account: Account, archive: S3Location, below: bytes, into: Path, scope: Scope) -> Landed:
    name = archive.prefix.rpartition("/")[2]
    head = partial(account.call, "s3", "head_object", Bucket=archive.bucket, Key=archive.prefix)
    total = steadily(scope, lambda: int(head()["ContentLength"]), passing=MAY_PASS)
    scope.tell("fetching", f"{name}, {size(total)}")

    def bring(out: IO[bytes]) -> None:
        steadily(scope, lambda: _download(account, archive, total, out, scope), passing=MAY_PASS)

    def where(member: bytes) -> tuple[str, bytes] | None:
        return ("w", below + member) if member else None

    return fetch_archive(name, bring, where, into, scope)


def _download(
    account: Account, location: S3Location, total: int, out: IO[bytes], scope: Scope
) -> None:
    """Bring the rest of one object. Raises `BrokenOff` where that brings nothing."""
    while (start := out.tell()) < total:
        scope.checkpoint()
        there = {"Bucket": location.bucket, "Key": location.prefix, "Range": f"bytes={start}-"}
        with closing(account.call("s3", "get_object", **there)["Body"]) as body:
            while block := _block(body):
                out.write(block)
                scope.heard()
                scope.checkpoint()
        if out.tell() == start:
            raise BrokenOff(f"S3 gives nothing of {location} from byte {start} on")


def _block(body: Any) -> bytes:
    """Return what comes next. Raises `Unreachable` where it breaks off, or its length is wrong."""
    with boundary("s3"):
        block: bytes = body.read(BLOCK)
    return block


def _kept(location: S3Location, error: CvlError) -> FetchError:
    hint = f"they are still in {location}; `cvl fetch RUN` gets them"
    return FetchError(
        f"the results could not be fetched: {error}",
        f"{error.hint}; {hint}" if error.hint else hint,
    )
