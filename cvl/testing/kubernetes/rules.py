"""What the real server checks beyond the document, for each kind of object."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping

from cvl.testing.kubernetes import job_rules, names, pod_rules
from cvl.testing.kubernetes.names import Cause, wrong
from cvl.testing.kubernetes.objects import Obj, meta, name_of
from cvl.testing.kubernetes.resources import (
    BINDINGS,
    JOBS,
    NAMESPACES,
    PODS,
    ROLES,
    SECRETS,
    SERVICES,
    Resource,
)
from cvl.testing.kubernetes.statuses import invalid

DATA_LIMIT = 2**20
ANNOTATIONS_LIMIT = 256 * 2**10
"""Bytes."""

PATTERNS: Mapping[Resource, str] = {SERVICES: names.SERVICE, NAMESPACES: names.LABEL}


def check(resource: Resource, obj: Obj, old: Obj | None) -> None:
    """Raise `ApiError` 422 if the object may not be, or may not become so from `old`."""
    causes = [*_metadata(resource, obj)]
    if resource in _CHECKS:
        causes += _CHECKS[resource](obj)
    if old is not None and resource is JOBS:
        causes += job_rules.job_change(obj, old)
    if causes:
        raise invalid(resource, name_of(obj), causes)


def _metadata(resource: Resource, obj: Obj) -> Iterator[Cause]:
    if resource not in (ROLES, BINDINGS):
        pattern = PATTERNS.get(resource, names.SUBDOMAIN)
        yield from names.named("metadata.name", name_of(obj), pattern)
    yield from names.labels("metadata.labels", meta(obj).get("labels") or {})
    annotations = meta(obj).get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > ANNOTATIONS_LIMIT:
        yield "metadata.annotations", f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes"


def _secret(secret: Obj) -> Iterator[Cause]:
    size = 0
    for key, value in (secret.get("data") or {}).items():
        if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) or key in (".", ".."):
            why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            yield wrong(f"data[{key}]", key, why)
        try:
            size += len(base64.b64decode(value, validate=True))
        except binascii.Error:
            yield f"data[{key}]", "Invalid value: must be base64"
    if size > DATA_LIMIT:
        yield "data", f"Too long: may not be more than {DATA_LIMIT} bytes"


def _service(service: Obj) -> Iterator[Cause]:
    """Only headless ones are served here."""
    if service["spec"].get("clusterIP") != "None":
        yield wrong("spec.clusterIP", service["spec"].get("clusterIP", ""), "must be None here")


_CHECKS: Mapping[Resource, Callable[[Obj], Iterator[Cause]]] = {
    PODS: pod_rules.pod,
    JOBS: job_rules.job,
    SECRETS: _secret,
    SERVICES: _service,
}
