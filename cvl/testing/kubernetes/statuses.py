"""What the API says when it refuses: `Status` objects, worded as the real server words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.resources import Resource

REASONS: Mapping[int, str] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """Raised anywhere below the API: becomes a `Status` of that code."""

    def __init__(
        self, code: int, message: str, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or REASONS.get(code, "")
        self.details = dict(details or {})

    def status(self) -> Obj:
        """Return the object that goes over the wire."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def success(details: Mapping[str, Any] | None = None) -> Obj:
    """Return the `Status` of something that was done."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        **({"details": dict(details)} if details else {}),
    }


def details(resource: Resource, name: str) -> Obj:
    """Return the details that name an object. `kind` is the plural: so the server has it."""
    found: Obj = {"name": name}
    if resource.group:
        found["group"] = resource.group
    return found | {"kind": resource.plural}


def not_found(resource: Resource, name: str) -> ApiError:
    """Return the refusal of what is not there."""
    message = f'{resource.full} "{name}" not found'
    return ApiError(404, message, details=details(resource, name))


def no_such_path() -> ApiError:
    """Return the refusal of a path that the server does not have."""
    return ApiError(404, "the server could not find the requested resource")


def already_exists(resource: Resource, name: str) -> ApiError:
    """Return the refusal of a second object of one name."""
    message = f'{resource.full} "{name}" already exists'
    return ApiError(409, message, "AlreadyExists", details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """Return the refusal of a change to what is not as the client thinks."""
    message = f'Operation cannot be fulfilled on {resource.full} "{name}": {why}'
    return ApiError(409, message, "Conflict", details(resource, name))


def modified(resource: Resource, name: str) -> ApiError:
    """Return the refusal of a change to an older version."""
    why = (
        "the object has been modified; please apply your changes to the latest version"
        " and try again"
    )
    return conflict(resource, name, why)


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """Return the refusal of what one may not do."""
    quoted = f' "{name}"' if name else ""
    message = f"{resource.full}{quoted} is forbidden: {why}"
    return ApiError(403, message, details=details(resource, name))


def invalid(resource: Resource, name: str, causes: Sequence[tuple[str, str]]) -> ApiError:
    """Return the refusal of an object whose fields are wrong: (field, what is wrong) each."""
    told = [f"{field}: {what}" for field, what in causes]
    listed = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    found = details(resource, name) | {"kind": resource.kind}
    qualified = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(422, f'{qualified} "{name}" is invalid: {listed}', details=found)
