"""The controllers of the fake cluster: jobs, their ends, garbage, scheduling, nodes.

No containers: the tests say what has become of a pod, and what time it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cvl.testing.kubernetes import KubernetesCluster, NodeSpec, Settings
from cvl.testing.kubernetes.objects import condition
from cvl.testing.kubernetes.resources import PODS as POD_KIND
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, job, pod, secret, until
from cvl.tests.fakes import FakeClock

SECRETS, SERVICES = "/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/services"
GPU = "nvidia.com/gpu"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cluster(clock: FakeClock) -> Iterator[KubernetesCluster]:
    with KubernetesCluster(Settings(), clock) as made:
        yield made
        assert made.violations == []


@pytest.fixture
def client(cluster: KubernetesCluster) -> Client:
    return Client(cluster)


End = Callable[..., None]


@pytest.fixture
def end(cluster: KubernetesCluster) -> End:
    """Return what lets a pod have ended."""

    def end(name: str, code: int = 0) -> None:
        phase = {"phase": "Failed" if code else "Succeeded"}
        store = cluster.world.store
        store.update(POD_KIND, "default", name, lambda pod: pod["status"].update(phase))

    return end


def pods(client: Client, count: int = 1) -> list[str]:
    """Return the names of the pods that run, once there are so many."""

    def found() -> list[str]:
        items = client.ok("GET", PODS)["items"]
        return [
            each["metadata"]["name"]
            for each in items
            if each["status"]["phase"] == "Pending" and "deletionTimestamp" not in each["metadata"]
        ]

    until(lambda: len(found()) == count)
    return found()


def status(client: Client, name: str = "j") -> Obj:
    return dict(client.ok("GET", f"{JOBS}/{name}")["status"])


def ended(client: Client, kind: str, name: str = "j") -> Obj:
    """Return the condition that ends a job, once it is there."""
    until(
        lambda: (condition(client.ok("GET", f"{JOBS}/{name}"), kind) or {}).get("status") == "True"
    )
    found = condition(client.ok("GET", f"{JOBS}/{name}"), kind)
    assert found is not None
    return found


def test_a_job_makes_a_pod_and_is_complete_when_it_has_succeeded(client: Client, end: End) -> None:
    client.ok("POST", JOBS, job())
    (name,) = pods(client)
    made = client.ok("GET", f"{PODS}/{name}")
    assert name.startswith("j-")
    assert made["metadata"]["labels"]["job-name"] == "j"
    assert made["metadata"]["ownerReferences"][0]["controller"] is True
    assert made["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    until(lambda: status(client).get("active") == 1)
    end(name)
    assert ended(client, "Complete")["reason"] == "CompletionsReached"
    done = status(client)
    assert (done["succeeded"], done.get("active"), done.get("failed")) == (1, None, None)
    assert done["completionTime"]
    until(lambda: "finalizers" not in client.ok("GET", f"{PODS}/{name}")["metadata"])


def test_a_failed_pod_fails_its_job(client: Client, end: End) -> None:
    client.ok("POST", JOBS, job())
    end(pods(client)[0], 3)
    found = ended(client, "Failed")
    assert found["reason"] == "BackoffLimitExceeded"
    assert found["message"] == "Job has reached the specified backoff limit"
    assert status(client)["failed"] == 1


def test_an_indexed_job_has_a_pod_for_each_index(client: Client, end: End) -> None:
    template = {"subdomain": "grp"}
    client.ok(
        "POST", JOBS, job(template=template, completionMode="Indexed", completions=3, parallelism=3)
    )
    names = pods(client, 3)
    assert [name[:4] for name in names] == ["j-0-", "j-1-", "j-2-"]
    made = client.ok("GET", f"{PODS}/{names[1]}")
    assert made["spec"]["hostname"] == "j-1"
    assert made["metadata"]["annotations"] == {"batch.kubernetes.io/job-completion-index": "1"}
    assert made["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    end(names[0])
    end(names[2])
    until(lambda: status(client).get("completedIndexes") == "0,2")
    assert status(client)["succeeded"] == 2
    end(names[1])
    ended(client, "Complete")
    assert status(client)["completedIndexes"] == "0,1,2"


def test_one_failed_index_fails_the_job_and_ends_the_others(client: Client, end: End) -> None:
    client.ok("POST", JOBS, job(completionMode="Indexed", completions=3, parallelism=3))
    end(pods(client, 3)[1], 9)
    assert ended(client, "Failed")["reason"] == "BackoffLimitExceeded"
    until(lambda: len(client.names(PODS)) == 1)
    assert condition(client.ok("GET", f"{JOBS}/j"), "FailureTarget")


def test_a_suspended_job_has_no_pods_until_it_is_resumed(client: Client) -> None:
    client.ok("POST", JOBS, job(suspend=True))
    ended(client, "Suspended")
    assert client.names(PODS) == []
    client.patch(f"{JOBS}/j", {"spec": {"suspend": False}})
    pods(client)
    assert (condition(client.ok("GET", f"{JOBS}/j"), "Suspended") or {})["status"] == "False"
    client.patch(f"{JOBS}/j", {"spec": {"suspend": True}})
    until(lambda: client.names(PODS) == [])
    assert "startTime" not in status(client)


def test_a_pod_that_is_deleted_is_replaced_or_counted(client: Client, clock: FakeClock) -> None:
    client.ok("POST", JOBS, job(backoffLimit=3))
    (first,) = pods(client)
    client.ok("DELETE", f"{PODS}/{first}")
    until(lambda: first not in client.names(PODS))
    clock.now += 60
    pods(client)


# --- deleting


def owned(client: Client, uid: str) -> Obj:
    made = secret("owned")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid}
    made["metadata"]["ownerReferences"] = [owner]
    return client.ok("POST", SECRETS, made)


@pytest.mark.parametrize("options", [None, {"propagationPolicy": "Orphan"}])
def test_a_plain_delete_of_a_job_leaves_its_pods(client: Client, options: Obj | None) -> None:
    made = client.ok("POST", JOBS, job())
    owned(client, made["metadata"]["uid"])
    (name,) = pods(client)
    client.ok("DELETE", f"{JOBS}/j", options)
    until(lambda: client.names(JOBS) == [])
    until(lambda: "ownerReferences" not in client.ok("GET", f"{PODS}/{name}")["metadata"])
    assert client.names(PODS) == [name]
    assert client.names(SECRETS) == ["owned"]


def test_deleting_in_the_background_takes_all_that_is_owned(client: Client) -> None:
    made = client.ok("POST", JOBS, job())
    owned(client, made["metadata"]["uid"])
    pods(client)
    told = client.ok("DELETE", f"{JOBS}/j", {"propagationPolicy": "Background"})
    assert told["status"] == "Success"
    assert told["details"] == {
        "name": "j", "group": "batch", "kind": "jobs", "uid": made["metadata"]["uid"],
    }  # fmt: skip
    assert client.names(JOBS) == []
    until(lambda: client.names(PODS) == [] and client.names(SECRETS) == [])


def test_deleting_in_the_foreground_waits_for_pods(client: Client) -> None:
    client.ok("POST", JOBS, job())
    (name,) = pods(client)
    client.patch(f"{PODS}/{name}", {"metadata": {"finalizers": ["example.com/held"]}})
    told = client.ok("DELETE", f"{JOBS}/j", {"propagationPolicy": "Foreground"})
    assert told["metadata"]["finalizers"] == ["foregroundDeletion"]
    until(lambda: "deletionTimestamp" in client.ok("GET", f"{PODS}/{name}")["metadata"])
    assert client.names(JOBS) == ["j"]
    client.patch(f"{PODS}/{name}", {"metadata": {"finalizers": None}})
    until(lambda: client.names(PODS) == [] and client.names(JOBS) == [])


def test_a_namesake_is_not_deleted(client: Client) -> None:
    client.ok("POST", JOBS, job())
    wrong = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    status_, reason, message = client.refused("DELETE", f"{JOBS}/j", wrong)
    assert (status_, reason) == (409, "Conflict")
    assert "Precondition failed: UID in precondition" in message
    assert client.names(JOBS) == ["j"]
    unknown = client.refused("DELETE", f"{JOBS}/j", {"propagationPolicy": "Sideways"})
    assert unknown[0] == 422


def test_a_namespace_goes_with_all_that_is_in_it(client: Client) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    client.ok("POST", "/api/v1/namespaces", space)
    until(lambda: client.names("/api/v1/namespaces/n/serviceaccounts") == ["default"])
    client.ok("POST", "/api/v1/namespaces/n/secrets", secret())
    client.ok("POST", "/apis/batch/v1/namespaces/n/jobs", job())
    held = {"metadata": {"finalizers": ["example.com/held"]}}
    client.patch("/api/v1/namespaces/n/secrets/s", held)
    client.ok("DELETE", "/api/v1/namespaces/n")
    assert client.ok("GET", "/api/v1/namespaces/n")["status"]["phase"] == "Terminating"
    told = client.refused("POST", "/api/v1/namespaces/n/secrets", secret("t"))
    assert told[0] == 403
    assert "because it is being terminated" in told[2]
    client.patch("/api/v1/namespaces/n/secrets/s", {"metadata": {"finalizers": None}})
    until(lambda: client.call("GET", "/api/v1/namespaces/n")[0] == 404)
    assert client.names("/api/v1/namespaces/n/secrets") == []


# --- scheduling and nodes


def waits(client: Client, name: str = "p") -> str:
    """Return why a pod has no node, once that is said."""

    def found() -> Obj:
        return condition(client.ok("GET", f"{PODS}/{name}"), "PodScheduled") or {}

    until(lambda: found().get("status") == "False")
    assert found()["reason"] == "Unschedulable"
    return str(found()["message"])


def asking(**limits: str) -> Obj:
    amounts = {key.replace("gpu", GPU): value for key, value in limits.items()}
    return {"containers": [{"name": "main", "image": "x", "resources": {"limits": amounts}}]}


def test_a_pod_waits_for_capacity(cluster: KubernetesCluster, client: Client, end: End) -> None:
    client.ok("POST", PODS, pod(**asking(gpu="2")))
    assert waits(client).startswith("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    with cluster.capacity(GPU, 2):
        until(lambda: client.ok("GET", f"{PODS}/p")["spec"].get("nodeName") == "node1")
        client.ok("POST", PODS, pod("q", **asking(gpu="1")))
        waits(client, "q")
        end("p")
        until(lambda: client.ok("GET", f"{PODS}/q")["spec"].get("nodeName") == "node1")


def test_nodes_are_chosen_by_label() -> None:
    nodes = (NodeSpec(name="a", labels={"zone": "1"}), NodeSpec(name="b"))
    with KubernetesCluster(Settings(nodes=nodes)) as cluster:
        client = Client(cluster)
        client.ok("POST", PODS, pod("p", nodeSelector={"zone": "2"}))
        told = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
        assert waits(client, "p") == told
        client.ok("POST", PODS, pod("q", nodeSelector={"kubernetes.io/hostname": "b"}))
        until(lambda: client.ok("GET", f"{PODS}/q")["spec"].get("nodeName") == "b")
        assert cluster.violations == []


def test_a_lost_node_is_not_ready_and_its_pods_go_on_showing_running(
    cluster: KubernetesCluster, client: Client, clock: FakeClock
) -> None:
    client.ok("POST", PODS, pod())
    until(lambda: client.ok("GET", f"{PODS}/p")["spec"].get("nodeName"))
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": cluster.world.now()}
    status = {"phase": "Running", "conditions": [ready]}
    cluster.world.store.update(POD_KIND, "default", "p", lambda pod: pod["status"].update(status))
    cluster.world.silent.add("node1")

    def heard(word: str) -> bool:
        clock.now += 1  # the grace begins when the silence is first seen: let it be seen
        node = client.ok("GET", "/api/v1/nodes/node1")
        return bool((condition(node, "Ready") or {})["status"] == word)

    until(lambda: heard("Unknown"))
    until(lambda: (condition(client.ok("GET", f"{PODS}/p"), "Ready") or {})["status"] == "False")
    assert client.ok("GET", f"{PODS}/p")["status"]["phase"] == "Running"
    client.ok("POST", PODS, pod("q"))
    assert "unreachable" in waits(client, "q")
    client.ok("DELETE", f"{PODS}/p")
    assert "deletionTimestamp" in client.ok("GET", f"{PODS}/p")["metadata"]
    cluster.world.silent.discard("node1")
    until(lambda: heard("True"))
    until(lambda: client.names(PODS) == ["q"])
