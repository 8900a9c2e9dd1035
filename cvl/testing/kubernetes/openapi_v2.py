"""The OpenAPI v2 document in protocol buffers: the only form in which kubectl asks for it.

https://github.com/google/gnostic/blob/main/openapiv2/OpenAPIv2.proto : of it what clients look
at, which is the definitions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

SWAGGER, INFO, DEFINITIONS = 1, 2, 9
REF, FORMAT, DESCRIPTION, REQUIRED, ADDITIONAL, TYPE, ITEMS, PROPERTIES, EXTENSION = (
    1, 2, 4, 19, 21, 22, 23, 25, 31,
)  # fmt: skip
YAML = 2


def encoded(definitions: Mapping[str, Any], title: str, version: str) -> bytes:
    """Return a document that has these definitions."""
    info = _text(1, title) + _text(2, version)
    named = b"".join(_part(1, _named(name, it)) for name, it in definitions.items())
    return _text(SWAGGER, "2.0") + _part(INFO, info) + _part(DEFINITIONS, named)


def _named(name: str, schema: Mapping[str, Any]) -> bytes:
    return _text(1, name) + _part(2, _schema(schema))


def _schema(schema: Mapping[str, Any]) -> bytes:
    made = [
        _text(number, schema[key])
        for number, key in ((REF, "$ref"), (FORMAT, "format"), (DESCRIPTION, "description"))
        if key in schema
    ]
    made += [_text(REQUIRED, name) for name in schema.get("required", ())]
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        made.append(_part(ADDITIONAL, _part(1, _schema(more))))
    if "type" in schema:
        made.append(_part(TYPE, _text(1, schema["type"])))
    if "items" in schema:
        made.append(_part(ITEMS, _part(1, _schema(schema["items"]))))
    if "properties" in schema:
        named = (_part(1, _named(name, it)) for name, it in schema["properties"].items())
        made.append(_part(PROPERTIES, b"".join(named)))
    return b"".join((*made, *_extensions(schema)))


def _extensions(schema: Mapping[str, Any]) -> Iterable[bytes]:
    """Yield the extensions, each as YAML: which JSON is."""
    for name, value in schema.items():
        if name.startswith("x-"):
            yield _part(EXTENSION, _text(1, name) + _part(2, _text(YAML, json.dumps(value))))


def _text(number: int, text: str) -> bytes:
    return _part(number, text.encode())


def _part(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))
