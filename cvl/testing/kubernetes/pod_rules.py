"""What pods may be, beyond the document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cvl.testing.kubernetes.names import NOT_NEGATIVE, Cause, label, wrong
from cvl.testing.kubernetes.objects import Obj, quantity

DEADLINE_LIMIT = 2**31 - 1
ENV_HELP = "a valid environment variable name must consist only of printable ASCII characters"
FIXED = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
    " additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set"
    " to 1 if it was previously negative)"
)
LOOSE = ("activeDeadlineSeconds", "tolerations", "schedulingGates", "nodeName")


def pod(obj: Obj) -> Iterator[Cause]:
    """Yield what is wrong with a pod."""
    yield from pod_spec("spec", obj["spec"])


def pod_change(obj: Obj, old: Obj) -> Iterator[Cause]:
    """Of a pod only images, its deadline, tolerations and gates may be changed."""
    if _fixed(obj["spec"]) != _fixed(old["spec"]):
        yield "spec", FIXED


def pod_spec(field: str, spec: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield what is wrong with a pod's spec, which lies at `field`."""
    if not spec.get("containers"):
        yield f"{field}.containers", "Required value"
    for name in ("hostname", "subdomain"):
        if spec.get(name):
            yield from label(f"{field}.{name}", spec[name])
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= DEADLINE_LIMIT:
        why = f"must be between 1 and {DEADLINE_LIMIT}, inclusive"
        yield wrong(f"{field}.activeDeadlineSeconds", deadline, why)
    volumes = [str(each.get("name")) for each in spec.get("volumes") or []]
    for n, name in enumerate(volumes):
        yield from label(f"{field}.volumes[{n}].name", name)
    yield from _twice(f"{field}.volumes", volumes)
    for kind in ("initContainers", "containers"):
        containers = spec.get(kind) or []
        yield from _twice(f"{field}.{kind}", [str(each.get("name")) for each in containers])
        for n, container in enumerate(containers):
            yield from _container(f"{field}.{kind}[{n}]", container, volumes)


def _container(field: str, container: Mapping[str, Any], volumes: list[str]) -> Iterator[Cause]:
    if not container.get("name"):
        yield f"{field}.name", "Required value"
    else:
        yield from label(f"{field}.name", container["name"])
    image = container.get("image")
    if not image:
        yield f"{field}.image", "Required value"
    elif image != image.strip():
        yield wrong(f"{field}.image", image, "must not have leading or trailing whitespace")
    for n, variable in enumerate(container.get("env") or []):
        if not re.fullmatch(r"[ -<>-~]+", variable.get("name", "")):
            yield wrong(f"{field}.env[{n}].name", variable.get("name", ""), ENV_HELP)
    yield from _mounts(f"{field}.volumeMounts", container.get("volumeMounts") or [], volumes)
    yield from _resources(f"{field}.resources", container.get("resources") or {})


def _mounts(
    field: str, mounts: Sequence[Mapping[str, Any]], volumes: Sequence[str]
) -> Iterator[Cause]:
    paths = [each.get("mountPath") for each in mounts]
    for n, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            yield f"{field}[{n}].name", f'Not found: "{mount.get("name")}"'
        if not paths[n]:
            yield f"{field}[{n}].mountPath", "Required value"
        elif paths[n] in paths[:n]:
            yield wrong(f"{field}[{n}].mountPath", paths[n], "must be unique")


def _resources(field: str, resources: Mapping[str, Any]) -> Iterator[Cause]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    bad = [
        *_amounts(f"{field}.requests", requests),
        *_amounts(f"{field}.limits", limits),
    ]
    yield from bad or _together(field, requests, limits)


def _amounts(field: str, amounts: Mapping[str, Any]) -> Iterator[Cause]:
    for name, amount in amounts.items():
        try:
            number = quantity(amount)
        except ValueError as error:
            yield wrong(f"{field}[{name}]", amount, str(error))
            continue
        if number < 0:
            yield wrong(f"{field}[{name}]", amount, NOT_NEGATIVE)
        if "/" in name and number % 1:
            yield wrong(f"{field}[{name}]", amount, "must be an integer")


def _together(
    field: str, requests: Mapping[str, Any], limits: Mapping[str, Any]
) -> Iterator[Cause]:
    """Extended resources cannot be overcommitted: there requests are limits."""
    for name, limit in limits.items():
        asked = requests.get(name, limit)
        if "/" in name and quantity(asked) != quantity(limit):
            yield wrong(f"{field}.requests", asked, f"must be equal to {name} limit of {limit}")
        elif quantity(asked) > quantity(limit):
            why = f"must be less than or equal to {name} limit of {limit}"
            yield wrong(f"{field}.requests", asked, why)
    for name in requests:
        if "/" in name and name not in limits:
            why = "Required value: Limit must be set for non overcommitable resources"
            yield f"{field}.limits", why


def _twice(field: str, names: Sequence[str]) -> Iterator[Cause]:
    for n, name in enumerate(names):
        if name in names[:n]:
            yield f"{field}[{n}].name", f'Duplicate value: "{name}"'


def _fixed(spec: Mapping[str, Any]) -> object:
    fixed = {key: value for key, value in spec.items() if key not in LOOSE}
    for kind in ("containers", "initContainers"):
        fixed[kind] = [{**each, "image": ""} for each in fixed.get(kind) or []]
    return fixed
