"""Checks requests and replies against botocore's own description of a service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

KINDS: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "double": (int, float),
    "float": (int, float),
    "timestamp": (int, float),
    "boolean": bool,
    "structure": dict,
    "map": dict,
    "list": list,
}


@cache
def model(service: str) -> Any:
    """Return botocore's model of a service."""
    return import_module("botocore.session").get_session().get_service_model(service)


def faults_of_request(service: str, operation: str, body: Mapping[str, object]) -> list[str]:
    """Return what AWS would find wrong with a request, one sentence each."""
    shape = model(service).operation_model(operation).input_shape
    return [] if shape is None else list(_wrong(shape, body, ""))


def faults_of_reply(service: str, operation: str, body: Mapping[str, object]) -> list[str]:
    """Return in what a reply is not one that AWS gives."""
    shape = model(service).operation_model(operation).output_shape
    return [] if shape is None else list(_wrong(shape, body, ""))


def _wrong(shape: Any, value: object, place: str) -> Iterator[str]:
    kind = KINDS.get(shape.type_name)
    if kind and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        yield f"{place or 'the body'} is no {shape.type_name}"
        return
    yield from _bounds(shape, value, place)
    if isinstance(value, dict) and shape.type_name == "structure":
        yield from (
            f"{place}.{name} is missing" for name in shape.required_members if name not in value
        )
        for name, inner in value.items():
            if name not in shape.members:
                yield f"{place}.{name} is unknown"
            else:
                yield from _wrong(shape.members[name], inner, f"{place}.{name}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _wrong(shape.key, name, f"{place} key")
            yield from _wrong(shape.value, inner, f"{place}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _wrong(shape.member, inner, f"{place}[{index}]")


def _bounds(shape: Any, value: object, place: str) -> Iterator[str]:
    limits = shape.metadata
    size = len(value) if isinstance(value, str | list | dict) else value
    if isinstance(size, int | float) and not isinstance(value, bool):
        if "min" in limits and size < limits["min"]:
            yield f"{place} is less than {limits['min']}"
        if "max" in limits and size > limits["max"]:
            yield f"{place} is more than {limits['max']}"
    if isinstance(value, str):
        if "enum" in limits and value not in limits["enum"]:
            yield f"{place} is none of {', '.join(limits['enum'])}"
        if "pattern" in limits and not _fits(limits["pattern"], value):
            yield f"{place} does not fit {limits['pattern']}"


def _fits(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:  # written for another kind of regular expression
        return True
