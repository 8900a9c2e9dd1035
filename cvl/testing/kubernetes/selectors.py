"""Label and field selectors: `a=b,c!=d,e in (x,y),!f` and `metadata.name=x,status.phase!=y`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cvl.testing.kubernetes.objects import Obj, at, labels_of, quantity
from cvl.testing.kubernetes.resources import (
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    Resource,
)
from cvl.testing.kubernetes.statuses import ApiError

Test = Callable[[Obj], bool]

_ANY = ("metadata.name", "metadata.namespace")
_FIELDS: Mapping[Resource, tuple[str, ...]] = {
    PODS: (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    JOBS: ("status.successful",),
    NODES: ("spec.unschedulable",),
    SECRETS: ("type",),
    NAMESPACES: ("status.phase",),
    EVENTS: (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
        "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    ),
}  # fmt: skip
_TERM = re.compile(
    r"\s*(?:"
    r"(?P<not>!)?\s*(?P<alone>[\w./-]+)\s*"
    r"|(?P<key>[\w./-]+)\s*(?P<op>==|!=|=|>|<)\s*(?P<value>[\w.-]*)\s*"
    r"|(?P<member>[\w./-]+)\s+(?P<how>in|notin)\s*\((?P<set>[^)]*)\)\s*"
    r")(?:,|$)"
)


def by_labels(text: str) -> Test:
    """Return the test for a label selector. Raises `ApiError` 400."""
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    place = 0
    while place < len(text.rstrip()):
        found = _TERM.match(text, place)
        if not found or found.end() == place:
            raise ApiError(400, f"unable to parse requirement: found {text[place:]!r}")
        tests.append(_label_test(found))
        place = found.end()
    return lambda obj: all(test(labels_of(obj)) for test in tests)


def by_fields(resource: Resource, text: str) -> Test:
    """Return the test for a field selector. Raises `ApiError` 400 for a field that is none."""
    terms: list[tuple[str, bool, str]] = []
    for term in filter(None, text.split(",")):
        found = re.fullmatch(r"([\w.]+)\s*(==|!=|=)(.*)", term.strip())
        if not found:
            raise ApiError(400, f"invalid selector: '{text}'; can't understand '{term}'")
        if found[1] not in (*_ANY, *_FIELDS.get(resource, ())):
            message = f"field label not supported: {found[1]}"
            raise ApiError(400, f'Unable to find "{resource.api_version}" that match: {message}')
        terms.append((found[1], found[2] != "!=", found[3]))
    return lambda obj: all((_field(obj, key) == want) is same for key, same, want in terms)


def expressed(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether labels satisfy one `matchExpressions` term, of labels or of nodes."""
    have, values = labels.get(term["key"]), term.get("values") or []
    match term["operator"]:
        case "In":
            return have in values
        case "NotIn":
            return have not in values
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case "Gt":
            return have is not None and quantity(have) > quantity(values[0])
        case "Lt":
            return have is not None and quantity(have) < quantity(values[0])
    raise ApiError(400, f"{term['operator']!r} is not a valid label selector operator")


def _label_test(found: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if key := found["alone"]:
        return lambda labels: (key in labels) is not bool(found["not"])
    if member := found["member"]:
        values = [value.strip() for value in found["set"].split(",")]
        how = {"in": "In", "notin": "NotIn"}[found["how"]]
        return lambda labels: expressed({"key": member, "operator": how, "values": values}, labels)
    how = {"=": "In", "==": "In", "!=": "NotIn", ">": "Gt", "<": "Lt"}[found["op"]]
    term = {"key": found["key"], "operator": how, "values": [found["value"]]}
    return lambda labels: expressed(term, labels)


def _field(obj: Obj, key: str) -> str:
    if key == "status.successful":
        return str(at(obj, "status", "succeeded") or 0)
    if key == "source":
        return str(at(obj, "source", "component") or at(obj, "reportingComponent") or "")
    found = at(obj, *key.split("."))
    if isinstance(found, bool) or (found is None and key.endswith(("hostNetwork", "schedulable"))):
        return str(bool(found)).lower()
    return "" if found is None else str(found)
