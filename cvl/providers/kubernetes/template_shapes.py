"""The shapes of what a pod template may hold: told at once, by name, and not by the API server.

Of a list where a map belongs it says where in its own program it stumbled, after other things of
the run have been made. Only what is written by hand is known here; the rest the server judges.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from cvl.core.request_template import Where, shown

PAIRS, ITEMS = "key: value pairs", "a list of key: value pairs, each after a `-`"
TEXT = 'text: put "true" and numbers in quotes'
TEXTS = f"key: value pairs of {TEXT}"
WORDS = 'a list of texts: put "true" and numbers in quotes'
FORMS: Mapping[Where, str] = MappingProxyType(
    {
        ("metadata", "labels"): TEXTS,
        ("metadata", "annotations"): TEXTS,
        ("spec", "affinity"): PAIRS,
        ("spec", "containers"): ITEMS,
        ("spec", "dnsConfig"): PAIRS,
        ("spec", "hostAliases"): ITEMS,
        ("spec", "imagePullSecrets"): ITEMS,
        ("spec", "initContainers"): ITEMS,
        ("spec", "nodeSelector"): TEXTS,
        ("spec", "securityContext"): PAIRS,
        ("spec", "tolerations"): ITEMS,
        ("spec", "topologySpreadConstraints"): ITEMS,
        ("spec", "volumes"): ITEMS,
    }
)
OF_CONTAINERS: Mapping[Where, str] = MappingProxyType(
    {
        ("args",): WORDS,
        ("command",): WORDS,
        ("env",): ITEMS,
        ("envFrom",): ITEMS,
        ("image",): TEXT,
        ("ports",): ITEMS,
        ("resources",): PAIRS,
        ("resources", "limits"): PAIRS,
        ("resources", "requests"): PAIRS,
        ("securityContext",): PAIRS,
        ("volumeMounts",): ITEMS,
    }
)
"""The same below one container."""
OF_VARIABLES: Mapping[Where, str] = MappingProxyType({("value",): TEXT, ("valueFrom",): PAIRS})


def wrong(pod: Mapping[str, object]) -> Iterator[str]:
    """Yield a sentence about each field of a pod that has another shape than it has there."""
    yield from _wrong(pod, FORMS, ())
    for kind in ("containers", "initContainers"):
        for where, each in _items(pod, ("spec", kind)):
            yield from _wrong(each, OF_CONTAINERS, where)
            for path, variable in _items(each, ("env",)):
                yield from _wrong(variable, OF_VARIABLES, (*where, *path))


def _wrong(value: object, forms: Mapping[Where, str], where: Where) -> Iterator[str]:
    for path, form in forms.items():
        part = _at(value, path)
        if part is not None and not _fits(part, form):
            yield f"{shown((*where, *path))} must be {form}"


def _items(value: object, path: Where) -> Iterator[tuple[Where, object]]:
    """Yield the items of a list, each with its path in words."""
    items = _at(value, path)
    for number, each in enumerate(items if isinstance(items, list) else ()):
        name = _at(each, ("name",))
        yield (*path, f"[{name if isinstance(name, str) else number}]"), each


def _at(value: object, path: Where) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _fits(value: object, form: str) -> bool:
    if form == TEXT:
        return isinstance(value, str)
    if form in {ITEMS, WORDS}:
        kind = Mapping if form == ITEMS else str
        return isinstance(value, list) and all(isinstance(each, kind) for each in value)
    if not isinstance(value, Mapping):
        return False
    return form == PAIRS or all(isinstance(each, str) for each in value.values())
