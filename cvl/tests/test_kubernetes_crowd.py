"""Many pods at once: all their logs followed together, whole, in order, in little memory.

`CVL_TEST_PODS=200` makes it two hundred of them; the default is for a machine that has other
things to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import KubernetesCluster, NodeSpec, Settings
from cvl.testing.kubernetes.objects import condition
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, job, until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = int(os.environ.get("CVL_TEST_PODS", "12"))
LINES = 1000
PER_STREAM = 1024
"""KiB of memory that one stream may take, server and client together."""

LARGE = NodeSpec(capacity={"cpu": "1000", "memory": "1Ti", "pods": "1000"})
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do echo $JOB_COMPLETION_INDEX $i; i=$((i+1)); done"
START_LIMIT = 1500.0
"""Seconds."""


@pytest.fixture
def cluster(shared_engine: Engine) -> Iterator[KubernetesCluster]:
    with KubernetesCluster(Settings(nodes=(LARGE,)), engine=shared_engine) as made:
        yield made
        assert made.violations == []


def memory() -> int:
    """Return the KiB that this process has in memory: the server is a part of it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_the_logs_of_many_pods_are_followed_at_once(cluster: KubernetesCluster) -> None:
    client = Client(cluster, timeout=START_LIMIT)
    container = {
        "name": "main",
        "image": cluster.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", SCRIPT],
    }
    before = memory()
    wanted: Obj = {"completionMode": "Indexed", "completions": COUNT, "parallelism": COUNT}
    client.ok("POST", JOBS, job(template={"containers": [container]}, **wanted))
    until(lambda: len(client.names(PODS)) == COUNT, START_LIMIT)
    logs: dict[str, bytes] = {}
    followers = [
        threading.Thread(target=lambda name=name: logs.update({name: followed(client, name)}))
        for name in client.names(PODS)
    ]
    for follower in followers:
        follower.start()
    for follower in followers:
        follower.join()
    held = memory() - before - sum(map(len, logs.values())) // 1024
    assert sorted(logs.values()) == sorted(
        b"".join(b"%d %d\n" % (index, line) for line in range(LINES)) for index in range(COUNT)
    )
    assert held < PER_STREAM * COUNT + 8192, f"{held // COUNT} KiB for each stream"
    until(lambda: condition(client.ok("GET", f"{JOBS}/j"), "Complete"))


def followed(client: Client, name: str) -> bytes:
    """Return a pod's whole log, followed from before its container runs."""
    found: list[bytes] = []

    def began() -> bool:
        status, data = client.raw("GET", f"{PODS}/{name}/log", follow="true")
        if status == 200 and data:  # a pod without a node has an empty log, as in reality
            found.append(data)
        return bool(found)

    until(began, START_LIMIT)
    return found[0]
