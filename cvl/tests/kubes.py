"""What the tests of the Kubernetes runner share: how it is called, and what is left over there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvl.providers.kubernetes.client import Object, api_path
from cvl.testing import kube
from cvl.testing.cli_harness import Desk
from cvl.testing.kube import Cluster

FAST = {"CVL_KUBE_LOOK": "0.2", "CVL_KUBE_SETTLE": "2"}


def ours(cluster: Cluster, run_id: str = "") -> list[str]:
    """Return all that bears our label, of one run or of any, in every namespace."""
    api, label = kube.client(cluster), f"cvl.run={run_id}" if run_id else "cvl.run"
    places = {kind: api_path(f"{kind.lower()}s") for kind in ("Pod", "Secret", "Service")}
    return [
        f"{kind} {each['metadata']['name']}"
        for kind, place in {"Job": api_path("jobs"), **places}.items()
        for each in api.items(place, labelSelector=label)
    ]


def pods_of(cluster: Cluster, run_id: str) -> list[Object]:
    """Return the pods of a run."""
    return list(kube.client(cluster).items(api_path("pods"), labelSelector=f"cvl.run={run_id}"))


def left(cluster: Cluster, run_id: str) -> list[str]:
    """Return what of a run is still at work."""
    return [
        str(each["metadata"]["name"])
        for each in pods_of(cluster, run_id)
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
