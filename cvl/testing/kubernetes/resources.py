"""The resources that this API server has: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind of object and the path it lies under."""

    group: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL
    category: bool = False
    version: str = "v1"

    @property
    def full(self) -> str:
        """The name that messages, RBAC and quotas use: `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def definition(self) -> str:
        """The name of its definition in the OpenAPI document."""
        package = {"": "core"}.get(self.group, self.group.partition(".")[0])
        return f"io.k8s.api.{package}.{self.version}.{self.kind}"


def _core(plural: str, kind: str, *short: str, **more: object) -> Resource:
    return Resource(group="", plural=plural, kind=kind, short=short, **more)  # type: ignore[arg-type]


RBAC, AUTHORIZATION = "rbac.authorization.k8s.io", "authorization.k8s.io"
POD_PARTS = ("status", "log", "exec", "attach", "eviction")

NAMESPACES = _core("namespaces", "Namespace", "ns", namespaced=False, subresources=("status",))
PODS = _core("pods", "Pod", "po", subresources=POD_PARTS, category=True)
SERVICES = _core("services", "Service", "svc", subresources=("status",), category=True)
SECRETS = _core("secrets", "Secret")
CONFIGMAPS = _core("configmaps", "ConfigMap", "cm")
EVENTS = _core("events", "Event", "ev")
NODES = _core("nodes", "Node", "no", namespaced=False, subresources=("status",))
QUOTAS = _core("resourcequotas", "ResourceQuota", "quota", subresources=("status",))
ACCOUNTS = _core("serviceaccounts", "ServiceAccount", "sa", subresources=("token",))
CLAIMS = _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", subresources=("status",))
JOBS = Resource(group="batch", plural="jobs", kind="Job", subresources=("status",), category=True)
ROLES = Resource(group=RBAC, plural="roles", kind="Role")
BINDINGS = Resource(group=RBAC, plural="rolebindings", kind="RoleBinding")
CLUSTER_ROLES = Resource(group=RBAC, plural="clusterroles", kind="ClusterRole", namespaced=False)
CLUSTER_BINDINGS = Resource(
    group=RBAC, plural="clusterrolebindings", kind="ClusterRoleBinding", namespaced=False
)
ACCESS_REVIEWS = Resource(
    group=AUTHORIZATION,
    plural="selfsubjectaccessreviews",
    kind="SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
)
RULES_REVIEWS = Resource(
    group=AUTHORIZATION,
    plural="selfsubjectrulesreviews",
    kind="SelfSubjectRulesReview",
    namespaced=False,
    verbs=("create",),
)
SELF_REVIEWS = Resource(
    group="authentication.k8s.io",
    plural="selfsubjectreviews",
    kind="SelfSubjectReview",
    namespaced=False,
    verbs=("create",),
)

RESOURCES = (
    NAMESPACES, PODS, SERVICES, SECRETS, CONFIGMAPS, EVENTS, NODES, QUOTAS, ACCOUNTS, CLAIMS,
    JOBS, ROLES, BINDINGS, CLUSTER_ROLES, CLUSTER_BINDINGS,
    ACCESS_REVIEWS, RULES_REVIEWS, SELF_REVIEWS,
)  # fmt: skip
BY_PATH: Mapping[tuple[str, str], Resource] = {
    (each.api_version, each.plural): each for each in RESOURCES
}
BY_KIND: Mapping[tuple[str, str], Resource] = {
    (each.api_version, each.kind): each for each in RESOURCES
}
