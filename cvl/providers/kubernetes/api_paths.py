"""Where the API has what."""

from __future__ import annotations

KUBE_SYSTEM = "/api/v1/namespaces/kube-system"


def jobs(namespace: str = "") -> str:
    """Return the path of all Jobs, in a namespace or everywhere."""
    return f"/apis/batch/v1/{_below(namespace)}jobs"


def core(what: str, namespace: str = "") -> str:
    """Return the path of `pods`, `secrets`, `services` or `events`."""
    return f"/api/v1/{_below(namespace)}{what}"


def node(name: str) -> str:
    """Return the path of a node."""
    return f"/api/v1/nodes/{name}"


def _below(namespace: str) -> str:
    return f"namespaces/{namespace}/" if namespace else ""
