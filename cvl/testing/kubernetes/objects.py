"""Kubernetes objects as plain JSON values, and the few things one always asks of them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

Obj = dict[str, Any]
"""One object, as the API shows it. What is in the store is never changed in place."""

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What generated names are made of: no vowels, no confusable digits."""

_SUFFIXES: Mapping[str, Decimal] = {
    "": Decimal(1),
    **{unit: Decimal(1000) ** n for n, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{unit: Decimal(1024) ** n for n, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    **{unit: Decimal(1000) ** -n for n, unit in enumerate(("m", "u", "n"), 1)},
}


def quantity(value: object) -> Decimal:
    """Return a resource quantity ("100m", "1.5Gi", "1e3", 2) as a number. Raises `ValueError`."""
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]i?|Ki)?", str(value))
    if not found or (found[2] or "") not in _SUFFIXES:
        raise ValueError(f"quantities must match a number and a unit: {value!r}")
    try:
        return Decimal(found[1]) * _SUFFIXES[found[2] or ""]
    except InvalidOperation as error:
        raise ValueError(f"unable to parse quantity {value!r}") from error


def rfc3339(seconds: float) -> str:
    """Return UTC epoch seconds as `metav1.Time` writes them: whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(time: str) -> float:
    """Return an RFC 3339 time, nanoseconds included, as UTC epoch seconds. Raises `ValueError`."""
    return nanoseconds_of(time) / 1e9


def nanoseconds_of(time: str) -> int:
    """Return an RFC 3339 time as UTC epoch nanoseconds. Raises `ValueError`."""
    found = re.fullmatch(r"(.{10})[Tt](.{8})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", time)
    if not found:
        raise ValueError(f"not an RFC 3339 time: {time!r}")
    zone = "+00:00" if found[4] in "Zz" else found[4]
    whole = datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp()
    return int(whole) * 10**9 + int((found[3] or "0").ljust(9, "0"))


def meta(obj: Mapping[str, Any]) -> Obj:
    """Return an object's metadata."""
    found: Obj = obj["metadata"]
    return found


def name_of(obj: Mapping[str, Any]) -> str:
    """Return an object's name."""
    return str(obj["metadata"]["name"])


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Return an object's labels."""
    return obj["metadata"].get("labels") or {}


def owners_of(obj: Mapping[str, Any]) -> list[Obj]:
    """Return the references to an object's owners."""
    return obj["metadata"].get("ownerReferences") or []


def controller_of(obj: Mapping[str, Any]) -> str:
    """Return the uid of the object's managing owner, "" if it has none."""
    return next((str(ref["uid"]) for ref in owners_of(obj) if ref.get("controller")), "")


def condition(obj: Mapping[str, Any], kind: str) -> Obj | None:
    """Return the condition of that type."""
    found = (obj.get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == kind), None)


def holds(obj: Mapping[str, Any], kind: str) -> bool:
    """Return whether the condition of that type is True."""
    return (condition(obj, kind) or {}).get("status") == "True"


def with_condition(conditions: Iterable[Obj], new: Obj, time: str) -> list[Obj]:
    """Return the conditions with `new` in place of its namesake; times change only with it."""
    kept = [each for each in conditions if each["type"] != new["type"]]
    old = next((each for each in conditions if each["type"] == new["type"]), None)
    since = old["lastTransitionTime"] if old and old["status"] == new["status"] else time
    return [*kept, {**new, "lastTransitionTime": since}]


def without_finalizer(name: str) -> Callable[[Obj], None]:
    """Return the change that takes a finalizer off an object."""

    def change(obj: Obj) -> None:
        kept = [each for each in meta(obj).get("finalizers") or [] if each != name]
        meta(obj)["finalizers"] = kept
        if not kept:
            del meta(obj)["finalizers"]

    return change


def random_suffix() -> str:
    """Return what is hung on generated names."""
    return "".join(secrets.choice(ALPHABET) for _ in range(5))


def at(obj: object, *path: str) -> Any:
    """Return what lies at a path of keys, None where it breaks off."""
    for key in path:
        if not isinstance(obj, Mapping):
            return None
        obj = obj.get(key)
    return obj


def without_nulls(value: Any) -> Any:
    """Return a value without the keys that have none: to the server that is the same."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value
