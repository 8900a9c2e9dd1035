"""K8sRunner on the real cluster and on the fake one: the same runs, the same ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cvl.providers.kubernetes.client import api_path
from cvl.runners import K8sRunner
from cvl.testing import conformance, kube
from cvl.testing.cli_harness import FOLDER, Desk, wait_for
from cvl.testing.kube import Cluster
from cvl.testing.kube_cluster import RealCluster
from cvl.tests.kubes import FAST, desk, ours

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]
FOREVER = "while :; do sleep .1; done"


@pytest.fixture
def there(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Desk]:
    """A desk whose runs leave nothing in the cluster."""
    calling = desk(tmp_path, cluster, namespace)
    yield calling
    for run in calling.runs():
        assert not ours(cluster, run)


def cause(calling: Desk) -> object:
    return calling.ps()[0]["cause"]


def test_output_results_and_exit_code_come_back(there: Desk) -> None:
    done = there.sh(
        'echo one; echo two >&2; echo a >a; echo "$TOKEN" >b; ln -s /etc/passwd out; exit 7',
        "-e",
        "TOKEN=x y",
    )
    assert "not brought: 'out': link leads out of the results: '/etc/passwd'" in done.err
    assert (done.code, done.out) == (7, b"one\ntwo\n"), done.err
    assert (there.result("a"), there.result("b")) == (b"a\n", b"x y\n")


def test_text_of_any_shape_is_exact(there: Desk) -> None:
    line = "head -c 100000 /dev/zero | tr '\\0' x"
    done = there.sh(f"printf '10%%\\r20%%\\r\\t\\001é\\n\\n\\n'; {line}; echo; {line}; printf half")
    long = b"x" * 100_000
    assert done.out == "10%\r20%\r\t\x01é\n\n\n".encode() + long + b"\n" + long + b"half"
    assert there.cvl("logs", there.runs()[0]).out == done.out


def test_files_that_no_secrets_hold_are_sent_into_the_pod(there: Desk) -> None:
    data = os.urandom(17 << 20)
    (there.repo / FOLDER / "weights").write_bytes(data)
    want = hashlib.sha256(data).hexdigest()
    done = there.sh("sha256sum weights; echo new >out")
    assert (done.code, done.out.split()[:1]) == (0, [want.encode()]), done.err
    assert "they are sent into the pod once it runs" in done.err
    assert there.result("out") == b"new\n"
    with pytest.raises(StopIteration):
        there.result("weights")


def test_arguments_are_not_taken_for_variables(there: Desk) -> None:
    words = ["$(CVL_RUN_ID)", "$$(CVL_RUN_ID)", "$HOME", "a'b", "", "-x", "\n"]
    done = there.cvl("run", *there.options, "one", "args", *words)
    assert done.out == b"".join(word.encode() + b"\0" for word in words), done.err


def test_a_timeout_ends_the_job_and_brings_its_results(there: Desk) -> None:
    done = there.sh(f"echo a >a; echo ready; {FOREVER}", "--timeout", "12s", "--grace", "1s")
    assert (done.code, cause(there)) == (124, "timeout"), done.err
    assert there.result("a") == b"a\n"


def test_too_little_memory_is_told(there: Desk) -> None:
    done = there.sh("tail /dev/zero", "--memory", "32Mi")
    assert (done.code, cause(there)) == (137, "out-of-memory"), done.err
    assert "out of memory" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--image", "Not An Image"), "InvalidImageName"),
        (("--image", "cvl-test/absent:1", "--pull-policy", "Never"), "ErrImageNeverPull"),
    ],
)
def test_what_no_time_mends_ends_it_at_once(
    options: tuple[str, ...], said: str, there: Desk
) -> None:
    done = there.sh("true", *options)
    assert (done.code, cause(there)) == (125, "not-started")
    assert said in done.err


def test_a_missing_gpu_is_waited_for(cluster: Cluster, there: Desk) -> None:
    with there.start("run", *there.options, "--gpu", "1", "one", "sh", "echo ran") as client:
        said = client.says("Insufficient nvidia.com/gpu")
        assert "Unschedulable" in said
        with cluster.capacity("nvidia.com/gpu", 1):
            done = client.ended(120)
    assert (done.code, done.out) == (0, b"ran\n"), done.err


def test_waiting_has_its_limit_if_one_is_given(there: Desk) -> None:
    done = there.sh("true", "--gpu", "1", "--start-timeout", "5s")
    assert (done.code, cause(there)) == (125, "not-started")
    assert "did not start within 5s: Unschedulable" in done.err


def test_a_quota_is_told_and_waited_for(cluster: Cluster, namespace: str, there: Desk) -> None:
    kube.quota(cluster, namespace, pods="0")
    with there.start("run", *there.options, "one", "sh", "echo ran") as client:
        client.says("exceeded quota")
        kube.client(cluster).delete(f"{api_path('resourcequotas', namespace)}/limit")
        client.signal(signal.SIGINT)
        assert client.ended(120).code == 130


def test_an_image_that_cannot_be_pulled_is_told_and_waited_for(there: Desk) -> None:
    image = "127.0.0.1:1/absent:1"
    with there.start("run", *there.options, "--image", image, "one", "sh", "true") as client:
        client.says("ErrImagePull")
        client.signal(signal.SIGTERM)
        done = client.ended(120)
    assert done.code == 143, done.err


def test_the_job_goes_on_while_the_api_server_is_away(cluster: Cluster, there: Desk) -> None:
    script = "for i in $(seq 60); do echo line $i; sleep .2; done; echo a >a; exit 5"
    with there.start("run", *there.options, "one", "sh", script) as client:
        client.shows(b"line 5\n")
        with cluster.cut():
            time.sleep(3)
        done = client.ended(120)
    assert done.code == 5, done.err
    assert done.out == b"".join(b"line %d\n" % i for i in range(1, 61))
    assert there.result("a") == b"a\n"


def test_somebody_elses_deletion_is_no_error_of_the_job(
    cluster: Cluster, namespace: str, there: Desk
) -> None:
    with there.start("run", *there.options, "one", "sh", f"echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        job = f"{api_path('jobs', namespace)}/cvl-{there.runs()[0]}"
        kube.client(cluster).delete(job, propagation="Background")
        done = client.ended(150)
    assert (done.code, cause(there)) == (143, "stopped"), done.err


def test_a_lost_node_is_named(cluster: Cluster, there: Desk) -> None:
    with there.start("run", *there.options, "one", "sh", f"echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        with cluster.lost_node():
            said = client.says("is not ready")
            assert f"node {cluster.node} is not ready" in said
            assert client.process.poll() is None
        client.signal(signal.SIGINT)
        assert client.ended(120).code == 130


def test_what_is_not_allowed_is_told_before_anything_is_made(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cluster, namespace, "--context", kube.LIMITED)
    kube.grant(cluster, namespace, ["create", "get", "list"], ["jobs.batch", "secrets"])
    kube.grant(cluster, namespace, ["list"], ["pods"])
    done = calling.sh("true")
    assert done.code == 125
    assert f"you may not delete jobs in namespace {namespace}" in done.err
    assert 'resources: ["pods/exec"], verbs: ["create", "get"]' in done.err
    assert not ours(cluster)


PLAN = ("true", "--dry-run", "-e", "TOKEN=s3cret", "--cpu", "100m")


@pytest.mark.kube
def test_kubectl_takes_what_a_dry_run_prints(real_cluster: RealCluster, tmp_path: Path) -> None:
    with kube.fresh_namespace(real_cluster) as namespace:
        done = desk(tmp_path, real_cluster, namespace).sh(*PLAN)
        words = ("apply", "--dry-run=server", "--validate=false", "-n", namespace, "-f", "-")
        told = real_cluster.kubectl(*words, data=done.out)
    assert "job.batch/cvl-one-" in told
    assert told.count("secret/cvl-one-") == 2


def test_the_cluster_takes_what_a_dry_run_prints(
    cluster: Cluster, namespace: str, there: Desk
) -> None:
    planned = list(yaml.safe_load_all(there.sh(*PLAN).out))
    assert [each["kind"] for each in planned] == ["Secret", "Secret", "Job"]
    kube.apply(cluster, *planned, at=namespace)
    job = f"{api_path('jobs', namespace)}/{planned[-1]['metadata']['name']}"
    kube.client(cluster).delete(job, propagation="Background")
    listed = json.loads(there.sh("true", "--dry-run", "--json").out)
    assert [each["kind"] for each in listed["request"]] == ["Secret", "Job"]
    assert listed["quote"]["price_per_hour"] is None


def test_a_command_without_an_example_runs_as_it_is(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    out: list[bytes] = []
    status = K8sRunner(namespace=namespace).run(
        image=cluster.image,
        command=["sh", "-c", 'echo "$0 $X"; exit 9', "$(X)"],
        gpu=0,
        memory="64Mi",
        timeout_minutes=5,
        env={"X": "secret"},
        on_output=lambda chunk: out.append(chunk.data),
        output_dir=tmp_path / "results",
    )
    assert (int(status), status.cause, b"".join(out)) == (9, "exited", b"$(X) secret\n")
    assert not ours(cluster, status.run_id)
    missing = K8sRunner(namespace=namespace).run(image=cluster.image, command=["no-such-program"])
    assert (int(missing), missing.cause) == (125, "not-started")
    assert "no-such-program" in missing.detail


def test_an_unreachable_cluster_and_a_wrong_context_are_told(there: Desk, tmp_path: Path) -> None:
    done = there.sh("true", "--context", "absent")
    assert (done.code, "no context 'absent'" in done.err) == (2, True)
    config = json.loads(Path(there.env["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps(config))
    gone = there.sh("true", "--kubeconfig", str(elsewhere))
    assert (gone.code, "no answer from https://127.0.0.1:1" in gone.err) == (125, True)
    config = json.loads(Path(there.env["KUBECONFIG"]).read_text())
    for user in config["users"]:
        user["user"] = {"token": "expired"}
    elsewhere.write_text(json.dumps(config))
    refused = there.sh("true", "--kubeconfig", str(elsewhere))
    assert refused.code == 125
    assert "the cluster does not accept who we are" in refused.err
    assert "log in" in refused.err


def test_attach_finds_the_cluster_of_its_run(there: Desk, tmp_path: Path) -> None:
    """Whatever the current context is by then."""
    other = tmp_path / "switched"
    config = json.loads(Path(there.env["KUBECONFIG"]).read_text())
    other.write_text(json.dumps({**config, "current-context": kube.LIMITED}))
    done = there.sh("echo one; sleep 1; echo a >a; exit 3", "-d")
    run = done.out.decode().strip()
    end = there.cvl("attach", run, env={"KUBECONFIG": str(other)})
    assert (end.code, end.out) == (3, b"one\n"), end.err
    assert there.result("a") == b"a\n"


def test_reap_finds_a_dead_clients_job_by_its_labels_alone(
    cluster: Cluster, there: Desk, tmp_path: Path
) -> None:
    with there.start("run", *there.options, "one", "sh", f"echo ready; {FOREVER}") as client:
        client.shows(b"ready")
        client.signal(signal.SIGKILL)
        client.ended()
    run = there.runs()[0]
    assert len(ours(cluster, run)) >= 3
    nobody = Desk(folder=tmp_path / "elsewhere", options=(), env=there.env)
    assert run not in nobody.cvl("reap", "--dry-run").out.decode()  # its deadline is to come
    api, past = kube.client(cluster), {"metadata": {"annotations": {"cvl.deadline": "1000000000"}}}
    for place in (api_path("jobs", there.options[2]), api_path("secrets", there.options[2])):
        for each in list(api.items(place, labelSelector=f"cvl.run={run}")):
            api.patch(f"{place}/{each['metadata']['name']}", past)
    end = nobody.cvl("reap", "-y")
    assert end.code == 0, end.err
    wait_for(lambda: not ours(cluster, run))


def test_nothing_of_it_is_left_on_this_computer(there: Desk) -> None:
    there.sh("true")
    names = {path.name for path in Path(there.env["KUBECONFIG"]).parent.iterdir()}
    assert not {name for name in names if name.startswith("cvl-one")}
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True, text=True)
    assert there.runs()[0] not in told.stdout


def test_an_attach_that_is_killed_leaves_the_job_alone(there: Desk) -> None:
    conformance.killed_attach(there)
