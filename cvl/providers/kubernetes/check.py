"""Asks, before anything is made, whether we may do all that a run needs of its namespace.

One SelfSubjectRulesReview answers for all of it, if RBAC is all there is; what it does not give is
asked for by itself. https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cvl.core.errors import Denied, Missing, Rejected
from cvl.core.scope import Scope
from cvl.core.spec import JobSpec
from cvl.providers.kubernetes.api_errors import Right, rules
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.job_options import JobOptions

API = "authorization.k8s.io/v1"
BATCH = "batch"


def check(client: Client, options: JobOptions, spec: JobSpec, scope: Scope) -> None:
    """Raise `Denied` with the permissions that are missing."""
    try:
        status = _review(client, "SelfSubjectRulesReview", {"namespace": options.namespace})
        granted = status.get("resourceRules") or ()
        doubtful = [each for each in needed(spec) if not allowed(granted, each)]
        missing = [each for each in doubtful if not may(client, options.namespace, each)]
    except (Denied, Missing, Rejected) as error:
        scope.tell("checking", f"nobody says what we may do: {error}")
        return
    if missing:
        _, resource, verb = missing[0]
        raise Denied(
            f"you may not {verb} {resource} in namespace {options.namespace}",
            f"ask for a Role with {rules(missing)}",
        )


def needed(spec: JobSpec) -> Iterator[Right]:
    """Yield what a run cannot do without: what docs/kubernetes.md lists, and no more."""
    for verb in ("create", "get", "delete", "list", "patch"):
        yield (BATCH, "jobs", verb)
    yield ("", "pods", "list")
    yield ("", "pods/log", "get")
    if spec.source:
        yield ("", "pods/exec", "create")
        yield ("", "pods/exec", "get")  # what a WebSocket was taken for before 1.35
    for verb in ("create", "list", "delete", "patch"):
        if spec.source or spec.secrets:
            yield ("", "secrets", verb)
        if spec.nodes > 1:
            yield ("", "services", verb)


def allowed(granted: Iterable[Object], right: Right) -> bool:
    """Return whether a rule gives that right."""
    group, resource, verb = right
    head, slash, below = resource.partition("/")
    return any(
        _has(rule, "verbs", verb)
        and _has(rule, "apiGroups", group)
        and _has(rule, "resources", resource, f"*/{below}" if slash else head)
        and not rule.get("resourceNames")
        for rule in granted
    )


def may(client: Client, namespace: str, right: Right) -> bool:
    """Return whether we have a right. Raises `CvlError` as the client does."""
    group, resource, verb = right
    whole, _, part = resource.partition("/")
    access = {"group": group, "resource": whole, "subresource": part, "verb": verb}
    spec = {"resourceAttributes": {"namespace": namespace, **access}}
    return bool(_review(client, "SelfSubjectAccessReview", spec).get("allowed"))


def _review(client: Client, kind: str, spec: Object) -> Object:
    body = {"apiVersion": API, "kind": kind, "spec": spec}
    answer: Object = client.review(f"/apis/{API}/{kind.lower()}s", body).get("status") or {}
    return answer


def _has(rule: Any, part: str, *values: str) -> bool:
    return not {"*", *values}.isdisjoint(rule.get(part) or ())
