"""Label and field selectors: `a`, `a=b`, and of fields those by which a run's own are found."""

from __future__ import annotations

from collections.abc import Callable

from cvl.testing.kubernetes.objects import Obj, at, labels_of
from cvl.testing.kubernetes.statuses import ApiError

Test = Callable[[Obj], bool]

FIELDS = ("metadata.name", *(f"involvedObject.{each}" for each in ("kind", "name", "uid")))


def by_labels(text: str) -> Test:
    """Return the test for a label selector. Raises `ApiError` 400 for one that is not known."""
    terms = [term.strip().partition("=") for term in filter(None, text.split(","))]
    if any(not set("!=<>() ").isdisjoint(key + value) for key, _, value in terms):
        raise ApiError(400, f"unable to parse requirement: {text!r}")
    return lambda obj: all(
        labels_of(obj).get(key) == value if equal else key in labels_of(obj)
        for key, equal, value in terms
    )


def by_fields(text: str) -> Test:
    """Return the test for a field selector. Raises `ApiError` 400 for a field that is none."""
    terms = [term.partition("=") for term in filter(None, text.split(","))]
    for key, _, _ in terms:
        if key not in FIELDS:
            raise ApiError(400, f"field label not supported: {key}")
    return lambda obj: all((at(obj, *key.split(".")) or "") == value for key, _, value in terms)
