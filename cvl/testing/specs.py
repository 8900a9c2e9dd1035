"""The vendors' published documents, where they are at hand.

They are looked for in `$CVL_SPECS`, else in `../shared/specs` beside the checkout.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

URI = "urn:document"
D = TypeVar("D")


class Schemas:
    """What a document says of values, at any place in it."""

    def __init__(self, contents: Mapping[str, object]) -> None:
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        self._registry = Registry().with_resource(URI, DRAFT202012.create_resource(contents))
        self._validators: dict[str, Draft202012Validator] = {}

    def errors(self, place: str, value: object) -> Iterator[ValidationError]:
        """Return what is wrong with a value. `place` is its schema's JSON pointer (RFC 6901)."""
        from jsonschema import Draft202012Validator

        if place not in self._validators:
            schema = {"$ref": f"{URI}#{place}"}
            self._validators[place] = Draft202012Validator(schema, registry=self._registry)
        return self._validators[place].iter_errors(value)


def load(file: str, document: Callable[[Path], D]) -> tuple[D | None, str]:
    """Return the document that is made of this file, or why there is none."""
    beside = Path(__file__).parents[3] / "shared/specs"
    path = Path(os.environ.get("CVL_SPECS", beside)) / file
    if not path.is_file():
        return None, f"no {file} in $CVL_SPECS or ../shared/specs"
    if importlib.util.find_spec("jsonschema") is None:
        return None, "jsonschema is not installed"
    return document(path), ""
