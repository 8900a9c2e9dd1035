"""What a cluster promises the tests: the real one and the fake keep it alike."""

from __future__ import annotations

import pytest

from cvl.core.errors import Denied, Unreachable
from cvl.providers.kubernetes.check import may
from cvl.testing import kube
from cvl.tests.kube_namespaces import Namespace

STATE = ".status.containerStatuses[*].state"
EXIT_CODE = f"{STATE}.terminated.exitCode"


def test_a_job_runs_to_its_exit_code(ns: Namespace) -> None:
    ns.run("echo out; echo error >&2; exit 7")
    ns.wait(EXIT_CODE, "7")
    assert set(ns.log().split()) == {"out", "error"}


def test_memory_is_limited(ns: Namespace) -> None:
    ns.run("tail /dev/zero", container={"resources": {"limits": {"memory": "16Mi"}}})
    ns.wait(f"{STATE}.terminated.reason", "OOMKilled")


def test_its_state_outlives_the_api_server(ns: Namespace) -> None:
    ns.run("sleep 2; exit 5")
    ns.wait(".status.phase", "Running")
    with ns.cluster.cut(), pytest.raises(Unreachable, match="refused"):
        ns.ask("", "jobs")
    ns.wait(EXIT_CODE, "5")


def test_the_limited_user_may_do_what_was_granted(ns: Namespace) -> None:
    limited = kube.client(ns.cluster, kube.LIMITED)
    create, delete = ("batch", "jobs", "create"), ("batch", "jobs", "delete")
    assert not may(limited, ns.name, create)
    kube.grant(ns.cluster, ns.name, ["create"], ["jobs.batch"])
    assert may(limited, ns.name, create)
    assert not may(limited, ns.name, delete)


def test_a_pod_waits_for_capacity(ns: Namespace) -> None:
    ns.run("exit 3", container={"resources": {"limits": {"nvidia.com/gpu": 2}}})
    why = '.status.conditions[?(@.type=="PodScheduled")].message'
    ns.wait(why, "Insufficient nvidia.com/gpu")
    with ns.cluster.capacity("nvidia.com/gpu", 2):
        ns.wait(EXIT_CODE, "3")
    assert "nvidia.com/gpu" not in ns.ask(".status.capacity", "nodes")


def test_a_quota_counts(ns: Namespace) -> None:
    kube.quota(ns.cluster, ns.name, **{"count/jobs.batch": "0"})
    with pytest.raises(Denied, match="exceeded quota"):
        ns.run("true")


def test_a_lost_node_goes_on_showing_its_pods(ns: Namespace) -> None:
    ns.run("sleep 600")
    ns.wait(".status.phase", "Running")
    with ns.cluster.lost_node():
        assert ns.ask(".status.phase") == "Running"
    assert ns.ask(".status.phase") == "Running"
