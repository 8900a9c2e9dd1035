"""What goes wrong with the fake API server, when it is told to."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest

from cvl.core.errors import Unreachable
from cvl.testing import kube
from cvl.testing.conversation import Drop
from cvl.testing.kubernetes import FAULTS, Entry, KubernetesCluster, Moment, Settings, What
from cvl.testing.kubernetes.operations import STUCK
from cvl.tests.apiserver import JOBS, PODS, Client, job, until

BROKEN = (OSError, http.client.HTTPException, ValueError)


@pytest.fixture
def cluster() -> Iterator[KubernetesCluster]:
    with KubernetesCluster(Settings(hang_seconds=5)) as made:
        yield made


@pytest.fixture
def client(cluster: KubernetesCluster) -> Client:
    return Client(cluster)


@pytest.mark.parametrize("name", sorted(name for name in FAULTS if name.startswith("create-")))
def test_a_create_that_goes_wrong(cluster: KubernetesCluster, name: str) -> None:
    """Whatever the client hears: `after` means that the job is there, once."""
    client = Client(cluster, timeout=1.0)
    cluster.inject(FAULTS[name])
    started, status = time.monotonic(), 0
    try:
        status = client.call("POST", JOBS, job())[0]
    except BROKEN:
        status = 0
    fault = FAULTS[name]
    if fault.what is What.SLOW:
        assert time.monotonic() - started >= 1.0
    assert status == (fault.status if fault.what is What.HTTP else 0)
    there = fault.after or fault.what in (What.SLOW, What.LATE)
    if there:
        until(lambda: client.names(JOBS) == ["j"])
    else:
        assert client.names(JOBS) == []
        client.ok("POST", JOBS, job())
    assert client.refused("POST", JOBS, job())[1] == "AlreadyExists"


def test_too_many_requests_say_when_to_come_again(
    cluster: KubernetesCluster, client: Client
) -> None:
    cluster.inject(FAULTS["any-429"])
    with pytest.raises(Unreachable, match="429") as told:
        kube.client(cluster)._once("GET", JOBS, {})
    assert told.value.wait == 1
    assert client.names(JOBS) == []


def test_a_delete_that_says_yes_and_does_nothing(
    cluster: KubernetesCluster, client: Client
) -> None:
    client.ok("POST", JOBS, job())
    cluster.inject(FAULTS["delete-ignored"])
    assert client.ok("DELETE", f"{JOBS}/j")["status"] == "Success"
    assert client.names(JOBS) == ["j"]


def test_a_delete_that_gets_stuck(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", JOBS, job())
    cluster.inject(FAULTS["delete-stuck"])
    made = client.ok("DELETE", f"{JOBS}/j", {"propagationPolicy": "Background"})
    assert made["metadata"]["finalizers"] == [STUCK]
    assert made["metadata"]["deletionTimestamp"]
    assert client.names(JOBS) == ["j"]
    client.patch(f"{JOBS}/j", {"metadata": {"finalizers": None}})
    assert client.names(JOBS) == []


def test_a_list_that_is_behind_the_times(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", JOBS, job())
    until(lambda: client.names(PODS))
    cluster.inject(FAULTS["list-stale"])
    assert client.names(PODS) == []
    assert len(client.names(PODS)) == 1
    cluster.inject(FAULTS["job-get-404"])
    assert client.refused("GET", f"{JOBS}/j")[0] == 404


def test_hooks_are_called_and_may_cut_the_connection(
    cluster: KubernetesCluster, client: Client
) -> None:
    moments: list[tuple[str, Moment]] = []

    def hook(entry: Entry, moment: Moment) -> None:
        moments.append((entry.operation, moment))
        if entry.operation == "create jobs" and moment is Moment.DONE:
            raise Drop

    cluster.api.hooks.append(hook)
    with pytest.raises(BROKEN):
        client.ok("POST", JOBS, job())
    assert client.names(JOBS) == ["j"]
    assert moments[:2] == [("create jobs", Moment.RECEIVED), ("create jobs", Moment.DONE)]
    assert moments[2:] == [("list jobs", Moment.RECEIVED), ("list jobs", Moment.DONE)]
    assert cluster.log[0].status is None
