"""Pods of the fake cluster: real containers, their logs, their environment and their ends."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from http.client import HTTPException

import pytest

from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import FAULTS, Fault, KubernetesCluster, Settings, What
from cvl.testing.kubernetes.objects import at, condition, nanoseconds_of
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, job, pod, secret, until

pytestmark = pytest.mark.docker
SECRETS, MAPS = "/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/configmaps"
SETTINGS = Settings(pull_backoff=0.2, restart_backoff=0.2)


@pytest.fixture(scope="module")
def shared(shared_engine: Engine) -> Iterator[KubernetesCluster]:
    with KubernetesCluster(SETTINGS, engine=shared_engine) as made:
        yield made
    assert ours(shared_engine) == []


@pytest.fixture
def cluster(shared: KubernetesCluster) -> Iterator[KubernetesCluster]:
    yield shared
    shared.clear_faults()
    client = Client(shared)
    for path in (JOBS, PODS, SECRETS, MAPS):
        client.ok("DELETE", path, propagationPolicy="Background", gracePeriodSeconds=0)
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


def state(made: Obj) -> Obj:
    return dict(made["status"]["containerStatuses"][0]["state"])


def waiting(client: Client, path: str, *reasons: str) -> Obj:
    """Return the waiting state of a container, once it is one of these."""

    def found() -> Obj:
        statuses = client.ok("GET", path)["status"].get("containerStatuses") or [{}]
        return at(statuses[0], "state", "waiting") or {}

    until(lambda: found().get("reason") in reasons)
    return found()


# --- ends


def test_a_container_runs_and_its_exit_code_is_told(
    cluster: KubernetesCluster, client: Client
) -> None:
    path = start(client, shell(cluster, "echo out; echo err >&2; exit 7"))
    made = over(client, path)
    ended = state(made)["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (7, "Error")
    assert made["status"]["phase"] == "Failed"
    assert made["status"]["podIP"]
    assert made["status"]["startTime"]
    assert sorted(log(client, path).splitlines()) == [b"err", b"out"]
    assert log(client, path, stream="Stderr") == b"err\n"


def test_a_job_runs_to_its_end(cluster: KubernetesCluster, client: Client) -> None:
    wanted = shell(cluster, "echo done")["spec"]
    client.ok("POST", JOBS, job(template=wanted))
    until(lambda: condition(client.ok("GET", f"{JOBS}/j"), "Complete"))
    (name,) = client.names(PODS)
    assert log(client, f"{PODS}/{name}") == b"done\n"
    client.ok("DELETE", f"{JOBS}/j", propagationPolicy="Background")
    until(lambda: client.names(PODS) == [])
    until(lambda: ours(cluster.engine) == [])


def test_a_container_that_takes_too_much_memory(cluster: KubernetesCluster, client: Client) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    ended = state(
        over(client, start(client, shell(cluster, "exec tail /dev/zero", resources=limits)))
    )
    assert ended["terminated"]["reason"] == "OOMKilled"
    assert ended["terminated"]["exitCode"] == 137


def test_a_pods_deadline(cluster: KubernetesCluster, client: Client) -> None:
    script = "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    path = start(client, shell(cluster, script, spec={"activeDeadlineSeconds": 3}))
    made = over(client, path)
    assert (made["status"]["phase"], made["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert made["status"]["message"].startswith("Pod was active on the node longer than")
    assert state(made)["terminated"]["exitCode"] == 3
    assert log(client, path) == b"up\nterm\n"


def test_deleting_a_pod_is_term_the_grace_and_kill(
    cluster: KubernetesCluster, client: Client
) -> None:
    gentle = start(client, shell(cluster, "trap 'exit 0' TERM; while :; do sleep 0.1; done"))
    deaf = start(client, shell(cluster, "trap '' TERM; while :; do sleep 0.1; done", "deaf"))
    running(client, gentle)
    running(client, deaf)
    time.sleep(0.3)  # let the shells set their traps
    started = time.monotonic()
    made = client.ok("DELETE", gentle, gracePeriodSeconds=60)
    assert made["metadata"]["deletionGracePeriodSeconds"] == 60
    client.ok("DELETE", deaf, gracePeriodSeconds=2)
    until(lambda: client.names(PODS) == ["deaf"])
    assert time.monotonic() - started < 30
    until(lambda: client.names(PODS) == [])
    assert time.monotonic() - started >= 2
    until(lambda: ours(cluster.engine) == [])


def test_a_pod_deleted_by_force_is_gone_at_once(cluster: KubernetesCluster, client: Client) -> None:
    path = start(client, shell(cluster, "trap '' TERM; while :; do sleep 0.1; done"))
    running(client, path)
    client.ok("DELETE", path, gracePeriodSeconds=0)
    assert client.names(PODS) == []
    until(lambda: ours(cluster.engine) == [])


def test_an_evicted_pod_says_so(cluster: KubernetesCluster, client: Client) -> None:
    cluster.inject(FAULTS["evicted"])
    made = over(client, start(client, shell(cluster, "while :; do sleep 0.1; done")))
    assert (made["status"]["phase"], made["status"]["reason"]) == ("Failed", "Evicted")
    assert "ephemeral local storage usage exceeds" in made["status"]["message"]


def test_a_container_is_restarted_where_it_is_told_to(
    cluster: KubernetesCluster, client: Client
) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = "echo x >> /v/n; n=$(wc -l < /v/n); echo try $n; [ $n -ge 3 ]"
    spec = {"restartPolicy": "OnFailure", "volumes": volumes}
    path = start(client, shell(cluster, script, volumeMounts=mounts, spec=spec))
    made = over(client, path)
    assert made["status"]["phase"] == "Succeeded"
    status = made["status"]["containerStatuses"][0]
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert log(client, path) == b"try 3\n"
    assert log(client, path, previous="true") == b"try 2\n"


def test_there_is_no_previous_log_of_what_was_never_restarted(
    cluster: KubernetesCluster, client: Client
) -> None:
    path = start(client, shell(cluster, "true"))
    over(client, path)
    told = client.refused("GET", f"{path}/log", previous="true")
    assert told[0] == 400
    assert told[2] == 'previous terminated container "main" in pod "p" not found'


def test_containers_of_the_beginning_come_first(cluster: KubernetesCluster, client: Client) -> None:
    made = shell(cluster, "cat /v/a", spec={"volumes": [{"name": "v", "emptyDir": {}}]})
    main = made["spec"]["containers"][0]
    main["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    made["spec"]["initContainers"] = [
        {**main, "name": "first", "command": ["sh", "-c", "echo one > /v/a; sleep 0.5"]},
        {**main, "name": "second", "command": ["sh", "-c", "echo two >> /v/a"]},
    ]
    path = start(client, made)
    ended = over(client, path)
    assert ended["status"]["phase"] == "Succeeded"
    assert log(client, path) == b"one\ntwo\n"
    assert [each["ready"] for each in ended["status"]["initContainerStatuses"]] == [True, True]
    assert log(client, path, container="first") == b""


def test_a_beginning_that_fails_is_the_end(cluster: KubernetesCluster, client: Client) -> None:
    made = shell(cluster, "echo never")
    made["spec"]["initContainers"] = [
        {**made["spec"]["containers"][0], "name": "first", "command": ["sh", "-c", "exit 5"]}
    ]
    path = start(client, made)
    ended = over(client, path)
    assert ended["status"]["phase"] == "Failed"
    assert ended["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
    told = client.refused("GET", f"{path}/log", container="main")
    assert told[2] == 'container "main" in pod "p" is waiting to start: PodInitializing'


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


# --- images and configuration that are not there


def test_images_that_cannot_be_had(cluster: KubernetesCluster, client: Client) -> None:
    wanted = shell(cluster, "true", "pull", image="127.0.0.1:1/nope:1")
    path = start(client, wanted)
    assert waiting(client, path, "ErrImagePull")["message"].startswith("Failed to pull image")
    told = client.refused("GET", f"{path}/log")[2]
    assert told.partition("waiting to start: ")[2] in (
        "image can't be pulled",
        "trying and failing to pull image",
    )
    waiting(client, path, "ImagePullBackOff")
    never = start(client, shell(cluster, "true", "never", image="nope:1", imagePullPolicy="Never"))
    assert (
        "is not present with pull policy of Never"
        in waiting(client, never, "ErrImageNeverPull")["message"]
    )
    invalid = start(client, shell(cluster, "true", "bad", image="UPPER CASE"))
    assert "invalid reference format" in waiting(client, invalid, "InvalidImageName")["message"]
    always = start(client, shell(cluster, "true", "always", imagePullPolicy="Always"))
    waiting(client, always, "ErrImagePull", "ImagePullBackOff")


def test_an_image_that_comes_at_last(cluster: KubernetesCluster, client: Client) -> None:
    cluster.inject(Fault(what=What.NO_PULL, on="pull", times=2))
    engine = cluster.engine
    engine.docker("tag", engine.image, "late:1")
    try:
        path = start(client, shell(cluster, "echo here", image="late:1", imagePullPolicy="Never"))
        assert over(client, path)["status"]["phase"] == "Succeeded"
    finally:
        engine.docker("rmi", "late:1")
    path = start(client, shell(cluster, "echo here", "q", image="later:1"))
    waiting(client, path, "ImagePullBackOff")
    engine.docker("tag", engine.image, "later:1")
    try:
        assert over(client, path)["status"]["phase"] == "Succeeded"
    finally:
        client.ok("DELETE", path, gracePeriodSeconds=0)
        until(lambda: client.names(PODS) == ["p"])
        engine.docker("rmi", "-f", "later:1")


def test_configuration_that_is_not_there(cluster: KubernetesCluster, client: Client) -> None:
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}}]
    path = start(client, shell(cluster, "echo $A", env=env))
    assert waiting(client, path, "CreateContainerConfigError")["message"] == 'secret "s" not found'
    assert "waiting to start" in client.refused("GET", f"{path}/log")[2]
    client.ok("POST", SECRETS, secret(b="x"))
    until(
        lambda: (
            waiting(client, path, "CreateContainerConfigError")["message"]
            == "couldn't find key a in Secret default/s"
        )
    )
    client.patch(f"{SECRETS}/s", {"stringData": {"a": "at last"}})
    assert over(client, path)["status"]["phase"] == "Succeeded"
    assert log(client, path) == b"at last\n"


def test_a_command_that_is_not_there(cluster: KubernetesCluster, client: Client) -> None:
    made = over(client, start(client, shell(cluster, "", command=["/no/such/program"])))
    ended = state(made)["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (127, "ContainerCannotRun")
    assert "/no/such/program" in ended["message"]


# --- what containers see


def test_the_environment_and_the_command_are_expanded(
    cluster: KubernetesCluster, client: Client
) -> None:
    client.ok("POST", SECRETS, secret(KEY="s3cret", OTHER="o"))
    client.ok(
        "POST",
        MAPS,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"K": "v"}},
    )
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$$(A)-$(NONE)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['l']"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {
            "name": "MEM",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
        },
        {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "K"}}},
    ]
    made = shell(cluster, "", env=env, envFrom=[{"prefix": "S_", "secretRef": {"name": "s"}}])
    made["metadata"]["labels"] = {"l": "x"}
    main = made["spec"]["containers"][0]
    main["command"] = ["sh", "-c", 'env | sort; for a; do echo "<$a>"; done', "sh"]
    main["args"] = ["$(A)", "$$(A)", "a b", "", "$(S_KEY)", "é\n;$x"]
    main["resources"] = {"limits": {"memory": "64Mi"}}
    main["workingDir"] = "/proc"
    path = start(client, made)
    ended = over(client, path)
    told = log(client, path).decode()
    for line in (
        "A=1", "B=1-$(A)-$(NONE)", "NAME=p", "LABEL=x", "MEM=64", "K=v", "S_KEY=s3cret",
        "S_OTHER=o", "PWD=/proc", f"IP={ended['status']['podIP']}", "HOSTNAME=p",
    ):  # fmt: skip
        assert f"{line}\n" in told
    assert told.endswith("<1>\n<$(A)>\n<a b>\n<>\n<s3cret>\n<é\n;$x>\n")


def test_volumes_hold_what_they_are_told_to(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", SECRETS, secret(a="secret a", b="secret b"))
    files = {"name": "m"}
    client.ok(
        "POST",
        MAPS,
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": files,
            "data": {"text": "t"}, "binaryData": {"bin": "AP8="},
        },
    )  # fmt: skip
    sources = [
        {"secret": {"name": "s", "items": [{"key": "a", "path": "deep/a", "mode": 0o400}]}},
        {"configMap": files},
        {"downwardAPI": {"items": [{"path": "me", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"serviceAccountToken": {"path": "token"}},
    ]
    volumes = [
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "all", "projected": {"sources": sources}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "work", "emptyDir": {}},
    ]
    places = {"s": "/s", "all": "/all", "shm": "/dev/shm", "work": "/work"}
    mounts = [{"name": name, "mountPath": place} for name, place in places.items()]
    mounts.append({"name": "all", "mountPath": "/one", "subPath": "text"})
    script = (
        "cat /s/a; echo; cat /all/deep/a; echo; stat -c %a /all/deep/a; cat /all/me; echo;"
        " od -An -tx1 /all/bin; cat /one; echo; echo w > /work/x; cat /work/x;"
        " echo no > /s/a; df -k /dev/shm | tail -1 | cut -c1-5; test -s /all/token && echo token;"
        " dd if=/dev/zero of=/dev/shm/x bs=1M count=9 2>/dev/null || echo full"
    )
    path = start(client, shell(cluster, script, volumeMounts=mounts, spec={"volumes": volumes}))
    over(client, path)
    told = log(client, path, stream="Stdout").decode()
    assert told.split("\n")[:4] == ["secret a", "secret a", "400", "p"]
    assert " 00 ff\nt\nw\ntmpfs\ntoken\nfull\n" in told
    assert b"Read-only file system" in log(client, path, stream="Stderr")


def test_a_volume_that_is_not_there_yet(cluster: KubernetesCluster, client: Client) -> None:
    volumes = [{"name": "s", "secret": {"secretName": "s"}}]
    mounts = [{"name": "s", "mountPath": "/s"}]
    path = start(client, shell(cluster, "cat /s/a", volumeMounts=mounts, spec={"volumes": volumes}))
    waiting(client, path, "ContainerCreating")
    told = client.refused("GET", f"{path}/log")[2]
    assert told == 'container "main" in pod "p" is waiting to start: ContainerCreating'
    client.ok("POST", SECRETS, secret(a="here"))
    over(client, path)
    assert log(client, path) == b"here"


def test_the_last_words_of_a_container(cluster: KubernetesCluster, client: Client) -> None:
    made = over(client, start(client, shell(cluster, "echo why > /dev/termination-log; exit 1")))
    assert state(made)["terminated"]["message"] == "why\n"


# --- logs


def test_a_log_has_the_bytes_as_they_are(cluster: KubernetesCluster, client: Client) -> None:
    volumes = [{"name": "v", "configMap": {"name": "m"}}]
    data = bytes(range(256)) * 3 + b"\n" + b"y" * 100_000 + b"\r\x00\xff\n\xc3"
    client.ok(
        "POST",
        MAPS,
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
            "binaryData": {"x": base64.b64encode(data).decode()},
        },
    )  # fmt: skip
    mounts = [{"name": "v", "mountPath": "/v"}]
    path = start(client, shell(cluster, "cat /v/x", volumeMounts=mounts, spec={"volumes": volumes}))
    over(client, path)
    assert log(client, path) == data
    stamped = log(client, path, timestamps="true")
    assert (
        b"".join(
            line.split(b" ", 1)[1]
            for line in stamped.splitlines(keepends=True)
            if line.startswith(b"20")
        )
        != b""
    )


def test_what_of_a_log_is_wanted(cluster: KubernetesCluster, client: Client) -> None:
    script = "for i in 1 2 3; do echo $i; done; sleep 2; echo 4; sleep 1.2; echo 5"
    path = start(client, shell(cluster, script))
    over(client, path)
    assert log(client, path) == b"1\n2\n3\n4\n5\n"
    assert log(client, path, tailLines=2) == b"4\n5\n"
    assert log(client, path, tailLines=0) == b""
    assert log(client, path, limitBytes=3) == b"1\n2"
    stamped = [
        line.split(" ") for line in log(client, path, timestamps="true").decode().splitlines()
    ]
    assert [line for _, line in stamped] == ["1", "2", "3", "4", "5"]
    times = [nanoseconds_of(stamp) for stamp, _ in stamped]
    assert times == sorted(times)
    assert all(len(stamp.partition(".")[2]) > 4 for stamp, _ in stamped)
    # A time is cut to the second on its way to the node: so more may come than was asked for.
    since = log(client, path, sinceTime=stamped[4][0])
    assert since.endswith(b"5\n")
    assert b"3\n" not in since
    assert log(client, path, sinceSeconds=3600) == b"1\n2\n3\n4\n5\n"
    for wrong in ({"tailLines": -1}, {"limitBytes": 0}, {"sinceSeconds": 0}):
        assert client.refused("GET", f"{path}/log", **wrong)[0] == 422
    both = {"sinceSeconds": 1, "sinceTime": stamped[0][0]}
    assert "at most one of" in client.refused("GET", f"{path}/log", **both)[2]


def test_a_log_is_followed_to_its_end(cluster: KubernetesCluster, client: Client) -> None:
    script = "i=0; while [ $i -lt 20 ]; do echo $i; i=$((i+1)); sleep 0.05; done"
    path = start(client, shell(cluster, script))
    running(client, path)
    whole = b"".join(b"%d\n" % n for n in range(20))
    assert log(client, path, follow="true") == whole
    assert log(client, path, follow="true", tailLines=1) == b"19\n"


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


@pytest.mark.parametrize("split", [False, True])
def test_timestamps_of_long_lines(shared_engine: Engine, *, split: bool) -> None:
    """A line of over 16 KiB comes in parts; older kubelets stamp each of them."""
    with KubernetesCluster(Settings(split_timestamps=split), engine=shared_engine) as cluster:
        client = Client(cluster)
        script = "head -c 40000 /dev/zero | tr '\\0' x; echo"
        path = start(client, shell(cluster, script))
        over(client, path)
        assert log(client, path) == b"x" * 40000 + b"\n"
        stamped = log(client, path, timestamps="true")
        assert stamped.count(b"Z ") == (3 if split else 1)


def test_a_log_stream_that_drops_can_be_resumed(cluster: KubernetesCluster, client: Client) -> None:
    """Byte for byte, over more than fifty drops: by timestamps, as a client has to do it."""
    count = 400
    path = start(
        client, shell(cluster, f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done")
    )
    over(client, path)
    cluster.inject(Fault(what=What.STREAM_DROPS, on="get pods/log", times=60, count=1, spread=900))
    lines: list[bytes] = []
    drops = 0
    while True:
        connection, reply = client.open("GET", f"{path}/log", timestamps="true", follow="true")
        data = b""
        try:
            while more := reply.read1(2**16):
                data += more
        except (OSError, HTTPException):
            drops += 1
        else:
            break
        finally:
            connection.close()
            got = data.split(b"\n")[:-1]
            lines += got[len(lines) :]
    assert drops == 60
    assert [line.split(b" ", 1)[1] for line in lines] == [b"line %d" % n for n in range(count)]


def test_a_log_stream_that_ends_too_early_looks_whole(
    cluster: KubernetesCluster, client: Client
) -> None:
    path = start(client, shell(cluster, "echo 0123456789"))
    over(client, path)
    cluster.inject(Fault(what=What.STREAM_ENDS, on="get pods/log", count=4))
    assert log(client, path) == b"0123"
    assert log(client, path) == b"0123456789\n"


# --- networks and nodes


def test_indexes_reach_each_other_by_name(cluster: KubernetesCluster, client: Client) -> None:
    """The service comes after the pods, as it must: it is owned by their job."""
    script = (
        "if [ $JOB_COMPLETION_INDEX = 0 ]; then echo hello | nc -l -p 5000;"
        " else for i in $(seq 60); do nc j-0.grp 5000 && exit 0; sleep 0.5; done; exit 1; fi"
    )
    wanted = {**shell(cluster, script)["spec"], "subdomain": "grp"}
    indexed = job(template=wanted, completionMode="Indexed", completions=2, parallelism=2)
    client.ok("POST", JOBS, indexed)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "grp"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": "j"},
        },
    }
    client.ok("POST", "/api/v1/namespaces/default/services", service)
    try:
        until(lambda: condition(client.ok("GET", f"{JOBS}/j"), "Complete"), 60)
        second = next(name for name in client.names(PODS) if name.startswith("j-1-"))
        assert log(client, f"{PODS}/{second}").endswith(b"hello\n")
    finally:
        client.ok("DELETE", "/api/v1/namespaces/default/services/grp")


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


def test_pods_do_not_notice_that_the_server_is_away(
    cluster: KubernetesCluster, client: Client
) -> None:
    path = start(client, shell(cluster, "sleep 1; echo on"))
    running(client, path)
    with cluster.cut():
        time.sleep(1.5)
    assert over(client, path)["status"]["phase"] == "Succeeded"
    assert log(client, path) == b"on\n"
