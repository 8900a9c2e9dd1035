"""Checks requests and replies against the vendor's published OpenAPI document, where it is at hand.

It is looked for in `$CVL_SPECS/lambda/`, else in `../shared/specs/lambda/` beside the checkout.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from cvl.testing.specs import Schemas, load

FILE = "lambda/lambda-cloud-openapi-1.10.0.json"


class Document:
    """The document, and what it says of each operation."""

    def __init__(self, path: Path) -> None:
        contents = json.loads(path.read_text())
        self._schemas = Schemas(contents)
        self._operations = {
            operation["operationId"]: (operation, f"/paths/{_escape(route)}/{method}")
            for route, methods in contents["paths"].items()
            for method, operation in methods.items()
            if isinstance(operation, dict) and "operationId" in operation
        }

    def request(self, operation: str, body: object) -> list[str]:
        """Return what is wrong with a request's body; keys that nobody documented are wrong."""
        described, at = self._operations[operation]
        if "requestBody" not in described:
            return []
        schema = described["requestBody"]["content"]["application/json"]["schema"]
        extra = set(body) - set(schema["properties"]) if isinstance(body, dict) else set()
        complaints = [f"{operation}: {key}: not in the document" for key in sorted(extra)]
        where = f"{at}/requestBody/content/application~1json/schema"
        return complaints + self._complaints(operation, where, body)

    def reply(self, operation: str, status: int, body: object) -> list[str]:
        """Return what is wrong with a reply. 429 and 5xx are in no document, but are sent."""
        described, at = self._operations[operation]
        if status == 429 or status >= 500:
            return []
        if str(status) not in described["responses"]:
            return [f"{operation}: status {status}: not in the document"]
        where = f"{at}/responses/{status}/content/application~1json/schema"
        return self._complaints(f"{operation} {status}", where, body)

    def _complaints(self, name: str, where: str, value: object) -> list[str]:
        errors = self._schemas.errors(where, value)
        return [f"{name}: {error.json_path}: {error.message}" for error in errors]


@cache
def find() -> tuple[Document | None, str]:
    """Return the document, or why there is none."""
    return load(FILE, Document)


def _escape(route: str) -> str:
    return route.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
