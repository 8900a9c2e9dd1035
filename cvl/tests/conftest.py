"""One throw-away host for the whole of a worker's tests; whoever breaks things makes its own."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cvl.testing import docker_engine, kube, kube_cluster
from cvl.testing.docker_engine import Engine
from cvl.testing.kube import Cluster
from cvl.testing.kube_cluster import RealCluster
from cvl.testing.sshd import Sshd
from cvl.tests.kube_namespaces import Namespace

# How fast a loaded machine makes up examples says nothing about us.
settings.register_profile("cvl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cvl")

# What nohup, or a shell in the background, has made us ignore, our children would ignore too.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        ours = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, ours)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Record what each test takes, where `CVL_TEST_DURATIONS` names a file: a line of JSON each.

    `wall` and `cpu` are seconds; `cpu` is of this process and of the children that have ended.
    """
    began, used = time.monotonic(), sum(os.times()[:4])
    try:
        return (yield)
    finally:
        if path := os.environ.get("CVL_TEST_DURATIONS"):
            wall, cpu = time.monotonic() - began, sum(os.times()[:4]) - used
            line = {"test": item.nodeid, "wall": round(wall, 2), "cpu": round(cpu, 2)}
            with Path(path).open("a", encoding="utf-8") as record:
                record.write(json.dumps(line) + "\n")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host")) as sshd:
        yield sshd


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[Engine]:
    """One Docker engine of our own for the whole of a worker's tests."""
    if why := docker_engine.missing():
        pytest.skip(why)
    with docker_engine.engine() as running:
        yield running


@pytest.fixture(scope="session")
def docker_host(shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A host whose sessions reach that engine."""
    with Sshd(tmp_path_factory.mktemp("dockerhost"), env=shared_engine.env) as sshd:
        yield sshd


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[RealCluster]:
    """One real Kubernetes for the whole of a worker's tests: mark those that use it `kube`."""
    if why := kube_cluster.missing():
        pytest.skip(why)
    with kube_cluster.cluster() as running:
        yield running


@pytest.fixture(scope="session")
def fake_cluster(shared_engine: Engine) -> Iterator[Cluster]:
    """One fake API server, whose pods run on the shared engine."""
    from cvl.testing.kubernetes import KubernetesCluster

    with KubernetesCluster(engine=shared_engine) as running:
        yield running
        assert running.violations == []


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of that cluster."""
    with kube.fresh_namespace(cluster) as name:
        yield name


@pytest.fixture
def ns(cluster: Cluster, namespace: str) -> Namespace:
    """The same, with the cluster that it lies in."""
    return Namespace(cluster=cluster, name=namespace)


@pytest.fixture(scope="session", params=[pytest.param("real", marks=pytest.mark.kube), "fake"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Either: what a test says of one is true of the other."""
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter: pytest closes its own whenever a session starts."""
    with tempfile.TemporaryDirectory(prefix="cvl-open-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
