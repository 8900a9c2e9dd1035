"""A namespace of a cluster, for one test, and the one Job that most tests need."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvl.providers.kubernetes.client import Client, api_path
from cvl.providers.kubernetes.manifest import CONTAINER
from cvl.testing import kube
from cvl.testing.kube import Cluster

LIMIT = 60.0
"""Seconds."""

STEP = re.compile(r'\.(\w+)|\[(?:\*|\?\(@\.type=="(\w+)"\))\]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace and what tests do in it.

    Paths are JSONPath below each of its pods, or of what `kind` names.
    """

    cluster: Cluster
    name: str

    @property
    def api(self) -> Client:
        return kube.client(self.cluster)

    def place(self, kind: str, name: str = "") -> str:
        """Return where the API has what is of that kind, or one of them."""
        return api_path(kind, "" if kind == "nodes" else self.name, name)

    def apply(self, *objects: object) -> None:
        kube.apply(self.cluster, *objects, at=self.name)

    def run(self, script: str, **more: object) -> None:
        """Start the Job `it`; see `job` for the rest."""
        self.apply(job(self.cluster.image, ["sh", "-c", script], **more))  # type: ignore[arg-type]

    def log(self, **query: str) -> str:
        """Return the log of the one pod. Raises `CvlError`."""
        return kube.log(self.cluster, self.name, self.ask(".metadata.name"), **query)

    def ask(self, path: str, kind: str = "pods") -> str:
        return " ".join(map(str, _along(self.api.items(self.place(kind)), path)))

    def wait(self, path: str, wanted: str, kind: str = "pods") -> str:
        """Wait until that field has this in it; return it whole."""
        ends = time.monotonic() + LIMIT
        while wanted not in (found := self.ask(path, kind)):
            assert time.monotonic() < ends, f"{path} is {found!r}, not {wanted!r}"
            time.sleep(0.1)
        return found

    def wait_empty(self, *kinds: str) -> None:
        """Wait until nothing of these kinds is left."""
        ends = time.monotonic() + LIMIT
        while left := [name for kind in kinds for name in self.ask(".metadata.name", kind).split()]:
            assert time.monotonic() < ends, left
            time.sleep(0.1)


def _along(values: Any, path: str) -> list[Any]:
    """Return what lies at a path below each of these."""
    for step in STEP.finditer(path):
        key, kind = step.groups()
        values = (
            [each[key] for each in values if key in each]
            if key
            else [item for each in values for item in each if kind in (None, item.get("type"))]
        )
    return list(values)


def job(
    image: str,
    command: Sequence[str],
    *,
    container: Mapping[str, object] | None = None,
    pod: Mapping[str, object] | None = None,
    spec: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the Job `it`; the mappings go into its container, its pod, itself."""
    main = {"name": CONTAINER, "image": image, "imagePullPolicy": "IfNotPresent"}
    main |= {"command": command, **(container or {})}  # type: ignore[dict-item]
    template = {"spec": {"restartPolicy": "Never", "containers": [main], **(pod or {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "it"},
        "spec": {"backoffLimit": 0, "template": template, **(spec or {})},
    }
