"""How this API answers: `{"data": ...}`, or `{"error": ...}` with a code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

MESSAGES = {
    "global/invalid-api-key": "API key was invalid, expired, or deleted.",
    "global/account-inactive": "Your account is inactive.",
    "global/invalid-address": "Your billing address is invalid.",
    "global/invalid-parameters": "Invalid request data.",
    "global/object-does-not-exist": "Specified instance does not exist.",
    "global/not-found": "The requested resource was not found.",
    "global/conflict": "The request conflicts with the current state of the resource.",
    "global/duplicate": "An object with this name exists already.",
    "global/quota-exceeded": "Quota exceeded.",
    "global/internal-error": "An internal server error occurred.",
    "instance-operations/launch/insufficient-capacity": (
        "Not enough capacity to fulfill launch request."
    ),
}
CAPACITY = "instance-operations/launch/insufficient-capacity"
WRONG_REGION = "instance-operations/launch/file-system-in-wrong-region"
INVALID = "global/invalid-parameters"
MISSING = "global/object-does-not-exist"


class ApiError(Exception):
    """The operation is refused; nothing has changed."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or MESSAGES.get(code, code))
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back over the wire."""

    status: int
    body: bytes
    type: str = "application/json"
    code: str = field(default="")


def success(data: object, **more: object) -> Reply:
    """Return the envelope of a success."""
    return Reply(status=200, body=json.dumps({"data": data, **more}).encode())


def failure(error: ApiError) -> Reply:
    """Return the envelope of an error."""
    told = {"code": error.code, "message": str(error), "suggestion": "See the documentation."}
    body = json.dumps({"error": told}).encode()
    return Reply(status=error.status, body=body, code=error.code)
