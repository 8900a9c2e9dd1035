"""A namespace of a cluster, for one test, and the one Job that most tests need."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvl.testing import kube
from cvl.testing.kube import Cluster

LIMIT = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A namespace. Paths are JSONPath below each of its pods, or of what `kind` names."""

    cluster: Cluster
    name: str

    def kubectl(self, *words: str, data: bytes = b"") -> str:
        """Run kubectl here. Raises `CalledProcessError`."""
        return self.cluster.kubectl("-n", self.name, *words, data=data)

    def refused(self, *words: str) -> str:
        """Return what kubectl says when it fails, as it must."""
        try:
            told = self.kubectl(*words)
        except subprocess.CalledProcessError as error:
            return str(error.stderr)
        raise AssertionError(told)

    def apply(self, *objects: object) -> None:
        kube.apply(self.cluster, *objects, at=self.name)

    def run(self, script: str, **more: object) -> None:
        """Start the Job `it`; see `job` for the rest."""
        self.apply(job(self.cluster.image, ["sh", "-c", script], **more))  # type: ignore[arg-type]

    def ask(self, path: str, kind: str = "pods") -> str:
        return self.kubectl("get", kind, "-o", f"jsonpath={{.items[*]{path}}}")

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
        while left := self.kubectl("get", ",".join(kinds), "-o", "name"):
            assert time.monotonic() < ends, left
            time.sleep(0.1)


def job(
    image: str,
    command: Sequence[str],
    *,
    container: Mapping[str, object] | None = None,
    pod: Mapping[str, object] | None = None,
    spec: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the Job `it`; the mappings go into its container, its pod, itself."""
    main = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
    main |= {"command": command, **(container or {})}  # type: ignore[dict-item]
    template = {"spec": {"restartPolicy": "Never", "containers": [main], **(pod or {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "it"},
        "spec": {"backoffLimit": 0, "template": template, **(spec or {})},
    }
