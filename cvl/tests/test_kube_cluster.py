"""The real cluster that other tests rely on: what it promises them, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cvl.testing import kube, kube_cluster
from cvl.testing.kube_cluster import RealCluster

pytestmark = [pytest.mark.kube, pytest.mark.slow]


@pytest.fixture
def namespace(real_cluster: RealCluster) -> Iterator[str]:
    with kube.fresh_namespace(real_cluster) as name:
        yield name


def job(name: str, script: str, **container: object) -> dict[str, object]:
    main = {"name": "main", "image": kube_cluster.IMAGE, "command": ["sh", "-c", script]}
    pod = {"restartPolicy": "Never", "containers": [main | container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def ask(cluster: RealCluster, namespace: str, kind: str, path: str) -> str:
    return cluster.kubectl("get", kind, "-n", namespace, "-o", f"jsonpath={{{path}}}")


def wait_until(cluster: RealCluster, namespace: str, path: str, wanted: str) -> None:
    """Wait for a field of the only pod."""
    ends = time.monotonic() + 60
    while wanted not in (found := ask(cluster, namespace, "pods", f".items[*]{path}")):
        assert time.monotonic() < ends, f"{path} is {found!r}"
        time.sleep(0.1)


EXIT_CODE = ".status.containerStatuses[*].state.terminated.exitCode"


def test_a_job_runs_to_its_exit_code(real_cluster: RealCluster, namespace: str) -> None:
    kube.apply(real_cluster, job("seven", "echo out; echo error >&2; exit 7"), at=namespace)
    wait_until(real_cluster, namespace, EXIT_CODE, "7")
    assert real_cluster.kubectl("logs", "job/seven", "-n", namespace).split() == ["out", "error"]


def test_memory_is_limited(real_cluster: RealCluster, namespace: str) -> None:
    eats = job("eats", "tail /dev/zero", resources={"limits": {"memory": "16Mi"}})
    kube.apply(real_cluster, eats, at=namespace)
    reason = ".status.containerStatuses[*].state.terminated.reason"
    wait_until(real_cluster, namespace, reason, "OOMKilled")


def test_its_state_outlives_the_api_server(real_cluster: RealCluster, namespace: str) -> None:
    kube.apply(real_cluster, job("long", "sleep 2; exit 5"), at=namespace)
    wait_until(real_cluster, namespace, ".status.phase", "Running")
    with real_cluster.cut(), pytest.raises(subprocess.CalledProcessError, match="refused"):
        real_cluster.kubectl("get", "jobs", "-n", namespace)
    wait_until(real_cluster, namespace, EXIT_CODE, "5")


def test_the_limited_user_may_do_what_was_granted(
    real_cluster: RealCluster, namespace: str
) -> None:
    def may(verb: str) -> str:
        words = ("auth", "can-i", verb, "jobs.batch", "-n", namespace, "--context", kube.LIMITED)
        try:
            return real_cluster.kubectl(*words)
        except subprocess.CalledProcessError as error:
            return str(error.stdout.decode()).strip()

    assert may("create") == "no"
    kube.grant(real_cluster, namespace, ["create"], ["jobs.batch"])
    assert (may("create"), may("delete")) == ("yes", "no")


def test_a_pod_waits_for_capacity(real_cluster: RealCluster, namespace: str) -> None:
    gpus = {"nvidia.com/gpu": 2}
    needs = job("needs", "exit 3", resources={"limits": gpus})
    kube.apply(real_cluster, needs, at=namespace)
    message = '.status.conditions[?(@.type=="PodScheduled")].message'
    wait_until(real_cluster, namespace, message, "Insufficient nvidia.com/gpu")
    with real_cluster.capacity("nvidia.com/gpu", 2):
        wait_until(real_cluster, namespace, EXIT_CODE, "3")
    capacity = real_cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.capacity}")
    assert "nvidia.com/gpu" not in capacity


def test_a_quota_counts(real_cluster: RealCluster, namespace: str) -> None:
    kube.quota(real_cluster, namespace, **{"count/jobs.batch": "0"})
    with pytest.raises(subprocess.CalledProcessError, match="exceeded quota"):
        kube.apply(real_cluster, job("more", "true"), at=namespace)


def test_a_lost_node_goes_on_showing_its_pods(real_cluster: RealCluster, namespace: str) -> None:
    kube.apply(real_cluster, job("long", "sleep 600"), at=namespace)
    wait_until(real_cluster, namespace, ".status.phase", "Running")
    with real_cluster.lost_node():
        assert ask(real_cluster, namespace, "pods", ".items[*].status.phase") == "Running"
    assert ask(real_cluster, namespace, "pods", ".items[*].status.phase") == "Running"


HOLD = "import sys; from cvl.testing import kube_keeper; sys.exit(kube_keeper.hold())"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_nothing_is_left_of_it(number: signal.Signals, tmp_path: Path) -> None:
    if why := kube_cluster.missing():
        pytest.skip(why)
    (tmp_path / "cvl-kube").mkdir()
    (tmp_path / "cvl-kube/bin").symlink_to(kube_cluster.programs())
    keeper = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    with keeper.stdout:
        assert keeper.stdout.readline() == b"up\n"
    record = json.loads((tmp_path / "cvl-kube/keeper.json").read_text())
    folder = Path(record["kubeconfig"]).parent
    subnet = json.loads((folder / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    subnet = subnet.removeprefix("https://").rpartition(".")[0]
    assert all(traces(folder, subnet).values()), "else the test would see nothing"
    assert str(folder) not in Path("/proc/mounts").read_text(), "its mounts are its own"
    keeper.send_signal(number)
    keeper.wait(60)
    ends = time.monotonic() + 60
    while any((left := traces(folder, subnet)).values()):
        assert time.monotonic() < ends, left
        time.sleep(0.1)


def traces(folder: Path, subnet: str) -> dict[str, list[str]]:
    """Return what there is of a cluster on this computer."""
    addresses = subprocess.check_output(["ip", "-brief", "address"], text=True).splitlines()
    groups = Path("/sys/fs/cgroup").glob(f"*/{folder.name}")
    return {
        "folders": [str(folder)] if folder.exists() else [],
        "processes": [pid for pid, words in commands() if str(folder) in words],
        "interfaces": [line for line in addresses if f" {subnet}." in line],
        "control groups": [str(group) for group in groups],
    }


def commands() -> Iterator[tuple[str, str]]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.parent.name, file.read_bytes().decode(errors="replace")
