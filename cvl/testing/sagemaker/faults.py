"""What can go wrong, by name: once or several times, at one operation."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

BEFORE, AFTER, MIDDLE = "before", "after", "middle"
NOT_FOUND = "Requested resource not found."
"""What DescribeTrainingJob says, too, of a job that was made a moment ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with `times` requests for `operation`, after `skip` of them.

    `code` "" cuts the connection. `when` is before the request takes effect, after, or in the
    middle of its answer.
    """

    operation: str
    code: str = ""
    status: int = 400
    when: str = BEFORE
    times: int = 1
    skip: int = 0
    garbage: bool = False
    message: str = ""

    def body(self) -> bytes:
        """Return the answer that comes in place of the real one: S3 speaks XML, the others JSON."""
        if self.garbage:
            return b"<html>bad gateway</html>"
        message = self.message or f"{self.code} (injected)"
        if self.operation.endswith("Object"):
            return f"<Error><Code>{self.code}</Code><Message>{message}</Message></Error>".encode()
        return json.dumps({"__type": self.code, "message": message}).encode()


FAULTS: Mapping[str, Fault] = {
    "create-reset-before": Fault(operation="CreateTrainingJob"),
    "create-reset-after": Fault(operation="CreateTrainingJob", when=AFTER),
    "create-throttled": Fault(operation="CreateTrainingJob", code="ThrottlingException", times=2),
    "create-500-after": Fault(
        operation="CreateTrainingJob", code="InternalFailure", status=500, when=AFTER
    ),
    "create-garbage-after": Fault(
        operation="CreateTrainingJob", code="x", status=502, when=AFTER, garbage=True
    ),
    "create-refused": Fault(operation="CreateTrainingJob", code="ResourceLimitExceeded"),
    **{
        f"create-{code}-{when}": Fault(operation="CreateTrainingJob", code=code, when=when)
        for code in (
            "AccessDeniedException",
            "ExpiredTokenException",
            "UnrecognizedClientException",
        )
        for when in (BEFORE, AFTER)
    },
    "describe-throttled": Fault(
        operation="DescribeTrainingJob", code="ThrottlingException", times=5, skip=1
    ),
    "describe-expired": Fault(
        operation="DescribeTrainingJob", code="ExpiredTokenException", times=3, skip=2
    ),
    "logs-throttled": Fault(operation="GetLogEvents", code="ThrottlingException", times=5, skip=2),
    "streams-reset": Fault(operation="DescribeLogStreams", times=5, skip=1),
    "stop-reset-after": Fault(operation="StopTrainingJob", when=AFTER),
    "stop-throttled": Fault(operation="StopTrainingJob", code="ThrottlingException", times=5),
    "describe-missing": Fault(
        operation="DescribeTrainingJob", code="ValidationException", message=NOT_FOUND, times=3
    ),
    "put-object-reset": Fault(operation="PutObject", times=1),
    "put-object-slow": Fault(operation="PutObject", code="SlowDown", status=503, times=2),
    "get-object-reset": Fault(operation="GetObject", times=1),
    "get-object-cut": Fault(operation="GetObject", when=MIDDLE, times=6),
}


class Faults:
    """Those still to happen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[Fault] = []

    def inject(self, fault: Fault) -> None:
        """Let this happen from now on."""
        with self._lock:
            self._left.append(fault)

    def due(self, operation: str) -> Fault | None:
        """Return what happens to this request, and count it."""
        with self._lock:
            for index, fault in enumerate(self._left):
                if fault.operation != operation:
                    continue
                if fault.skip:
                    self._left[index] = replace(fault, skip=fault.skip - 1)
                    return None
                self._left[index] = replace(fault, times=fault.times - 1)
                if fault.times <= 1:
                    del self._left[index]
                return fault
        return None

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._left.clear()
