"""Checks objects and requests against the official OpenAPI document, where it is at hand.

It is looked for in `$CVL_SPECS/kubernetes/`, else in `../shared/specs/kubernetes/` beside the
checkout. What it says of our resources is cut out of it once; the rest is never looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cvl.testing.kubernetes.resources import RESOURCES
from cvl.testing.specs import Schemas, load

FILE = "kubernetes/swagger.json"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
OTHERS = (f"{META}Status", f"{META}DeleteOptions")
UNLISTED = frozenset({"sinceTime"})
"""A parameter that the server takes though the document does not name it (PodLogOptions)."""

_LOOSE: Mapping[str, list[str]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaints:
    """What is wrong with an object."""

    unknown: tuple[str, ...] = ()
    """Paths of fields that nobody documented; the real server drops them."""
    wrong: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        return [*self.wrong, *(f'unknown field "{field}"' for field in self.unknown)]


class Document:
    """The document, cut down to our resources."""

    def __init__(self, path: Path) -> None:
        contents = json.loads(path.read_text())
        self.paths: Mapping[str, Any] = contents["paths"]
        self.parameters: Mapping[str, Any] = contents["parameters"]
        roots = [each.definition for each in RESOURCES] + list(OTHERS)
        self.definitions = _reachable(contents["definitions"], roots)
        cut = {"definitions": {name: _strict(name, it) for name, it in self.definitions.items()}}
        self._schemas = Schemas(cut)

    def object(self, definition: str, value: object, *, prune: bool = False) -> Complaints:
        """Return what is wrong with an object of that definition, which has no nulls in it.

        `prune` takes unknown fields out of it, as the real server does.
        """
        unknown: list[str] = []
        wrong: list[str] = []
        for error in list(self._schemas.errors(f"/definitions/{definition}", value)):
            path = error.json_path.removeprefix("$").removeprefix(".")
            given, schema = error.instance, error.schema
            strict = error.validator == "additionalProperties"
            if strict and isinstance(given, dict) and isinstance(schema, Mapping):
                extra = set(given) - set(schema.get("properties", ()))
                unknown += [f"{path}.{key}".removeprefix(".") for key in sorted(extra)]
                for key in extra if prune else ():
                    del given[key]
            else:
                wrong.append(f"{path}: {error.message}" if path else error.message)
        return Complaints(unknown=tuple(unknown), wrong=tuple(wrong))

    def request(self, method: str, path: str, query: Iterable[str]) -> list[str]:
        """Return what is wrong with a request's method, path and parameters."""
        template = _template(path)
        operations = self.paths.get(template)
        operation = (operations or {}).get(method.lower())
        if operations is None or operation is None:
            return [f"{method} {template}: not in the document"]
        told = [*operations.get("parameters", ()), *operation.get("parameters", ())]
        known = {self._parameter(each)["name"] for each in told} | UNLISTED
        return [f"{method} {template}: {key}: no such parameter" for key in set(query) - known]

    def _parameter(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in told:
            return told
        found: Mapping[str, Any] = self.parameters[told["$ref"].rpartition("/")[2]]
        return found


@cache
def find() -> tuple[Document | None, str]:
    """Return the document, or why there is none."""
    return load(FILE, Document)


def _reachable(all_: Mapping[str, Any], roots: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in found and name in all_:
            found[name] = all_[name]
            told = re.findall(r'"#/definitions/([^"]+)"', json.dumps(all_[name]))
            todo += told
    return found


def _strict(name: str, definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a definition that takes no other fields than its own."""
    if name in _LOOSE:
        return {"type": _LOOSE[name]}
    if "properties" not in definition or "x-kubernetes-preserve-unknown-fields" in definition:
        return definition
    return {**definition, "additionalProperties": False}


def _template(path: str) -> str:
    """Return the path as the document writes it."""
    parts = path.strip("/").split("/")
    start = 2 if parts[0] == "api" else 3
    rest = parts[start:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest[1] = "{namespace}"
        named = 3
    else:
        named = 1
    if len(rest) > named:
        rest[named] = "{name}"
    return "/" + "/".join([*parts[:start], *rest])
