"""The resources that this API server has: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind of object and the path it lies under."""

    group: str = ""
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """The name that messages and quotas use: `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"

    @property
    def definition(self) -> str:
        """The name of its definition in the OpenAPI document."""
        package = {"": "core"}.get(self.group, self.group.partition(".")[0])
        return f"io.k8s.api.{package}.v1.{self.kind}"


RBAC, AUTHORIZATION = "rbac.authorization.k8s.io", "authorization.k8s.io"

NAMESPACES = Resource(plural="namespaces", kind="Namespace", namespaced=False)
PODS = Resource(plural="pods", kind="Pod", subresources=("log", "exec"))
SERVICES = Resource(plural="services", kind="Service")
SECRETS = Resource(plural="secrets", kind="Secret")
EVENTS = Resource(plural="events", kind="Event")
NODES = Resource(plural="nodes", kind="Node", namespaced=False)
QUOTAS = Resource(plural="resourcequotas", kind="ResourceQuota")
ACCOUNTS = Resource(plural="serviceaccounts", kind="ServiceAccount")
JOBS = Resource(group="batch", plural="jobs", kind="Job")
ROLES = Resource(group=RBAC, plural="roles", kind="Role")
BINDINGS = Resource(group=RBAC, plural="rolebindings", kind="RoleBinding")
ACCESS_REVIEWS = Resource(
    group=AUTHORIZATION,
    plural="selfsubjectaccessreviews",
    kind="SelfSubjectAccessReview",
    namespaced=False,
)
RULES_REVIEWS = Resource(
    group=AUTHORIZATION,
    plural="selfsubjectrulesreviews",
    kind="SelfSubjectRulesReview",
    namespaced=False,
)
REVIEWS = (ACCESS_REVIEWS, RULES_REVIEWS)
"""What is asked of the server rather than stored."""

RESOURCES = (
    NAMESPACES, PODS, SERVICES, SECRETS, EVENTS, NODES, QUOTAS, ACCOUNTS,
    JOBS, ROLES, BINDINGS, *REVIEWS,
)  # fmt: skip
BY_PATH: Mapping[tuple[str, str], Resource] = {
    (each.api_version, each.plural): each for each in RESOURCES
}
