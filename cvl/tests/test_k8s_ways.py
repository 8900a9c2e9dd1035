"""Ways into a cluster, real and fake, as `cvl run` takes them: a proxy, a role, a new login."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cvl.providers.kubernetes.client import api_path
from cvl.testing import kube
from cvl.testing.cli_harness import Desk
from cvl.testing.connect_proxy import ConnectProxy
from cvl.testing.kube import Cluster
from cvl.testing.kubernetes import KubernetesCluster
from cvl.tests.kubes import desk, left, ours

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]
SCRIPT = "echo one; echo a >a; exit 3"


def changed(cluster: Cluster, file: Path, **context: str) -> dict[str, Any]:
    """Return the kubeconfig, its current context with more in it; written to `file`."""
    config: dict[str, Any] = json.loads(cluster.kubeconfig.read_text())
    for each in config["contexts"]:
        if each["name"] == config["current-context"]:
            each["context"] |= context
    file.write_text(json.dumps(config))
    return config


def test_all_of_a_run_goes_through_the_proxy(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """It alone knows the cluster's name: requests, logs, and commands in the pod."""
    file = tmp_path / "kubeconfig"
    config = changed(cluster, file)
    there = config["clusters"][0]["cluster"]
    found = re.fullmatch(r"https://([^:/]+):(\d+)", there["server"])
    assert found
    there |= {"server": "https://known-to-the-proxy.example:6443", "tls-server-name": found[1]}
    file.write_text(json.dumps(config))
    calling = desk(tmp_path, cluster, namespace)
    names = {"known-to-the-proxy.example:6443": (found[1], int(found[2]))}
    with ConnectProxy(names=names, login="me:pass-word-1") as proxy:
        env = {"KUBECONFIG": str(file), "HTTPS_PROXY": proxy.url("me:pass-word-1"), "NO_PROXY": "x"}
        done = calling.sh(SCRIPT, env=env)
        assert (done.code, done.out) == (3, b"one\n"), done.err
        assert calling.result("a") == b"a\n"
        assert set(proxy.places) == set(names)
        assert "pass-word-1" not in done.err
        proxy.login = "me:another"
        end = calling.sh("true", env=env)
        assert end.code == 125
        assert "(HTTPS_PROXY) does not accept the user and password" in end.err
        assert "pass-word-1" not in end.err
    assert not ours(cluster, calling.runs()[0])


def test_a_run_acts_as_whom_the_kubeconfig_says(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    config = changed(cluster, file)
    for each in config["users"]:
        if each["name"] == kube.ADMIN:
            each["user"]["as"] = kube.LIMITED
    file.write_text(json.dumps(config))
    calling = desk(tmp_path, cluster, namespace)
    env = {"KUBECONFIG": str(file)}
    done = calling.sh("true", env=env)
    assert done.code == 125
    assert "you may not create jobs in namespace" in done.err
    kube.grant(
        cluster, namespace, ["*"], ["jobs.batch", "secrets", "pods", "pods/log", "pods/exec"]
    )
    done = calling.sh(SCRIPT, env=env)
    assert (done.code, done.out) == (3, b"one\n"), done.err
    assert calling.result("a") == b"a\n"


def test_the_contexts_own_namespace_is_taken_and_kept_to(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    changed(cluster, file, namespace=namespace)
    options = ("--k8s", "--image", cluster.image)
    whole = desk(tmp_path, cluster, namespace)
    calling = Desk(folder=tmp_path, options=options, env={**whole.env, "KUBECONFIG": str(file)})
    planned = json.loads(calling.sh("true", "--dry-run", "--json").out)
    assert {each["metadata"]["namespace"] for each in planned["request"]} == {namespace}
    run = calling.sh(f"sleep 1; {SCRIPT}", "-d").out.decode().strip()
    assert kube.client(cluster).get(f"{api_path('jobs', namespace)}/cvl-{run}")
    changed(cluster, file, namespace="default")
    end = calling.cvl("attach", run)
    assert (end.code, end.out) == (3, b"one\n"), end.err
    assert not ours(cluster, run)


def test_a_new_login_is_taken_while_a_run_is_followed(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    """The old token is good no more: for output, for the look at the end, and for the results."""
    with kube.fresh_namespace(fake_cluster) as name:
        calling = desk(tmp_path, fake_cluster, name)
        line = "echo ready; while [ ! -e go ]; do sleep .1; done; echo a >a; exit 3"
        with calling.start("run", *calling.options, "one", "sh", line) as client:
            client.shows(b"ready")
            fake_cluster.rotate_token()
            (pod,) = left(fake_cluster, calling.runs()[0])
            kube.execute(fake_cluster, name, pod, "touch", "/workspace/go")
            done = client.ended(60)
        assert (done.code, done.out) == (3, b"ready\n"), done.err
        assert calling.result("a") == b"a\n"
        assert "does not accept who we are" not in done.err
