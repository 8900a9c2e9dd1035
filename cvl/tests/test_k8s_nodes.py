"""Many nodes on Kubernetes: they know each other, and the first to fail tells how the run ended."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing import kube
from cvl.testing.cli_harness import Desk
from cvl.testing.kube_cluster import RealCluster
from cvl.testing.kubernetes import Fault, KubernetesCluster, What
from cvl.tests.kubes import desk, ours

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]
FOREVER = "while :; do sleep .1; done"


@pytest.fixture
def there(fake_cluster: KubernetesCluster, tmp_path: Path) -> Iterator[Desk]:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace)
        yield calling
        fake_cluster.world.faults.clear()
        for run in calling.runs():
            assert not ours(fake_cluster, run)


def test_nodes_know_and_reach_each_other(there: Desk) -> None:
    script = (
        'echo "$NODE_RANK of $WORLD_SIZE at $MASTER_PORT"; echo $NODE_RANK >$CVL_WORK_DIR/rank; '
        "if [ $NODE_RANK = 0 ]; then : >said; "
        "until grep -q bye said; do echo hello | nc -l -p $MASTER_PORT >>said; done; else "
        "until nc $MASTER_ADDR $MASTER_PORT </dev/null >got 2>err && [ -s got ]; do "
        "sleep .2; done; echo got $(cat got); "
        "while echo bye | nc $MASTER_ADDR $MASTER_PORT >bye 2>&1; do sleep .2; done; fi"
    )
    done = there.sh(script, "--nodes", "2")
    assert done.code == 0, done.err
    lines = set(done.out.decode().splitlines())
    assert {re.sub(r"^\[\d\] ", "", line) for line in lines} == {
        "0 of 2 at 29500",
        "1 of 2 at 29500",
        "got hello",
    }
    run = there.repo / "cvl-runs" / there.runs()[0]
    assert (run / "rank").read_text() == "0\n"
    assert (run / "node-1/rank").read_text() == "1\n"


def test_the_first_node_that_fails_ends_the_run_with_its_code(there: Desk) -> None:
    script = (
        "echo $NODE_RANK >rank; [ $NODE_RANK != 2 ] || { sleep 1; exit 7; }; "
        f"trap 'echo told >told; exit 9' TERM; {FOREVER}"
    )
    done = there.sh(script, "--nodes", "3")
    assert done.code == 7, done.err
    assert "exited, exit code 7 (node 2)" in done.err
    run = there.repo / "cvl-runs" / there.runs()[0]
    assert (run / "node-2/rank").read_text() == "2\n"
    assert (run / "told").exists()
    assert (run / "node-1/told").exists()


def test_one_node_out_of_memory_is_named(there: Desk) -> None:
    script = f"[ $NODE_RANK = 0 ] || {{ tail /dev/zero; exit $?; }}; {FOREVER}"
    done = there.sh(script, "--nodes", "2", "--memory", "32Mi")
    assert (done.code, there.ps()[0]["cause"]) == (137, "out-of-memory"), done.err
    assert "node 1" in done.err


def test_output_of_all_nodes_is_exact_over_broken_streams(
    fake_cluster: KubernetesCluster, there: Desk
) -> None:
    drops = Fault(what=What.STREAM_DROPS, on="get pods/log", times=60, count=200, spread=3000)
    fake_cluster.inject(drops)
    script = (
        "for i in $(seq 1000); do echo $NODE_RANK line $i; [ $((i % 50)) != 0 ] || sleep .1; done"
    )
    done = there.sh(script, "--nodes", "3")
    assert done.code == 0, done.err
    lines = [re.sub(rb"^\[\d\] ", b"", line) for line in done.out.splitlines()]
    for node in range(3):
        mine = [line for line in lines if line.startswith(b"%d " % node)]
        assert mine == [b"%d line %d" % (node, i) for i in range(1, 1001)]


def test_ctrl_c_ends_all_nodes_and_brings_their_results(there: Desk) -> None:
    script = f"echo a >a; echo ready; {FOREVER}"
    with there.start("run", *there.options, "--nodes", "2", "one", "sh", script) as client:
        client.shows(b"[1] ready")
        client.shows(b"ready\n")
        client.signal(signal.SIGINT)
        assert client.ended(120).code == 130
    run = there.repo / "cvl-runs" / there.runs()[0]
    assert (run / "a").exists()
    assert (run / "node-1/a").exists()


def test_a_queue_gets_what_it_wants(there: Desk) -> None:
    words = ("--label", "kueue.x-k8s.io/queue-name=team", "--annotation", "a/b=c d")
    done = there.sh("true", "--nodes", "2", *words, "--dry-run", "--json")
    service, job = json.loads(done.out)["request"][-2:]
    assert (service["kind"], job["spec"]["completionMode"]) == ("Service", "Indexed")
    for meta in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert meta["labels"]["kueue.x-k8s.io/queue-name"] == "team"
        assert meta["annotations"]["a/b"] == "c d"


@pytest.mark.kube
def test_a_cluster_without_indexed_jobs_is_told_so(
    real_cluster: RealCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(real_cluster) as namespace:
        calling = desk(tmp_path, real_cluster, namespace)
        done = calling.sh("true", "--nodes", "2")
        assert done.code == 125
        assert "too old for many nodes" in done.err
        assert not ours(real_cluster)
