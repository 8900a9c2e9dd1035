"""A container's environment and command: where values come from, and `$(NAME)` in them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from cvl.testing.kubernetes.objects import Obj, at, meta
from cvl.testing.kubernetes.resources import SECRETS
from cvl.testing.kubernetes.store import Store


class ConfigError(Exception):
    """Raised where a container cannot be made as it is told: CreateContainerConfigError."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """Return the text with `$(NAME)` replaced where NAME is known; `$$` stands for `$`.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """

    def one(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else known.get(str(found[1]), str(found[0]))

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def environment(store: Store, pod: Obj, container: Mapping[str, Any]) -> dict[str, str]:
    """Return a container's environment. Raises `ConfigError`."""
    made: dict[str, str] = {}
    for variable in container.get("env") or []:
        if "valueFrom" in variable:
            made[variable["name"]] = _value(store, pod, variable["valueFrom"])
        else:
            made[variable["name"]] = expand(str(variable.get("value") or ""), made)
    return made


def data_of(store: Store, namespace: str, name: str, *, optional: bool = False) -> dict[str, bytes]:
    """Return what a secret holds. Raises `ConfigError` if it is not there."""
    found = store.find(SECRETS, namespace, name)
    if found is None and not optional:
        raise ConfigError(f'secret "{name}" not found')
    data = (found or {}).get("data") or {}
    return {key: base64.b64decode(value) for key, value in data.items()}


def _value(store: Store, pod: Obj, source: Mapping[str, Any]) -> str:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    told, space = source["secretKeyRef"], meta(pod)["namespace"]
    found = data_of(store, space, told["name"])
    if told["key"] not in found:
        raise ConfigError(f"couldn't find key {told['key']} in Secret {space}/{told['name']}")
    return found[told["key"]].decode(errors="surrogateescape")


def _field(pod: Obj, path: str) -> str:
    found = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if found:
        return str((meta(pod).get(found[1]) or {}).get(found[2], ""))
    value = at(pod, *path.split("."))
    if not isinstance(value, str):
        raise ConfigError(f"unsupported fieldPath: {path}")
    return value
