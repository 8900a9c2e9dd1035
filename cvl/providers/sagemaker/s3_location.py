"""A place in S3: a bucket and a prefix in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.providers.aws.session import Account

FORM = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """`prefix` has no slash at either end; "" is the whole bucket."""

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read `s3://bucket/prefix`. Raises `UsageError`."""
        match = FORM.match(uri)
        if not match:
            raise UsageError(f"{uri!r} is no place in S3", "write it as s3://BUCKET/PREFIX")
        return cls(bucket=match["bucket"], prefix=(match["prefix"] or "").strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def __truediv__(self, name: str) -> S3Location:
        return S3Location(
            bucket=self.bucket, prefix=f"{self.prefix}/{name}" if self.prefix else name
        )

    def objects(self, account: Account, start: str = "") -> Iterator[dict[str, Any]]:
        """Yield every object below it, page by page; of a bucket, what begins so."""
        prefix = f"{self.prefix}/" if self.prefix else start
        more: dict[str, str] = {}
        while True:
            page = account.call("s3", "list_objects_v2", Bucket=self.bucket, Prefix=prefix, **more)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}
