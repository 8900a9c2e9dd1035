"""Watches of the fake API server, and the streams and requests that go wrong."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from cvl.testing.kubernetes import (
    FAULTS,
    Drop,
    Entry,
    Fault,
    KubernetesCluster,
    Moment,
    Settings,
    What,
)
from cvl.testing.kubernetes.operations import STUCK
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, job, pod, secret, until

SECRETS = "/api/v1/namespaces/default/secrets"
BROKEN = (OSError, http.client.HTTPException, ValueError)


@pytest.fixture
def cluster() -> Iterator[KubernetesCluster]:
    with KubernetesCluster(Settings(hang_seconds=5)) as made:
        yield made


@pytest.fixture
def client(cluster: KubernetesCluster) -> Client:
    return Client(cluster)


def version(client: Client, path: str = SECRETS) -> str:
    return str(client.ok("GET", path)["metadata"]["resourceVersion"])


def told(events: list[Obj]) -> list[tuple[str, str]]:
    return [(each["type"], each["object"]["metadata"].get("name", "")) for each in events]


def test_a_watch_tells_what_happens_after_a_version(client: Client) -> None:
    client.ok("POST", SECRETS, secret("before"))
    start = version(client)
    events = client.watch(SECRETS, resourceVersion=start)
    client.ok("POST", SECRETS, secret("a"))
    client.patch(f"{SECRETS}/a", {"stringData": {"x": "y"}})
    client.ok("DELETE", f"{SECRETS}/a")
    assert told(list(islice(events, 3))) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_without_a_version_begins_with_what_there_is(client: Client) -> None:
    client.ok("POST", SECRETS, secret("a"))
    assert told(list(client.watch(SECRETS, timeoutSeconds=1))) == [("ADDED", "a")]


def test_a_watch_ends_when_it_is_told_to(client: Client) -> None:
    assert list(client.watch(SECRETS, resourceVersion=version(client), timeoutSeconds=1)) == []


def test_what_leaves_a_selection_is_deleted_there(client: Client) -> None:
    events = client.watch(SECRETS, resourceVersion=version(client), labelSelector="a=1")
    client.ok("POST", SECRETS, secret("other"))
    made = secret("s")
    made["metadata"]["labels"] = {"a": "1"}
    client.ok("POST", SECRETS, made)
    client.patch(f"{SECRETS}/s", {"metadata": {"labels": {"a": "2"}}})
    client.patch(f"{SECRETS}/s", {"metadata": {"labels": {"a": "1"}}})
    assert told(list(islice(events, 3))) == [("ADDED", "s"), ("DELETED", "s"), ("ADDED", "s")]


def test_a_watch_of_one_object(client: Client) -> None:
    client.ok("POST", SECRETS, secret("b"))
    events = client.watch(SECRETS, fieldSelector="metadata.name=a", timeoutSeconds=1)
    client.ok("POST", SECRETS, secret("a"))
    assert told(list(events)) == [("ADDED", "a")]


def test_a_version_that_nobody_remembers_is_410(cluster: KubernetesCluster, client: Client) -> None:
    old = version(client)
    client.ok("POST", SECRETS, secret())
    cluster.compact()
    (event,) = client.watch(SECRETS, resourceVersion=old)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert "too old resource version" in event["object"]["message"]


def test_a_watch_that_falls_behind_is_told_so(cluster: KubernetesCluster, client: Client) -> None:
    events = client.watch(SECRETS, resourceVersion=version(client))
    client.ok("POST", SECRETS, secret("a"))
    assert told([next(events)]) == [("ADDED", "a")]
    with cluster.world.store.lock:  # the watch cannot look in between
        client_version = cluster.world.store.version
        cluster.compact()
    assert client_version < cluster.world.store.oldest
    assert next(events)["object"]["code"] == 410


def test_bookmarks_and_the_end_of_the_beginning(client: Client) -> None:
    client.ok("POST", SECRETS, secret("a"))
    events = client.watch(
        SECRETS,
        sendInitialEvents="true",
        allowWatchBookmarks="true",
        resourceVersionMatch="NotOlderThan",
        timeoutSeconds=30,
    )
    first, mark = islice(events, 2)
    assert told([first]) == [("ADDED", "a")]
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    later = next(events)
    assert later["type"] == "BOOKMARK"
    assert int(later["object"]["metadata"]["resourceVersion"]) > 0


def test_watches_do_not_miss_anything(client: Client) -> None:
    start, seen = version(client), []

    def look() -> None:
        seen.extend(told(list(islice(client.watch(SECRETS, resourceVersion=start), 60))))

    watcher = threading.Thread(target=look)
    watcher.start()
    writers = [
        threading.Thread(
            target=lambda n=n: [client.ok("POST", SECRETS, secret(f"s{n}-{m}")) for m in range(15)]
        )
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    for thread in (*writers, watcher):
        thread.join()
    assert sorted(seen) == sorted(("ADDED", f"s{n}-{m}") for n in range(4) for m in range(15))


# --- faults


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
    connection, reply = client.open("GET", JOBS)
    assert (reply.status, reply.getheader("Retry-After")) == (429, "1")
    assert json.loads(reply.read())["details"]["retryAfterSeconds"] == 1
    connection.close()
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
    made = client.ok("DELETE", f"{JOBS}/j", propagationPolicy="Background")
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


def test_a_watch_that_closes_every_few_seconds(cluster: KubernetesCluster, client: Client) -> None:
    cluster.inject(FAULTS["watch-closes"])
    client.ok("POST", PODS, pod())
    for _ in range(2):
        started = time.monotonic()
        assert told(list(client.watch(PODS)))[:1] == [("ADDED", "p")]
        assert time.monotonic() - started < 20


def test_a_watch_that_is_told_410(cluster: KubernetesCluster, client: Client) -> None:
    cluster.inject(FAULTS["watch-410"])
    assert client.refused("GET", PODS, watch="1")[:2] == (410, "Expired")
    cluster.inject(FAULTS["watch-410-event"])
    assert list(client.watch(PODS))[-1]["object"]["code"] == 410


def test_a_watch_that_drops(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", PODS, pod())
    cluster.inject(Fault(what=What.STREAM_DROPS, on="watch pods", count=20))
    with pytest.raises(BROKEN):
        list(client.watch(PODS, timeoutSeconds=20))


def test_the_server_is_away_for_a_while(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", SECRETS, secret())
    events = client.watch(SECRETS)
    assert told([next(events)]) == [("ADDED", "s")]
    with cluster.cut():
        with pytest.raises(BROKEN):
            list(events)
        with pytest.raises(OSError, match="refused"):
            client.names(SECRETS)
    assert client.names(SECRETS) == ["s"]


def test_hooks_are_called_and_may_cut_the_connection(
    cluster: KubernetesCluster, client: Client
) -> None:
    moments: list[tuple[str, Moment]] = []

    def hook(entry: Entry, moment: Moment) -> None:
        moments.append((entry.operation, moment))
        if entry.operation == "create jobs" and moment is Moment.DONE:
            raise Drop

    cluster.on_request(hook)
    with pytest.raises(BROKEN):
        client.ok("POST", JOBS, job())
    assert client.names(JOBS) == ["j"]
    assert moments[:2] == [("create jobs", Moment.RECEIVED), ("create jobs", Moment.DONE)]
    until(lambda: ("list jobs", Moment.ANSWERED) in moments)
    assert cluster.log[0].answered is None
