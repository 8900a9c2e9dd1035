"""One request on its way: who asks for what."""

from __future__ import annotations

from dataclasses import dataclass, field

from cvl.testing.kubernetes.access import User
from cvl.testing.kubernetes.requests import Request, Target


@dataclass(slots=True, kw_only=True)
class Call:
    """One request on its way: who asks for what, and what they are warned of."""

    request: Request
    target: Target
    user: User
    verb: str
    warnings: list[str] = field(default_factory=list)
    created: bool = False

    @property
    def operation(self) -> str:
        """What faults are named for: `create jobs`, `get pods/log`."""
        part = f"/{self.target.subresource}" if self.target.subresource else ""
        return f"{self.verb} {self.target.resource.plural}{part}"

    @property
    def dry(self) -> bool:
        return self.request.first("dryRun") == "All"
