"""One request on its way: who asks for what."""

from __future__ import annotations

from dataclasses import dataclass

from cvl.testing.kubernetes.access import User
from cvl.testing.kubernetes.requests import Request, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request on its way: who asks for what."""

    request: Request
    target: Target
    user: User
    verb: str

    @property
    def operation(self) -> str:
        return operation(self.verb, self.target)


def operation(verb: str, target: Target) -> str:
    """Return what faults are named for: `create jobs`, `get pods/log`."""
    part = f"/{target.subresource}" if target.subresource else ""
    return f"{verb} {target.resource.plural}{part}"
