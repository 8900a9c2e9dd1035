"""The wire: one WSGI application that is all of AWS. What is not ours it hands to moto."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from io import BytesIO
from typing import Any, NoReturn

from cvl.testing.sagemaker.api import Refused, TrainingJobs
from cvl.testing.sagemaker.faults import AFTER, BEFORE, MIDDLE, Fault, Faults
from cvl.testing.sagemaker.model import faults_of_reply
from cvl.testing.sagemaker.prices import PRICES, products
from cvl.testing.sagemaker.registry import holds
from cvl.testing.sagemaker.storage import SERVICE

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
PREFIXES = {
    "SageMaker.": "sagemaker",
    "AWSPriceListService.": "pricing",
    "ServiceQuotasV20190624.": "service-quotas",
}
S3_OPERATIONS = {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject", "POST": "PostObject"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request that a client made."""

    operation: str
    body: Mapping[str, Any]


class Wire:
    """Answers requests, lets faults happen, keeps a log.

    `hook(operation, moment)` is called before a request takes effect and after it has, before
    anything is sent; it may kill whoever waits.
    """

    def __init__(self, moto: Application, registry: str, faults: Faults) -> None:
        """`registry` stands where moto speaks of ECR's host; "" leaves moto's words."""
        self.log: list[Entry] = []
        self.violations: list[str] = []
        self.hook: Callable[[str, str], None] = lambda _operation, _moment: None
        self.jobs: TrainingJobs | None = None
        self.expired_key = ""
        self.hidden_streams = 0.0
        self.empty_pages = 0
        self._moto, self._registry, self._faults = moto, registry, faults
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        data = _whole_body(environ)
        environ["wsgi.input"] = BytesIO(data)
        environ["CONTENT_LENGTH"] = str(len(data))
        if SERVICE in environ.get("HTTP_USER_AGENT", ""):
            return self._moto(environ, start)
        operation, body = _operation(environ, data)
        with self._lock:
            self.log.append(Entry(operation=operation, body=body))
        fault = self._expired(environ) or self._faults.due(operation)
        self.hook(operation, BEFORE)
        if fault and fault.when == BEFORE:
            return _broken(fault, environ, start)
        status, headers, answer = self._answer(operation, body, environ)
        self.hook(operation, AFTER)
        if fault and fault.when == MIDDLE:
            start(status, headers)
            return _half(answer, environ)
        if fault:
            return _broken(fault, environ, start)
        start(status, headers)
        return [answer]

    def _expired(self, environ: Mapping[str, Any]) -> Fault | None:
        """Return what happens to a request that is signed with `expired_key`."""
        signed = f"Credential={self.expired_key}/" in environ.get("HTTP_AUTHORIZATION", "")
        return Fault(operation="", code="ExpiredTokenException") if signed else None

    def _answer(
        self, operation: str, body: Mapping[str, Any], environ: dict[str, Any]
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        for prefix, service in PREFIXES.items():
            if target.startswith(prefix):
                return self._ours(service, operation, body)
        if body.get("nextToken") == EMPTY:
            data = json.dumps({k: v for k, v in body.items() if k != "nextToken"}).encode()
            environ |= {"wsgi.input": BytesIO(data), "CONTENT_LENGTH": str(len(data))}
        status, headers, answer = _called(self._moto, environ)
        if "ContainerRegistry" in target and self._registry:
            answer = _with_registry(answer, self._registry)
        if operation == "BatchGetImage" and self._registry and status.startswith("200"):
            answer = _images(body, self._registry)
        if operation == "DescribeLogStreams" and self.hidden_streams > time.time():
            answer = b'{"logStreams": []}'
        if operation == "GetLogEvents" and status.startswith("200"):
            answer = self._page(body, answer)
        if not any(key.lower() == "date" for key, _ in headers):
            headers.append(("Date", formatdate(usegmt=True)))
        if environ["REQUEST_METHOD"] != "HEAD":
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(answer))))
        return status, headers, answer

    def _ours(
        self, service: str, operation: str, body: Mapping[str, Any]
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        assert self.jobs is not None
        try:
            if service == "pricing":
                found = products(body)
            elif service == "service-quotas":
                found = self.jobs.quotas.listed(body, PRICES)
            else:
                found = self.jobs.answer(operation, body)
            self.violations += faults_of_reply(service, operation, found)
            return "200 OK", _headers(), json.dumps(found).encode()
        except Refused as error:
            answer = {"__type": error.code, "message": error.message}
            return "400 Bad Request", _headers(), json.dumps(answer).encode()

    def _page(self, body: Mapping[str, Any], answer: bytes) -> bytes:
        """Give, now and then, a page without events before the one that has them."""
        found = json.loads(answer)
        with self._lock:
            if not self.empty_pages or not found.get("events") or "nextToken" in body:
                return answer
            self.empty_pages -= 1
        return json.dumps({**found, "events": [], "nextForwardToken": EMPTY}).encode()


EMPTY = "f/an-empty-page"
"""The token of a page that had no events though there are some."""


def _whole_body(environ: dict[str, Any]) -> bytes:
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        return bytes(environ["wsgi.input"].read())
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _operation(environ: Mapping[str, Any], data: bytes) -> tuple[str, Mapping[str, Any]]:
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        try:
            body = json.loads(data or b"{}")
        except ValueError:
            body = {}
        return target.rpartition(".")[2], body
    if b"Action=" in data[:2000]:
        action = data.partition(b"Action=")[2].partition(b"&")[0].decode()
        return action, {}
    method = environ["REQUEST_METHOD"]
    path = environ.get("PATH_INFO", "").strip("/")
    if "/" not in path and method == "HEAD":
        return "HeadBucket", {"path": path}
    if method == "GET" and "list-type" in environ.get("QUERY_STRING", ""):
        return "ListObjectsV2", {"path": path}
    if method == "POST" and "delete" in environ.get("QUERY_STRING", ""):
        return "DeleteObjects", {"path": path}
    return S3_OPERATIONS.get(method, method), {"path": path}


def _called(moto: Application, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return moto's whole answer."""
    kept: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        kept.append((status, headers))

    try:
        parts = moto(environ, start)
    except NotImplementedError as error:
        return "501 Not Implemented", _headers(), json.dumps({"message": str(error)}).encode()
    try:
        answer = b"".join(parts)
    finally:
        if close := getattr(parts, "close", None):
            close()
    return kept[0][0], kept[0][1], answer


def _with_registry(answer: bytes, registry: str) -> bytes:
    """Let ECR speak of a registry that is really there."""
    found = json.loads(answer)
    for each in (found.get("repository"), *found.get("repositories", ())):
        if each:
            each["repositoryUri"] = f"{registry}/{each['repositoryName']}"
    for each in found.get("authorizationData", ()):
        each["proxyEndpoint"] = f"http://{registry}"
    return json.dumps(found).encode()


def _images(body: Mapping[str, Any], registry: str) -> bytes:
    """Answer BatchGetImage by what the registry has."""
    name, ids = str(body["repositoryName"]), body["imageIds"]
    there = [each for each in ids if holds(registry, name, each["imageTag"])]
    missing = [{"imageId": e, "failureCode": "ImageNotFound"} for e in ids if e not in there]
    images = [{"repositoryName": name, "imageId": each} for each in there]
    return json.dumps({"images": images, "failures": missing}).encode()


def _headers() -> list[tuple[str, str]]:
    return [("Content-Type", "application/x-amz-json-1.1"), ("Date", formatdate(usegmt=True))]


def _half(answer: bytes, environ: Mapping[str, Any]) -> Iterator[bytes]:
    yield answer[: len(answer) // 2]
    _cut(environ)


def _cut(environ: Mapping[str, Any]) -> NoReturn:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("injected")  # which the server takes without a word


def _broken(fault: Fault, environ: Mapping[str, Any], start: StartResponse) -> Iterable[bytes]:
    if not fault.code:
        _cut(environ)
    start(f"{fault.status} Injected", _headers())
    return [fault.body()]
