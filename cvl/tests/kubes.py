"""What the tests of the Kubernetes runner share: how it is called, and what is left over there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvl.testing.cli_harness import Desk
from cvl.testing.kube import Cluster

KINDS = "jobs,pods,secrets,services"
FAST = {"CVL_KUBE_LOOK": "0.2", "CVL_KUBE_SETTLE": "2"}


def ours(cluster: Cluster, run_id: str = "") -> list[str]:
    """Return all that bears our label, of one run or of any, in every namespace."""
    label = f"cvl.run={run_id}" if run_id else "cvl.run"
    told = cluster.kubectl("get", KINDS, "-A", "-l", label, "-o", "json")
    items: list[dict[str, Any]] = json.loads(told)["items"]
    return [f"{each['kind']} {each['metadata']['name']}" for each in items]


def left(cluster: Cluster, run_id: str) -> list[str]:
    """Return what of a run is still at work."""
    told = cluster.kubectl("get", "pods", "-A", "-l", f"cvl.run={run_id}", "-o", "json")
    return [
        str(each["metadata"]["name"])
        for each in json.loads(told)["items"]
        if each["status"].get("phase") in {"Pending", "Running"}
    ]


def desk(folder: Path, cluster: Cluster, namespace: str, *more: str, image: str = "") -> Desk:
    """Return a desk whose runs are Jobs in a namespace."""
    chosen = ("--image", image or cluster.image)

    def left_there(run_id: str) -> Sequence[str]:
        return left(cluster, run_id)

    return Desk(
        folder=folder,
        options=("--k8s", "--namespace", namespace, *chosen, *more),
        env={"KUBECONFIG": str(cluster.kubeconfig), **FAST},
        left=left_there,
    )
