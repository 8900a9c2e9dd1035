"""What pods may be, beyond the document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cvl.testing.kubernetes.names import LABEL, Cause, named, wrong
from cvl.testing.kubernetes.objects import Obj, quantity

DEADLINE_LIMIT = 2**31 - 1
ENV_HELP = "a valid environment variable name must consist only of printable ASCII characters"
NOT_HERE = frozenset({"affinity", "hostNetwork", "schedulingGates", "topologySpreadConstraints"})
NOT_IN_CONTAINERS = frozenset(
    {"envFrom", "lifecycle", "livenessProbe", "readinessProbe", "restartPolicy", "startupProbe"}
)
VALUES, VOLUMES = {"fieldRef", "secretKeyRef"}, {"name", "emptyDir", "projected", "secret"}
"""What this stand-in does not do, and where its values and files come from: it says so at once."""


def pod(obj: Obj) -> Iterator[Cause]:
    """Yield what is wrong with a pod."""
    yield from pod_spec("spec", obj["spec"])


def pod_spec(field: str, spec: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield what is wrong with a pod's spec, which lies at `field`."""
    once = set() if spec["restartPolicy"] == "Never" else {"restartPolicy"}
    yield from _not_here(field, once | NOT_HERE.intersection(spec))
    if not spec.get("containers"):
        yield f"{field}.containers", "Required value"
    for name in ("hostname", "subdomain"):
        if spec.get(name):
            yield from named(f"{field}.{name}", spec[name], LABEL)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= DEADLINE_LIMIT:
        why = f"must be between 1 and {DEADLINE_LIMIT}, inclusive"
        yield wrong(f"{field}.activeDeadlineSeconds", deadline, why)
    for volume in spec.get("volumes") or []:
        sources = (volume.get("projected") or {}).get("sources") or []
        kinds = {*volume, *(kind for source in sources for kind in source)} - VOLUMES
        yield from _not_here(f"{field}.volumes", kinds)
    volumes = [str(each.get("name")) for each in spec.get("volumes") or []]
    for n, name in enumerate(volumes):
        yield from named(f"{field}.volumes[{n}].name", name, LABEL)
    yield from _twice(f"{field}.volumes", volumes)
    for kind in ("initContainers", "containers"):
        containers = spec.get(kind) or []
        yield from _twice(f"{field}.{kind}", [str(each.get("name")) for each in containers])
        for n, container in enumerate(containers):
            yield from _container(f"{field}.{kind}[{n}]", container, volumes)


def _container(field: str, container: Mapping[str, Any], volumes: list[str]) -> Iterator[Cause]:
    yield from named(f"{field}.name", container.get("name") or "", LABEL)
    yield from _not_here(field, NOT_IN_CONTAINERS.intersection(container))
    if not container.get("image"):
        yield f"{field}.image", "Required value"
    for n, variable in enumerate(container.get("env") or []):
        if not re.fullmatch(r"[ -<>-~]+", variable.get("name", "")):
            yield wrong(f"{field}.env[{n}].name", variable.get("name", ""), ENV_HELP)
        yield from _not_here(f"{field}.env[{n}]", set(variable.get("valueFrom") or ()) - VALUES)
    mounts = container.get("volumeMounts") or []
    for n, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            yield f"{field}.volumeMounts[{n}].name", f'Not found: "{mount.get("name")}"'
        yield from _not_here(f"{field}.volumeMounts[{n}]", {"subPath", "subPathExpr"} & set(mount))
    paths = [str(each.get("mountPath")) for each in mounts]
    yield from _twice(f"{field}.volumeMounts", paths, "mountPath")
    yield from _resources(f"{field}.resources", container.get("resources") or {})


def _resources(field: str, resources: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield what is wrong with amounts; those of devices are the same as requests and limits."""
    for side in ("requests", "limits"):
        for name, amount in (resources.get(side) or {}).items():
            try:
                number = quantity(amount)
            except ValueError as error:
                yield wrong(f"{field}.{side}[{name}]", amount, str(error))
                return
            if number < 0 or ("/" in name and number % 1):
                yield wrong(f"{field}.{side}[{name}]", amount, "must be an integer, not negative")
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, asked in requests.items():
        limit = limits.get(name)
        if "/" in name and str(asked) != str(limit):
            yield wrong(f"{field}.requests", asked, f"must be equal to {name} limit of {limit}")


def _not_here(field: str, names: Iterable[str]) -> Iterator[Cause]:
    for name in names:
        yield f"{field}.{name}", "Forbidden: not supported by this stand-in"


def _twice(field: str, names: Sequence[str], part: str = "name") -> Iterator[Cause]:
    for n, name in enumerate(names):
        if name in names[:n]:
            yield f"{field}[{n}].{part}", f'Duplicate value: "{name}"'
