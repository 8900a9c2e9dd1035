"""What the service itself does with S3 and CloudWatch, as anybody would: over the wire."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

GROUP = "/aws/sagemaker/TrainingJobs"
SERVICE = "cvl-testing-service"
"""In the user agent of our own requests: no fault happens to them, no log has them."""


class WireStorage:
    """S3 and CloudWatch Logs behind one endpoint."""

    def __init__(self, url: str, region: str) -> None:
        session = import_module("boto3").session.Session(
            aws_access_key_id="service", aws_secret_access_key="service", region_name=region
        )
        config = import_module("botocore.config").Config(user_agent_extra=SERVICE)
        self._s3: Any = session.client("s3", endpoint_url=url, config=config)
        self._logs: Any = session.client("logs", endpoint_url=url, config=config)
        self._streams: set[str] = set()

    def forget(self) -> None:
        """Begin anew: nothing is there any more."""
        self._streams.clear()

    def download(self, uri: str, into: Path) -> None:
        """Bring every object below a prefix, as a File channel does."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for each in (each for page in pages for each in page.get("Contents", ())):
            file = into / each["Key"][len(prefix) :].lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read())

    def upload(self, file: Path, uri: str) -> None:
        """Put one file."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        with file.open("rb") as body:
            self._s3.put_object(Bucket=bucket, Key=key, Body=body)

    def write(self, stream: str, messages: Sequence[str]) -> None:
        """Append events to a stream, made when it is missing."""
        if stream not in self._streams:
            with suppress(self._logs.exceptions.ResourceAlreadyExistsException):
                self._logs.create_log_group(logGroupName=GROUP)
            with suppress(self._logs.exceptions.ResourceAlreadyExistsException):
                self._logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
            self._streams.add(stream)
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": message} for message in messages]
        self._logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)
