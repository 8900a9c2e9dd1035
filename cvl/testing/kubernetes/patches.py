"""The four ways to patch: JSON patch, merge patch, strategic merge patch and apply."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.statuses import ApiError

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")

KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "conditions": ("type",),
    "addresses": ("type",),
    "taints": ("key",),
    "ownerReferences": ("uid",),
    "resourceClaims": ("name",),
    "podIPs": ("ip",),
    "schedulingGates": ("name",),
}
"""By what field the elements of a list are told apart (x-kubernetes-patch-merge-key)."""

SETS = frozenset({"finalizers"})
"""Lists of plain values that a strategic merge adds to."""


def patched(obj: Obj, kind: str, patch: Any) -> Obj:
    """Return the object with a patch of that content type applied. Raises `ApiError`."""
    if kind == JSON:
        return _json_patched(obj, patch)
    if not isinstance(patch, dict):
        raise ApiError(400, "the patch is not an object")
    if kind == MERGE:
        merged: Obj = _merged(obj, patch)
        return merged
    if kind == STRATEGIC or kind in APPLY:
        return _strategic(obj, patch)
    known = ", ".join((JSON, MERGE, STRATEGIC, APPLY[0]))
    why = (
        f"the body of the request was in an unknown format - accepted media types include: {known}"
    )
    raise ApiError(415, why)


def _json_patched(obj: Obj, patch: Any) -> Obj:
    import jsonpatch

    try:
        made: Obj = jsonpatch.apply_patch(obj, patch)
    except jsonpatch.InvalidJsonPatch as error:
        raise ApiError(400, f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        message = f"the server rejected our request due to an error in our request: {error}"
        raise ApiError(422, message) from error
    return made


def _merged(old: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _strategic(old: Obj, patch: Mapping[str, Any]) -> Obj:
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    made = dict(old)
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            made[field] = [each for each in made.get(field) or [] if each not in value]
        elif key == "$retainKeys":
            made = {field: kept for field, kept in made.items() if field in value}
        elif key.startswith("$"):
            continue
        elif value is None:
            made.pop(key, None)
        else:
            made[key] = _together(key, made.get(key), value)
    return made


def _together(key: str, old: Any, new: Any) -> Any:
    if isinstance(new, dict):
        return _strategic(old if isinstance(old, dict) else {}, new)
    if isinstance(new, list) and isinstance(old, list):
        if key in SETS:
            return [*old, *(each for each in new if each not in old)]
        if by := _merge_key(key, new):
            return _lists(old, new, by)
    if isinstance(new, list):
        return [copy.deepcopy(each) for each in new if not _removes(each)]
    return new


def _merge_key(key: str, new: Sequence[Any]) -> str:
    if not new or not all(isinstance(each, dict) for each in new):
        return ""
    told = [each for each in new if each.get("$patch") != "replace"]
    return next((by for by in KEYS.get(key, ()) if told and all(by in each for each in told)), "")


def _lists(old: Sequence[Obj], new: Sequence[Obj], by: str) -> list[Obj]:
    if any(each.get("$patch") == "replace" for each in new):
        return [copy.deepcopy(each) for each in new if each.get("$patch") != "replace"]
    made = [copy.deepcopy(each) for each in old]
    for each in new:
        place = next((n for n, have in enumerate(made) if have.get(by) == each[by]), None)
        if place is None:
            made += [] if _removes(each) else [copy.deepcopy(each)]
        elif _removes(each):
            del made[place]
        else:
            made[place] = _strategic(made[place], each)
    return made


def _removes(each: Any) -> bool:
    return isinstance(each, dict) and each.get("$patch") == "delete"
