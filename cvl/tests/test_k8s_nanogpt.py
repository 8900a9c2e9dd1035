"""nanogpt trained on two nodes of a cluster learns what it learns on one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing import kube
from cvl.testing.cli_harness import Desk
from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import KubernetesCluster
from cvl.tests.images import image_of
from cvl.tests.kubes import desk, left, ours
from cvl.tests.scripts import NANOGPT, run

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]
SAME = (
    *("--n_layer", "2", "--n_head", "2", "--n_embd", "32", "--block_size", "32", "--dropout", "0"),
    *("--batch_size", "8", "--max_iters", "20", "--eval_interval", "10", "--eval_iters", "2"),
)


@pytest.fixture(scope="module")
def torch(shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if os.environ.get("CVL_TEST_TORCH") != "1":
        pytest.skip("CVL_TEST_TORCH=1 trains nanogpt in an image of gigabytes")
    done = run(NANOGPT / "python.sh", "-c", "pass", cwd=NANOGPT, limit=1500)
    if done.returncode:
        pytest.skip(f"pip cannot install what nanogpt needs: {done.stderr[-500:]}")
    with image_of(NANOGPT, shared_engine, tmp_path_factory.mktemp("image")) as name:
        yield name


@pytest.fixture(scope="module")
def cluster(shared_engine: Engine) -> Iterator[KubernetesCluster]:
    with KubernetesCluster(engine=shared_engine) as running:
        yield running


@pytest.fixture
def there(cluster: KubernetesCluster, torch: str, tmp_path: Path) -> Iterator[Desk]:
    with kube.fresh_namespace(cluster) as namespace:
        calling = desk(tmp_path, cluster, namespace, image=torch)
        example = calling.repo / "examples/generative/llm/nanogpt"
        shutil.copytree(NANOGPT, example, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
        yield calling
        for each in calling.runs():
            assert not ours(cluster, each)


def trained(there: Desk, *options: str) -> list[dict[str, float]]:
    with there.start("run", *there.options, *options, "nanogpt", "train", *SAME) as client:
        done = client.ended(800)
    assert done.code == 0, (done.out[-2000:], done.err[-2000:])
    folder = there.repo / "cvl-runs" / there.runs()[0]
    found = json.loads(next(folder.rglob("metrics.json")).read_text())["evaluations"]
    assert isinstance(found, list)
    return found


def test_two_nodes_learn_what_one_learns(there: Desk) -> None:
    one, two = trained(there), trained(there, "--nodes", "2")
    for ours_, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours_, rel=1e-5)


def test_a_rank_that_is_killed_ends_the_run(cluster: KubernetesCluster, there: Desk) -> None:
    long = (*SAME, "--max_iters", "100000")
    with there.start("run", *there.options, "--nodes", "2", "nanogpt", "train", *long) as client:
        client.shows(b"iteration")
        run_id = there.runs()[0]
        pods = left(cluster, run_id)
        second = next(name for name in pods if name.startswith(f"cvl-{run_id}-1-"))
        kill = (
            "for p in /proc/[0-9]*; do read -r c <$p/comm; "
            '[ "$c" != python3 ] || kill -9 ${p#/proc/}; done'
        )
        kube.execute(cluster, there.options[2], second, "bash", "-c", kill)
        done = client.ended(300)
    assert done.code not in {0, 125}, done.err
    assert "node 1" in done.err
