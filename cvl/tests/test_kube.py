"""What a cluster promises the tests: the real one and the fake keep it alike."""

from __future__ import annotations

import pytest

from cvl.core.errors import Denied, Unreachable
from cvl.providers.kubernetes.check import may
from cvl.testing import kube
from cvl.tests.rooms import Room

STATE = ".status.containerStatuses[*].state"
EXIT_CODE = f"{STATE}.terminated.exitCode"


def test_a_job_runs_to_its_exit_code(room: Room) -> None:
    room.run("echo out; echo error >&2; exit 7")
    room.wait(EXIT_CODE, "7")
    assert set(room.log().split()) == {"out", "error"}


def test_memory_is_limited(room: Room) -> None:
    room.run("tail /dev/zero", container={"resources": {"limits": {"memory": "16Mi"}}})
    room.wait(f"{STATE}.terminated.reason", "OOMKilled")


def test_its_state_outlives_the_api_server(room: Room) -> None:
    room.run("sleep 2; exit 5")
    room.wait(".status.phase", "Running")
    with room.cluster.cut(), pytest.raises(Unreachable, match="refused"):
        room.ask("", "jobs")
    room.wait(EXIT_CODE, "5")


def test_the_limited_user_may_do_what_was_granted(room: Room) -> None:
    limited = kube.client(room.cluster, kube.LIMITED)
    create, delete = ("batch", "jobs", "create"), ("batch", "jobs", "delete")
    assert not may(limited, room.name, create)
    kube.grant(room.cluster, room.name, ["create"], ["jobs.batch"])
    assert may(limited, room.name, create)
    assert not may(limited, room.name, delete)


def test_a_pod_waits_for_capacity(room: Room) -> None:
    room.run("exit 3", container={"resources": {"limits": {"nvidia.com/gpu": 2}}})
    why = '.status.conditions[?(@.type=="PodScheduled")].message'
    room.wait(why, "Insufficient nvidia.com/gpu")
    with room.cluster.capacity("nvidia.com/gpu", 2):
        room.wait(EXIT_CODE, "3")
    assert "nvidia.com/gpu" not in room.ask(".status.capacity", "nodes")


def test_a_quota_counts(room: Room) -> None:
    kube.quota(room.cluster, room.name, **{"count/jobs.batch": "0"})
    with pytest.raises(Denied, match="exceeded quota"):
        room.run("true")


def test_a_lost_node_goes_on_showing_its_pods(room: Room) -> None:
    room.run("sleep 600")
    room.wait(".status.phase", "Running")
    with room.cluster.lost_node():
        assert room.ask(".status.phase") == "Running"
    assert room.ask(".status.phase") == "Running"
