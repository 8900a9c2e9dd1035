"""Exactly the rights that docs/kubernetes.md lists suffice, and each is needed."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from cvl.core.spec import JobSpec, Source
from cvl.providers.kubernetes import check
from cvl.testing import kube
from cvl.testing.cli_harness import wait_for
from cvl.testing.kube import Cluster
from cvl.testing.kubernetes import KubernetesCluster
from cvl.tests.kubes import desk, ours

PAGE = Path(__file__).parents[2] / "docs/kubernetes.md"
FOREVER = "while :; do sleep .1; done"
Rights = Mapping[tuple[str, str], tuple[str, ...]]
"""(API group, resource) -> verbs."""


def listed() -> Rights:
    """Return the rights of the page: those for an example on many nodes."""
    text = PAGE.read_text().partition("## What you have to be allowed")[2]
    must = text.partition("`list` on `events`")[0].replace("\n", " ")
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for verbs, resource in re.findall(r"((?:`[a-z]+`(?:,| and)? ?)+)on `([a-z/]+)`", must):
        group = "batch" if resource == "jobs" else ""
        found[group, resource] = tuple(re.findall(r"`([a-z]+)`", verbs))
    found["", "services"] = found["", "secrets"]  # "the same on `services`"
    return found


def bind(cluster: Cluster, namespace: str, rights: Rights) -> None:
    """Let `limited` do just this."""
    rules = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in rights.items()
    ]
    kube.bind(cluster, namespace, "cvl", rules)


def test_the_page_lists_what_is_checked() -> None:
    spec = JobSpec(run_id="r", argv=(), source=Source(root=PAGE.parent, folder="x"), nodes=2)
    pairs = {
        (group, resource, verb) for (group, resource), verbs in listed().items() for verb in verbs
    }
    assert set(check.needed(spec)) == pairs


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_life_needs_no_more(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Run, follow, stop, attach, results, secrets, pull secrets, ps, reap."""
    rights = {key: verbs for key, verbs in listed().items() if key[1] != "services"}
    bind(cluster, namespace, rights)
    options = ("--context", kube.LIMITED, "--pull-secrets", "absent")
    calling = desk(tmp_path, cluster, namespace, *options)
    done = calling.sh("echo a >a; echo $X >b; exit 3", "-e", "X=y")
    assert done.code == 3, done.err
    assert "forbidden" not in done.err
    assert (calling.result("a"), calling.result("b")) == (b"a\n", b"y\n")
    run = calling.sh("sleep 1; echo out; echo c >c; exit 4", "-d").out.decode().strip()
    assert calling.cvl("ps").code == 0
    end = calling.cvl("attach", run)
    assert (end.code, end.out) == (4, b"out\n"), end.err
    run = calling.sh(f"echo ready; {FOREVER}", "-d").out.decode().strip()
    assert calling.cvl("stop", run).code == 0
    with calling.start("run", *calling.options, "one", "sh", f"echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        client.signal(signal.SIGKILL)
        client.ended()
    dead = calling.runs()[0]
    env = {"KUBECONFIG": str(only_limited(tmp_path, cluster))}
    reaped = calling.cvl("reap", "-y", env=env)
    assert reaped.code == 0, reaped.err
    wait_for(lambda: not ours(cluster, dead))
    assert not ours(cluster)


def only_limited(folder: Path, cluster: Cluster) -> Path:
    """Return the configuration of somebody who is nobody else."""
    file = folder / "limited"
    config = json.loads(cluster.kubeconfig.read_text())
    file.write_text(json.dumps({**config, "current-context": kube.LIMITED}))
    return file


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_nodes_need_no_more(fake_cluster: KubernetesCluster, tmp_path: Path) -> None:
    with kube.fresh_namespace(fake_cluster) as space:
        bind(fake_cluster, space, listed())
        calling = desk(tmp_path, fake_cluster, space, "--context", kube.LIMITED)
        done = calling.sh("echo a >a; exit $NODE_RANK", "--nodes", "2")
        assert done.code == 1, done.err
        assert not ours(fake_cluster)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_of_them_is_needed_and_named_at_once(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    every = [(key, verb) for key, verbs in listed().items() for verb in verbs]
    with kube.fresh_namespace(fake_cluster) as space:
        calling = desk(tmp_path, fake_cluster, space, "--context", kube.LIMITED, "--nodes", "2")
        for key, verb in every:
            less = {
                k: tuple(v for v in verbs if (k, v) != (key, verb)) for k, verbs in listed().items()
            }
            bind(fake_cluster, space, less)
            done = calling.sh("true")
            assert done.code == 125
            assert f"you may not {verb} {key[1]} in namespace {space}" in done.err, (key, verb)
            assert f'verbs: ["{verb}"]' in done.err
        assert not ours(fake_cluster)
