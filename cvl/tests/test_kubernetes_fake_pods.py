"""Pods of the fake cluster: real containers, their logs, their environment and their ends."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from http.client import HTTPException

import pytest

from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import Fault, KubernetesCluster, Settings, What
from cvl.testing.kubernetes.objects import at
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, pod, secret, until

pytestmark = pytest.mark.docker
SECRETS = "/api/v1/namespaces/default/secrets"
SETTINGS = Settings(pull_backoff=0.2)


@pytest.fixture(scope="module")
def shared(shared_engine: Engine) -> Iterator[KubernetesCluster]:
    with KubernetesCluster(SETTINGS, engine=shared_engine) as made:
        yield made
    assert ours(shared_engine) == []


@pytest.fixture
def cluster(shared: KubernetesCluster) -> Iterator[KubernetesCluster]:
    yield shared
    shared.world.faults.clear()
    client = Client(shared)
    for path in (JOBS, PODS, SECRETS):
        for name in client.names(path):
            gone = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
            client.call("DELETE", f"{path}/{name}", gone)
    until(lambda: client.names(PODS) == [])
    assert shared.violations == []


@pytest.fixture
def client(cluster: KubernetesCluster) -> Client:
    return Client(cluster)


def ours(engine: Engine) -> list[str]:
    """Return the containers of these tests: the engine may have others too."""
    return [name for name in engine.containers(pods=True) if "_default_" in name]


def shell(cluster: KubernetesCluster, script: str, name: str = "p", **more: object) -> Obj:
    """Return a pod that runs a script; `more` goes into its container, `spec` into its spec."""
    spec = more.pop("spec", {})
    made = pod(name, cluster.image)
    container = {"imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script], **more}
    made["spec"]["containers"][0] |= container
    made["spec"] |= {"terminationGracePeriodSeconds": 1, **(spec if isinstance(spec, dict) else {})}
    return made


def start(client: Client, made: Obj) -> str:
    """Make a pod; return its path."""
    return f"{PODS}/{client.ok('POST', PODS, made)['metadata']['name']}"


def over(client: Client, path: str) -> Obj:
    """Return a pod when it has ended, and its containers with it: the phase may tell first."""

    def ended() -> bool:
        status = client.ok("GET", path)["status"]
        states = [each["state"] for each in status.get("containerStatuses", ())]
        running = any("running" in each for each in states)
        return status["phase"] in ("Succeeded", "Failed") and not running

    until(ended)
    return client.ok("GET", path)


def running(client: Client, path: str) -> Obj:
    until(lambda: client.ok("GET", path)["status"]["phase"] == "Running")
    return client.ok("GET", path)


def log(client: Client, path: str, **query: object) -> bytes:
    status, data = client.raw("GET", f"{path}/log", **query)
    assert status == 200, data
    return data


def waiting(client: Client, path: str, reason: str) -> Obj:
    """Return the waiting state of a container, once it is that."""

    def found() -> Obj:
        statuses = client.ok("GET", path)["status"].get("containerStatuses") or [{}]
        return at(statuses[0], "state", "waiting") or {}

    until(lambda: found().get("reason") == reason)
    return found()


# --- ends


def test_deleting_a_pod_is_term_the_grace_and_kill(
    cluster: KubernetesCluster, client: Client
) -> None:
    gentle = start(client, shell(cluster, "trap 'exit 0' TERM; while :; do sleep 0.1; done"))
    deaf = start(client, shell(cluster, "trap '' TERM; while :; do sleep 0.1; done", "deaf"))
    running(client, gentle)
    running(client, deaf)
    time.sleep(0.3)  # let the shells set their traps
    started = time.monotonic()
    made = client.ok("DELETE", gentle, {"gracePeriodSeconds": 60})
    assert made["metadata"]["deletionGracePeriodSeconds"] == 60
    client.ok("DELETE", deaf, {"gracePeriodSeconds": 2})
    until(lambda: client.names(PODS) == ["deaf"])
    assert time.monotonic() - started < 30
    until(lambda: client.names(PODS) == [])
    assert time.monotonic() - started >= 2
    until(lambda: ours(cluster.engine) == [])


def test_a_pod_deleted_by_force_is_gone_at_once(cluster: KubernetesCluster, client: Client) -> None:
    path = start(client, shell(cluster, "trap '' TERM; while :; do sleep 0.1; done"))
    running(client, path)
    client.ok("DELETE", path, {"gracePeriodSeconds": 0})
    assert client.names(PODS) == []
    until(lambda: ours(cluster.engine) == [])


def test_two_containers_are_one_pod(cluster: KubernetesCluster, client: Client) -> None:
    made = shell(cluster, "echo ping | nc -l -p 5000")
    other = {
        "name": "other",
        "command": ["sh", "-c", "until nc 127.0.0.1 5000; do sleep 0.1; done"],
    }
    made["spec"]["containers"].append({**made["spec"]["containers"][0], **other})
    path = start(client, made)
    assert over(client, path)["status"]["phase"] == "Succeeded"
    assert b"ping\n" in log(client, path, container="other")
    told = client.refused("GET", f"{path}/log")[2]
    assert told == "a container name must be specified for pod p, choose one of: [main other]"
    assert "not valid for pod p" in client.refused("GET", f"{path}/log", container="x")[2]


def test_who_has_ended_is_told_while_others_still_end(
    cluster: KubernetesCluster, client: Client
) -> None:
    made = shell(cluster, "trap 'exit 9' TERM; while :; do sleep 0.1; done")
    (main,) = made["spec"]["containers"]
    deaf = {
        **main,
        "name": "deaf",
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    }
    made["spec"]["containers"].append(deaf)
    path = start(client, made)
    running(client, path)
    time.sleep(0.3)  # let the shells set their traps
    client.ok("DELETE", path, {"gracePeriodSeconds": 60})

    def codes() -> list[object]:
        statuses = client.ok("GET", path)["status"]["containerStatuses"]
        return [at(each, "state", "terminated", "exitCode") for each in statuses]

    until(lambda: codes() == [9, None])
    client.ok("DELETE", path, {"gracePeriodSeconds": 1})
    until(lambda: client.names(PODS) == [])


# --- what containers see


def test_the_environment_and_the_command_are_expanded(
    cluster: KubernetesCluster, client: Client
) -> None:
    client.ok("POST", SECRETS, secret(KEY="s3cret"))
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$$(A)-$(NONE)"},
        {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['n']"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "KEY"}}},
    ]
    made = shell(cluster, "", env=env)
    made["metadata"]["annotations"] = {"n": "x"}
    main = made["spec"]["containers"][0]
    main["command"] = ["sh", "-c", 'env | sort; for a; do echo "<$a>"; done', "sh"]
    main["args"] = ["$(A)", "$$(A)", "a b", "", "$(KEY)", "é\n;$x"]
    main["workingDir"] = "/proc"
    path = start(client, made)
    uid = over(client, path)["metadata"]["uid"]
    told = log(client, path).decode()
    for line in (
        *("A=1", "B=1-$(A)-$(NONE)", f"UID={uid}", "NOTE=x", "KEY=s3cret"),
        *("PWD=/proc", "HOSTNAME=p"),
    ):
        assert f"{line}\n" in told
    assert told.endswith("<1>\n<$(A)>\n<a b>\n<>\n<s3cret>\n<é\n;$x>\n")


def test_volumes_hold_what_they_are_told_to(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", SECRETS, secret(a="secret a", b="secret b"))
    items = [{"key": "a", "path": "deep/a", "mode": 0o400}]
    absent = {"secretName": "s", "optional": True, "items": [{"key": "no", "path": "no"}]}
    volumes = [
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "some", "projected": {"sources": [{"secret": {"name": "s", "items": items}}]}},
        {"name": "absent", "secret": absent},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "work", "emptyDir": {}},
    ]
    places = {"s": "/s", "some": "/some", "absent": "/no", "shm": "/dev/shm", "work": "/work"}
    mounts = [{"name": name, "mountPath": place} for name, place in places.items()]
    script = (
        "exec 2>&1; cat /s/a; echo; cat /some/deep/a; echo; stat -c %a /some/deep/a; ls /some /no;"
        " echo w > /work/x; cat /work/x; echo no > /s/a; df -k /dev/shm | tail -1 | cut -c1-5;"
        " dd if=/dev/zero of=/dev/shm/x bs=1M count=9 2>/dev/null || echo full"
    )
    path = start(client, shell(cluster, script, volumeMounts=mounts, spec={"volumes": volumes}))
    over(client, path)
    told = log(client, path).decode()
    assert told.startswith("secret a\nsecret a\n400\n/no:\n\n/some:\ndeep\nw\n")
    assert "Read-only file system" in told
    assert told.endswith("tmpfs\nfull\n")


def test_what_is_not_there_yet_is_waited_for(cluster: KubernetesCluster, client: Client) -> None:
    key = {"secretKeyRef": {"name": "t", "key": "b"}}
    more: Obj = {
        "env": [{"name": "B", "valueFrom": key}],
        "volumeMounts": [{"name": "s", "mountPath": "/s"}],
        "spec": {"volumes": [{"name": "s", "secret": {"secretName": "s"}}]},
    }
    path = start(client, shell(cluster, "cat /s/a; echo $B", **more))
    waiting(client, path, "ContainerCreating")
    client.ok("POST", SECRETS, secret(a="here "))
    assert waiting(client, path, "CreateContainerConfigError")["message"] == 'secret "t" not found'
    client.ok("POST", SECRETS, secret("t", b="too"))
    over(client, path)
    assert log(client, path) == b"here too\n"


# --- logs


def test_a_log_has_the_bytes_as_they_are(cluster: KubernetesCluster, client: Client) -> None:
    data = bytes(range(256)) * 3 + b"\n" + b"y" * 100_000 + b"\r\x00\xff\n\xc3"
    volumes = [{"name": "v", "secret": {"secretName": "s"}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    client.ok("POST", SECRETS, {**secret(), "data": {"x": base64.b64encode(data).decode()}})
    path = start(client, shell(cluster, "cat /v/x", volumeMounts=mounts, spec={"volumes": volumes}))
    over(client, path)
    assert log(client, path) == data
    stamped = log(client, path, timestamps="true")
    assert len(stamped) - len(data) == 31 * (data.count(b"\n") + 1)


def test_a_log_that_is_tailed_and_followed_misses_nothing(
    cluster: KubernetesCluster, client: Client
) -> None:
    path = start(client, shell(cluster, "for i in 1 2 3; do echo $i; done; sleep 2; echo 4"))
    until(lambda: client.raw("GET", f"{path}/log") == (200, b"1\n2\n3\n"))
    assert log(client, path, follow="true", tailLines=1) == b"3\n4\n"


def test_two_clusters_share_an_engine(shared_engine: Engine) -> None:
    clusters = [KubernetesCluster(engine=shared_engine) for _ in range(2)]
    try:
        for each in clusters:
            client = Client(each)
            path = start(client, shell(each, "echo here"))
            over(client, path)
            assert log(client, path) == b"here\n"
        networks = shared_engine.docker("network", "ls", "--format", "{{.Name}}").split()
        assert len([name for name in networks if name.startswith("cvl-kube-")]) >= 2
    finally:
        for each in clusters:
            each.close()


def test_a_log_stream_that_drops_is_broken(cluster: KubernetesCluster, client: Client) -> None:
    path = start(client, shell(cluster, "echo 0123456789"))
    over(client, path)
    cluster.inject(Fault(what=What.STREAM_DROPS, on="get pods/log", count=4))
    with pytest.raises((OSError, HTTPException)):
        log(client, path)
    assert log(client, path) == b"0123456789\n"


def test_a_log_stream_that_ends_too_early_looks_whole(
    cluster: KubernetesCluster, client: Client
) -> None:
    path = start(client, shell(cluster, "echo 0123456789"))
    over(client, path)
    cluster.inject(Fault(what=What.STREAM_ENDS, on="get pods/log", count=4))
    assert log(client, path) == b"0123"
    assert log(client, path) == b"0123456789\n"


# --- networks and nodes


def test_a_pod_on_a_lost_node(cluster: KubernetesCluster, client: Client) -> None:
    path = start(client, shell(cluster, "sleep 1; echo on"))
    running(client, path)
    with cluster.lost_node():
        assert client.ok("GET", path)["status"]["phase"] == "Running"
        status, _, message = client.refused("GET", f"{path}/log")
        assert status == 500
        assert "connect: connection refused" in message
        client.ok("DELETE", path)
        time.sleep(1.5)
        assert "deletionTimestamp" in client.ok("GET", path)["metadata"]
    until(lambda: client.names(PODS) == [])
