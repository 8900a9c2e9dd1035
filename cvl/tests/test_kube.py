"""What a cluster promises the tests: the real one and the fake keep it alike."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from cvl.testing import kube
from cvl.testing.kube import Cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with kube.fresh_namespace(cluster) as name:
        yield name


def job(image: str, script: str, **container: object) -> dict[str, object]:
    main = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", **container}
    main["command"] = ["sh", "-c", script]
    pod = {"restartPolicy": "Never", "containers": [main]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "it"},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def ask(cluster: Cluster, namespace: str, kind: str, path: str) -> str:
    return cluster.kubectl("get", kind, "-n", namespace, "-o", f"jsonpath={{{path}}}")


def wait_until(cluster: Cluster, namespace: str, path: str, wanted: str) -> None:
    """Wait for a field of the only pod."""
    ends = time.monotonic() + 60
    while wanted not in (found := ask(cluster, namespace, "pods", f".items[*]{path}")):
        assert time.monotonic() < ends, f"{path} is {found!r}"
        time.sleep(0.1)


EXIT_CODE = ".status.containerStatuses[*].state.terminated.exitCode"


def test_a_job_runs_to_its_exit_code(cluster: Cluster, namespace: str) -> None:
    kube.apply(cluster, job(cluster.image, "echo out; echo error >&2; exit 7"), at=namespace)
    wait_until(cluster, namespace, EXIT_CODE, "7")
    assert cluster.kubectl("logs", "job/it", "-n", namespace).split() == ["out", "error"]


def test_memory_is_limited(cluster: Cluster, namespace: str) -> None:
    eats = job(cluster.image, "tail /dev/zero", resources={"limits": {"memory": "16Mi"}})
    kube.apply(cluster, eats, at=namespace)
    reason = ".status.containerStatuses[*].state.terminated.reason"
    wait_until(cluster, namespace, reason, "OOMKilled")


def test_its_state_outlives_the_api_server(cluster: Cluster, namespace: str) -> None:
    kube.apply(cluster, job(cluster.image, "sleep 2; exit 5"), at=namespace)
    wait_until(cluster, namespace, ".status.phase", "Running")
    with cluster.cut(), pytest.raises(subprocess.CalledProcessError, match="refused"):
        cluster.kubectl("get", "jobs", "-n", namespace)
    wait_until(cluster, namespace, EXIT_CODE, "5")


def test_the_limited_user_may_do_what_was_granted(cluster: Cluster, namespace: str) -> None:
    def may(verb: str) -> str:
        words = ("auth", "can-i", verb, "jobs.batch", "-n", namespace, "--context", kube.LIMITED)
        try:
            return cluster.kubectl(*words)
        except subprocess.CalledProcessError as error:
            return str(error.stdout.decode()).strip()

    assert may("create") == "no"
    kube.grant(cluster, namespace, ["create"], ["jobs.batch"])
    assert (may("create"), may("delete")) == ("yes", "no")


def test_a_pod_waits_for_capacity(cluster: Cluster, namespace: str) -> None:
    gpus = {"nvidia.com/gpu": 2}
    needs = job(cluster.image, "exit 3", resources={"limits": gpus})
    kube.apply(cluster, needs, at=namespace)
    message = '.status.conditions[?(@.type=="PodScheduled")].message'
    wait_until(cluster, namespace, message, "Insufficient nvidia.com/gpu")
    with cluster.capacity("nvidia.com/gpu", 2):
        wait_until(cluster, namespace, EXIT_CODE, "3")
    capacity = cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.capacity}")
    assert "nvidia.com/gpu" not in capacity


def test_a_quota_counts(cluster: Cluster, namespace: str) -> None:
    kube.quota(cluster, namespace, **{"count/jobs.batch": "0"})
    with pytest.raises(subprocess.CalledProcessError, match="exceeded quota"):
        kube.apply(cluster, job(cluster.image, "true"), at=namespace)


def test_a_lost_node_goes_on_showing_its_pods(cluster: Cluster, namespace: str) -> None:
    kube.apply(cluster, job(cluster.image, "sleep 600"), at=namespace)
    wait_until(cluster, namespace, ".status.phase", "Running")
    with cluster.lost_node():
        assert ask(cluster, namespace, "pods", ".items[*].status.phase") == "Running"
    assert ask(cluster, namespace, "pods", ".items[*].status.phase") == "Running"
