"""A job runs once: whatever becomes of its pod, no second one runs it, and the reason is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cvl.core.errors import Missing
from cvl.core.spec import LogChunk
from cvl.providers.kubernetes.client import Object, api_path
from cvl.runners import K8sRunner
from cvl.testing import kube
from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.kube import Cluster
from cvl.testing.kube_cluster import RealCluster
from cvl.testing.kubernetes import KubernetesCluster
from cvl.tests.kubes import desk, ours, pods_of

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
FOREVER = "while :; do sleep .1; done"
ENDS = "trap 'echo saved >saved; exit 9' TERM"


@pytest.fixture
def there(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Desk]:
    """A desk whose runs leave nothing in the cluster."""
    calling = desk(tmp_path, cluster, namespace)
    yield calling
    for run in calling.runs():
        assert not ours(cluster, run)


def pod_of(cluster: Cluster, run: str) -> str:
    """Return the name of the one pod of a run, once it runs."""
    wait_for(lambda: [p for p in pods_of(cluster, run) if p["status"].get("phase") == "Running"])
    return str(pods_of(cluster, run)[0]["metadata"]["name"])


def delete(cluster: Cluster, namespace: str, pod: str) -> None:
    """Delete a pod as somebody does by hand, who does not wait for its end."""
    place = f"{api_path('pods', namespace)}/{pod}"
    kube.client(cluster).delete(place, propagation="Background")


def end_of(calling: Desk) -> tuple[object, object]:
    found = calling.ps()[0]
    return found["exit_code"], found["cause"]


@contextmanager
def cordoned(cluster: RealCluster) -> Iterator[None]:
    try:
        yield
    finally:
        cluster.kubectl("uncordon", cluster.node)


def drain(cluster: RealCluster) -> None:
    """Drain the node as its administrator does, and do not wait for the end of that."""
    try:
        cluster.kubectl(
            *("drain", cluster.node, "--force", "--ignore-daemonsets"),
            *("--delete-emptydir-data", "--timeout=3s"),
        )
    except Exception as error:  # noqa: BLE001 - its own time is up, that of the pod is not
        assert "timeout" in str(getattr(error, "stderr", error))  # noqa: PT017


def test_a_pod_that_is_deleted_by_hand_is_not_started_again(
    cluster: Cluster, namespace: str, there: Desk
) -> None:
    script = f"{ENDS}; echo ran; {FOREVER}"
    with there.start("run", *there.options, "one", "sh", script) as client:
        client.shows(b"ran")
        pod = pod_of(cluster, there.runs()[0])
        delete(cluster, namespace, pod)
        done = client.ended(150)
    assert (done.code, end_of(there)) == (125, (125, "lost")), done.err
    assert done.out.startswith(b"ran\n")
    assert there.result("saved") == b"saved\n"


def test_a_job_without_an_example_is_not_started_again(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    told: list[str] = []

    def heard(chunk: LogChunk) -> None:
        told.append(chunk.data.decode())
        for pod in kube.client(cluster).items(api_path("pods", namespace)):
            delete(cluster, namespace, pod["metadata"]["name"])

    status = K8sRunner(namespace=namespace).run(
        image=cluster.image,
        command=["sh", "-c", f"trap 'exit 7' TERM; echo ran; {FOREVER}"],
        timeout_minutes=5,
        on_output=heard,
    )
    assert (int(status), status.cause) == (125, "lost"), status
    assert "".join(told).count("ran\n") == 1
    assert not ours(cluster, status.run_id)


@pytest.mark.kube
def test_a_job_that_is_drained_while_detached_runs_once(
    real_cluster: RealCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(real_cluster) as namespace:
        calling = desk(tmp_path, real_cluster, namespace)
        run = calling.sh(f"echo ran; {FOREVER}", "-d").out.decode().strip()
        pod = pod_of(real_cluster, run)
        with cordoned(real_cluster):
            drain(real_cluster)
        wait_for(lambda: [p for p in pods_of(real_cluster, run) if p["metadata"]["name"] != pod])
        second = next(p for p in pods_of(real_cluster, run) if p["metadata"]["name"] != pod)
        name = second["metadata"]["name"]
        wait_for(
            lambda: next(
                p["status"]["phase"] == "Failed"
                for p in pods_of(real_cluster, run)
                if p["metadata"]["name"] == name
            )
        )
        log = kube.log(real_cluster, namespace, name)
        assert "ran\n" not in log
        assert "does not run a second time" in log
        end = calling.cvl("attach", run)
        assert (end.code, end_of(calling)) == (125, (125, "lost")), end.err
        assert "a job runs once" in end.err
        assert not ours(real_cluster, run)


@pytest.mark.kube
def test_a_drained_node_is_told(real_cluster: RealCluster, tmp_path: Path) -> None:
    with kube.fresh_namespace(real_cluster) as namespace:
        calling = desk(tmp_path, real_cluster, namespace)
        script = f"{ENDS}; echo ran; {FOREVER}"
        with calling.start("run", *calling.options, "one", "sh", script) as client:
            client.shows(b"ran")
            with cordoned(real_cluster):
                drain(real_cluster)
                done = client.ended(150)
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert "node node1 is being drained" in done.err
        assert calling.result("saved") == b"saved\n"
        assert not ours(real_cluster, calling.runs()[0])


@pytest.mark.kube
def test_a_taint_that_ends_pods_is_told(real_cluster: RealCluster, tmp_path: Path) -> None:
    with kube.fresh_namespace(real_cluster) as namespace:
        calling = desk(tmp_path, real_cluster, namespace)
        with calling.start("run", *calling.options, "one", "sh", f"echo ran; {FOREVER}") as client:
            client.shows(b"ran")
            words = ("taint", "node", real_cluster.node)
            real_cluster.kubectl(*words, "test=away:NoExecute")
            try:
                done = client.ended(150)
            finally:
                real_cluster.kubectl(*words, "test-")
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert "TaintManagerEviction" in done.err
        assert not ours(real_cluster, calling.runs()[0])


@pytest.mark.kube
def test_a_preemption_is_told(real_cluster: RealCluster, tmp_path: Path) -> None:
    api = "scheduling.k8s.io/v1"
    urgent = {"apiVersion": api, "kind": "PriorityClass", "value": 1000}
    gpu = {"limits": {"nvidia.com/gpu": "1"}}
    with (
        kube.fresh_namespace(real_cluster) as namespace,
        real_cluster.capacity("nvidia.com/gpu", 1),
    ):
        name = f"urgent-{namespace}"
        kube.client(real_cluster).create(
            f"/apis/{api}/priorityclasses", {**urgent, "metadata": {"name": name}}
        )
        calling = desk(tmp_path, real_cluster, namespace, "--gpu", "1")
        with calling.start("run", *calling.options, "one", "sh", f"echo ran; {FOREVER}") as client:
            client.shows(b"ran")
            container = {"name": "c", "image": real_cluster.image, "resources": gpu}
            spec = {"containers": [{**container, "command": ["true"]}], "priorityClassName": name}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "urgent"}}
            kube.apply(
                real_cluster, {**pod, "spec": {**spec, "restartPolicy": "Never"}}, at=namespace
            )
            done = client.ended(150)
        real_cluster.kubectl("delete", "priorityclass", name)
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert "Preempted" in done.err
        assert not ours(real_cluster, calling.runs()[0])


def twin(cluster: Cluster, pod: Object) -> str:
    """Start another pod just like this one, as old Job controllers do; return its name."""
    meta = {key: pod["metadata"][key] for key in ("labels", "annotations")}
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    name = f"{pod['metadata']['name']}-again"
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": name}, "spec": spec}
    kube.apply(cluster, made, at=pod["metadata"]["namespace"])
    return name


def test_a_second_pod_of_one_node_runs_nothing(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace, "--nodes", "2")
        script = f"{ENDS}; echo ran $NODE_RANK; {FOREVER}"
        run = calling.sh(script, "-d").out.decode().strip()
        wait_for(lambda: all(p["status"]["phase"] == "Running" for p in pods_of(fake_cluster, run)))
        every = pods_of(fake_cluster, run)
        second = next(pod for pod in every if pod["metadata"]["name"].rpartition("-")[0][-1] == "1")
        name = twin(fake_cluster, second)
        place, api = f"{api_path('pods', namespace)}/{name}", kube.client(fake_cluster)
        wait_for(lambda: api.get(place)["status"]["phase"] == "Failed")
        log = kube.log(fake_cluster, namespace, name)
        assert "does not run a second time" in log
        assert "ran" not in log.split()
        with calling.start("attach", run) as client:
            client.shows(b"[1] ran 1")
            delete(fake_cluster, namespace, second["metadata"]["name"])
            done = client.ended(150)
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert "node 1" in done.err
        assert b"ran 0" in done.out
        with suppress(Missing):
            delete(fake_cluster, namespace, name)
        wait_for(lambda: not pods_of(fake_cluster, run))
        assert not ours(fake_cluster, run)


def test_a_job_that_a_queue_suspends_is_not_resumed(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace)
        script = f"{ENDS}; echo ran; {FOREVER}"
        with calling.start("run", *calling.options, "one", "sh", script) as client:
            client.shows(b"ran")
            job = f"{api_path('jobs', namespace)}/cvl-{calling.runs()[0]}"
            kube.client(fake_cluster).patch(job, {"spec": {"suspend": True}})
            done = client.ended(150)
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert "its Job was suspended" in done.err
        assert not ours(fake_cluster, calling.runs()[0])


def test_a_job_that_a_queue_resumes_while_nobody_looks_runs_once(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace)
        run = calling.sh(f"{ENDS}; echo ran; {FOREVER}", "-d").out.decode().strip()
        pod, job = pod_of(fake_cluster, run), f"{api_path('jobs', namespace)}/cvl-{run}"
        api, log = kube.client(fake_cluster), (fake_cluster, namespace, pod)
        wait_for(lambda: "ran" in kube.log(*log))
        api.patch(job, {"spec": {"suspend": True}})
        wait_for(lambda: "exit code 9 (stopped)" in kube.log(*log))
        api.patch(job, {"spec": {"suspend": False}})
        end = calling.cvl("attach", run)
        assert (end.code, end_of(calling)) == (125, (125, "lost")), end.err
        assert "its Job was suspended and resumed" in end.err
        assert end.out.count(b"ran\n") == 1
        assert not ours(fake_cluster, run)


def test_a_pod_on_a_silent_node_is_given_up_when_the_cluster_does(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace)
        with calling.start("run", *calling.options, "one", "sh", f"echo ran; {FOREVER}") as client:
            client.shows(b"ran")
            pod = pod_of(fake_cluster, calling.runs()[0])
            with fake_cluster.lost_node():
                delete(fake_cluster, namespace, pod)
                client.says("the results of node 0 are lost with its pod")
            done = client.ended(200)
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert "node1 is not ready" in done.err
        assert not ours(fake_cluster, calling.runs()[0])


@pytest.mark.kube
def test_a_container_that_its_node_has_forgotten_is_not_started_again(
    real_cluster: RealCluster, tmp_path: Path
) -> None:
    """Somebody tidies up over there: a kubelet that finds no container of a pod starts it anew."""
    with kube.fresh_namespace(real_cluster) as namespace:
        calling = desk(tmp_path, real_cluster, namespace)
        with calling.start("run", *calling.options, "one", "sh", f"echo ran; {FOREVER}") as client:
            client.shows(b"ran")
            pod = pod_of(real_cluster, calling.runs()[0])
            own = real_cluster.engine.docker("ps", "-aq", "--filter", f"name={pod}")
            real_cluster.holder.order("lose")  # or it may see how they end, between kill and rm
            try:
                real_cluster.engine.docker("rm", "-f", *own.split())
            finally:
                real_cluster.holder.order("return")
            done = client.ended(150)
        assert (done.code, end_of(calling)) == (125, (125, "lost")), done.err
        assert done.out.count(b"ran\n") == 1
        assert "its container was started a second time" in done.err
        assert not ours(real_cluster, calling.runs()[0])


def test_who_leaves_before_there_is_a_pod_is_told_what_that_means(
    fake_cluster: KubernetesCluster, tmp_path: Path
) -> None:
    with kube.fresh_namespace(fake_cluster) as namespace:
        calling = desk(tmp_path, fake_cluster, namespace)
        noted = calling.sh("true", "-d")
        assert "a second time" not in noted.err
        kube.quota(fake_cluster, namespace, pods="0")
        late = calling.sh("true", "-d")
        assert late.code == 0, late.err
        run = late.out.decode().strip()
        assert f"until `cvl attach {run}` has seen it" in late.err
        assert calling.cvl("stop", run).code == 0
        assert calling.cvl("attach", noted.out.decode().strip()).code == 0
        assert not ours(fake_cluster)
