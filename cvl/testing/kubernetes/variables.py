"""A container's environment and command: where values come from, and `$(NAME)` in them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cvl.testing.kubernetes.objects import Obj, at, labels_of, meta, name_of, plain, quantity
from cvl.testing.kubernetes.resources import CONFIGMAPS, SECRETS, Resource
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
    for source in container.get("envFrom") or []:
        for key, value in _all_of(store, pod, source).items():
            if re.fullmatch(r"[ -<>-~]+", key):
                made[source.get("prefix", "") + key] = value
    for variable in container.get("env") or []:
        if "valueFrom" in variable:
            found = _value(store, pod, container, variable["valueFrom"])
            if found is not None:
                made[variable["name"]] = found
        else:
            made[variable["name"]] = expand(str(variable.get("value") or ""), made)
    return made


def words(
    container: Mapping[str, Any], known: Mapping[str, str]
) -> tuple[list[str] | None, list[str] | None]:
    """Return entry point and arguments; None: the image's own."""
    command, arguments = container.get("command"), container.get("args")

    def each(given: Sequence[str] | None) -> list[str] | None:
        return [expand(word, known) for word in given] if given else None

    return each(command), each(arguments)


def data_of(
    store: Store, resource: Resource, namespace: str, name: str, *, optional: bool = False
) -> dict[str, bytes]:
    """Return what a secret or config map holds. Raises `ConfigError` if it is not there."""
    found = store.find(resource, namespace, name)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{resource.kind.lower()} "{name}" not found')
    text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    if resource is SECRETS:
        return {key: base64.b64decode(value) for key, value in text.items()}
    binary = (found.get("binaryData") or {}).items()
    return text | {key: base64.b64decode(value) for key, value in binary}


def field_of(pod: Obj, path: str) -> str:
    """Return what a `fieldRef` names. Raises `ConfigError`."""
    found = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if found:
        return str((meta(pod).get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = labels_of(pod) if path.endswith("labels") else meta(pod).get("annotations") or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
    value = at(pod, *path.split("."))
    if path == "status.podIPs":
        return ",".join(each["ip"] for each in value or [])
    if value is None and path not in ("spec.nodeName", "status.podIP", "status.hostIP"):
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(value or "")


def resource_of(container: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Return what a `resourceFieldRef` names, in units of its divisor."""
    side, _, name = str(reference["resource"]).partition(".")
    amount = quantity(at(container, "resources", side, name) or 0)
    divisor = quantity(reference.get("divisor") or 1) or quantity(1)
    return plain((amount / divisor).to_integral_value(rounding="ROUND_CEILING"))


def _all_of(store: Store, pod: Obj, source: Mapping[str, Any]) -> dict[str, str]:
    for kind, resource in (("secretRef", SECRETS), ("configMapRef", CONFIGMAPS)):
        if kind in source:
            told = source[kind]
            found = data_of(
                store,
                resource,
                meta(pod)["namespace"],
                told["name"],
                optional=bool(told.get("optional")),
            )
            return {key: value.decode(errors="surrogateescape") for key, value in found.items()}
    return {}


def _value(
    store: Store, pod: Obj, container: Mapping[str, Any], source: Mapping[str, Any]
) -> str | None:
    if "fieldRef" in source:
        return field_of(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_of(container, source["resourceFieldRef"])
    for kind, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIGMAPS)):
        if kind in source:
            told = source[kind]
            optional, space = bool(told.get("optional")), meta(pod)["namespace"]
            found = data_of(store, resource, space, told["name"], optional=optional)
            if told["key"] in found:
                return found[told["key"]].decode(errors="surrogateescape")
            if optional:
                return None
            place = f"{space}/{told['name']}"
            raise ConfigError(f"couldn't find key {told['key']} in {resource.kind} {place}")
    raise ConfigError(f"nothing is known of {name_of(pod)}'s {sorted(source)}")
