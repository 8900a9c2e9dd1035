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
    CLUSTER_BINDINGS,
    CLUSTER_ROLES,
    CONFIGMAPS,
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

PORT_LIMIT = 65535
_ANY_NAME = frozenset({ROLES, BINDINGS, CLUSTER_ROLES, CLUSTER_BINDINGS})


def check(resource: Resource, obj: Obj, old: Obj | None) -> None:
    """Raise `ApiError` 422 if the object may not be, or may not become so from `old`."""
    causes = [*_metadata(resource, obj)]
    if resource in _CHECKS:
        causes += _CHECKS[resource](obj)
    if old is not None and not causes and resource in _CHANGES:
        causes += _CHANGES[resource](obj, old)
    if causes:
        raise invalid(resource, name_of(obj), causes)


def _metadata(resource: Resource, obj: Obj) -> Iterator[Cause]:
    name, field = name_of(obj), "metadata.name"
    if resource in _ANY_NAME:
        if "/" in name or "%" in name or name in (".", ".."):
            yield wrong(field, name, "may not contain '/'")
    elif resource is SERVICES:
        yield from names.service(field, name)
    elif resource is NAMESPACES:
        yield from names.label(field, name)
    else:
        yield from names.subdomain(field, name)
    yield from names.labels("metadata.labels", meta(obj).get("labels") or {})
    annotations = meta(obj).get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > ANNOTATIONS_LIMIT:
        yield "metadata.annotations", f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes"


def _secret(secret: Obj) -> Iterator[Cause]:
    size = 0
    for key, value in (secret.get("data") or {}).items():
        yield from _data_key(key)
        try:
            size += len(base64.b64decode(value, validate=True))
        except binascii.Error:
            yield f"data[{key}]", "Invalid value: must be base64"
    if size > DATA_LIMIT:
        yield "data", f"Too long: may not be more than {DATA_LIMIT} bytes"


def _configmap(configmap: Obj) -> Iterator[Cause]:
    data, binary = configmap.get("data") or {}, configmap.get("binaryData") or {}
    for key in (*data, *binary):
        yield from _data_key(key)
    size = sum(len(value.encode()) for value in data.values())
    if size + sum(len(base64.b64decode(value)) for value in binary.values()) > DATA_LIMIT:
        yield "[]", f"Too long: may not be more than {DATA_LIMIT} bytes"


def _data_key(key: str) -> Iterator[Cause]:
    if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) or key in (".", ".."):
        why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        yield wrong(f"data[{key}]", key, why)


def _same_data(obj: Obj, old: Obj) -> Iterator[Cause]:
    kept = ("data", "binaryData", "immutable")
    if old.get("immutable") and any(obj.get(key) != old.get(key) for key in kept):
        yield "data", "Forbidden: field is immutable when `immutable` is set"


def _service(service: Obj) -> Iterator[Cause]:
    spec = service["spec"]
    portless = spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName"
    if not spec.get("ports") and not portless:
        yield "spec.ports", "Required value"
    for n, port in enumerate(spec.get("ports") or []):
        if not 1 <= port["port"] <= PORT_LIMIT:
            why = f"must be between 1 and {PORT_LIMIT}, inclusive"
            yield wrong(f"spec.ports[{n}].port", port["port"], why)


_CHECKS: Mapping[Resource, Callable[[Obj], Iterator[Cause]]] = {
    PODS: pod_rules.pod,
    JOBS: job_rules.job,
    SECRETS: _secret,
    CONFIGMAPS: _configmap,
    SERVICES: _service,
}
_CHANGES: Mapping[Resource, Callable[[Obj, Obj], Iterator[Cause]]] = {
    PODS: pod_rules.pod_change,
    JOBS: job_rules.job_change,
    SECRETS: _same_data,
    CONFIGMAPS: _same_data,
}
