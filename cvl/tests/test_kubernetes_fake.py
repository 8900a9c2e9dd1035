"""The fake API server: it has to be right, or what is tested against it proves nothing."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.errors import Denied
from cvl.providers.kubernetes.check import may
from cvl.testing import kube
from cvl.testing.kubernetes import KubernetesCluster
from cvl.testing.kubernetes.objects import nanoseconds_of, quantity, rfc3339
from cvl.testing.kubernetes.schema import find
from cvl.testing.kubernetes.variables import expand
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, job, pod, secret, until

document, absent = find()
needs_document = pytest.mark.skipif(document is None, reason=absent)
SECRETS = "/api/v1/namespaces/default/secrets"
FILES = Path("/proc/self/fd")
NOT_HERE = "Forbidden: not supported by this stand-in"
A, MOUNT, GPU = {"name": "a", "image": "x"}, {"name": "v", "mountPath": "/v"}, "nvidia.com/gpu"


@pytest.fixture
def cluster() -> Iterator[KubernetesCluster]:
    with KubernetesCluster() as made:
        yield made


@pytest.fixture
def client(cluster: KubernetesCluster) -> Client:
    return Client(cluster)


def test_a_new_object_has_what_the_server_gives_it(
    cluster: KubernetesCluster, client: Client
) -> None:
    made = client.ok("POST", JOBS, job())
    about = made["metadata"]
    assert about["uid"]
    assert about["namespace"] == "default"
    assert about["creationTimestamp"].endswith("Z")
    assert int(about["resourceVersion"]) > 0
    assert made["spec"]["completions"] == made["spec"]["parallelism"] == 1
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "j"
    assert labels["controller-uid"] == about["uid"]
    assert made["spec"]["selector"]["matchLabels"] == {
        "batch.kubernetes.io/controller-uid": about["uid"]
    }
    assert client.ok("GET", f"{JOBS}/j")["metadata"]["uid"] == about["uid"]
    assert cluster.violations == []


def test_what_is_not_there_is_404(client: Client) -> None:
    assert client.refused("GET", f"{JOBS}/no") == (404, "NotFound", 'jobs.batch "no" not found')
    assert client.refused("GET", "/apis/batch/v1/namespaces/default/cronjobs")[0] == 404
    nowhere = "/api/v1/namespaces/no/pods"
    assert client.refused("POST", nowhere, pod())[2] == 'namespaces "no" not found'
    assert client.ok("GET", nowhere)["items"] == []


def test_nobody_without_a_token(cluster: KubernetesCluster, client: Client) -> None:
    stranger = Client(cluster, token="wrong")
    assert stranger.refused("GET", PODS) == (401, "Unauthorized", "Unauthorized")
    assert stranger.ok("GET", "/version")["major"] == "1"
    cluster.rotate_token()
    assert client.refused("GET", PODS)[0] == 401
    assert Client(cluster).ok("GET", PODS)["items"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"name": "Upper"}}, "regex used for validation"),
        ({"metadata": {"name": "j", "labels": {"a": "b" * 64}}}, "no more than 63 characters"),
        ({"metadata": {"name": "j", "labels": {"a": "b c"}}}, "regex used for validation"),
        ({"spec": {"template": {"spec": {"containers": []}}}}, "containers: Required value"),
    ],
)
def test_an_object_that_may_not_be_is_422(
    client: Client, change: dict[str, object], message: str
) -> None:
    status, reason, told = client.refused("POST", JOBS, {**job(), **change})
    assert (status, reason) == (422, "Invalid")
    assert message in told


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"restartPolicy": "Always"}, 'Required value: valid values: "OnFailure", "Never"'),
        ({"restartPolicy": "OnFailure"}, f"restartPolicy: {NOT_HERE}"),
        ({"affinity": {}}, f"affinity: {NOT_HERE}"),
        ({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}, f"configMap: {NOT_HERE}"),
        ({"containers": [{**A, "envFrom": []}]}, f"envFrom: {NOT_HERE}"),
        ({"activeDeadlineSeconds": 0}, "must be between 1 and 2147483647, inclusive"),
        ({"hostname": "a_b"}, "regex used for validation"),
        ({"containers": [A] * 2}, 'Duplicate value: "a"'),
        ({"containers": [{"name": "a"}]}, "containers[0].image: Required value"),
        ({"containers": [{**A, "volumeMounts": [MOUNT]}]}, 'Not found: "v"'),
        (
            {"containers": [{**A, "resources": {"limits": {GPU: "1"}, "requests": {GPU: "2"}}}]},
            "must be equal to nvidia.com/gpu limit of 1",
        ),
        (
            {"containers": [{**A, "resources": {"limits": {"memory": "lots"}}}]},
            "quantities must match",
        ),
    ],
)
def test_a_pod_that_may_not_be_is_422(
    client: Client, spec: dict[str, object], message: str
) -> None:
    assert message in client.refused("POST", JOBS, job(template=spec))[2]


def test_an_indexed_job_has_names_that_fit(client: Client) -> None:
    indexed: Obj = {"completionMode": "Indexed", "completions": 12, "parallelism": 2}
    message = client.refused("POST", JOBS, job("a" * 62, **indexed))[2]
    assert "will not able to create pod with invalid DNS label" in message
    client.ok("POST", JOBS, job("a" * 60, **indexed))


def test_what_runs_is_not_changed(client: Client) -> None:
    client.ok("POST", JOBS, job())
    other = job(image="other")["spec"]["template"]
    refused = client.refused("PATCH", f"{JOBS}/j", {"spec": {"template": other}})
    assert refused[0] == 422
    assert "field is immutable" in refused[2]


def test_a_patch_is_merged_and_keeps_what_is_the_servers(client: Client) -> None:
    made = client.ok("POST", SECRETS, secret(a="1"))
    about = {"labels": {"a": "b"}, "uid": "none", "annotations": {"x": "y"}}
    client.patch(f"{SECRETS}/s", {"metadata": about, "status": {"x": "y"}, "data": {"b": "Yg=="}})
    client.patch(f"{SECRETS}/s", {"metadata": {"annotations": None}})
    found = client.ok("GET", f"{SECRETS}/s")
    assert found["data"] == {**made["data"], "b": "Yg=="}
    assert found["metadata"] == {
        **made["metadata"],
        "labels": {"a": "b"},
        "resourceVersion": found["metadata"]["resourceVersion"],
    }
    old = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    status, reason, message = client.refused("PATCH", f"{SECRETS}/s", old)
    assert (status, reason) == (409, "Conflict")
    assert "the object has been modified" in message


def test_secrets_are_base64_and_limited(client: Client) -> None:
    made = client.ok("POST", SECRETS, secret(a="b"))
    assert base64.b64decode(made["data"]["a"]) == b"b"
    assert "stringData" not in made
    assert "Too long" in client.refused("POST", SECRETS, secret("t", a="x" * (2**20 + 1)))[2]
    bad = {**secret("t"), "data": {"a": "&"}}
    assert "must be base64" in client.refused("POST", SECRETS, bad)[2]


def test_lists_are_selected_by_labels_and_fields(client: Client) -> None:
    for n in range(4):
        made = secret(f"s{n}")
        made["metadata"]["labels"] = {"n": str(n), **({"odd": ""} if n % 2 else {})}
        client.ok("POST", SECRETS, made)
    assert client.names(SECRETS, labelSelector="odd") == ["s1", "s3"]
    assert client.names(SECRETS, labelSelector="n=3,odd") == ["s3"]
    assert client.names(SECRETS, fieldSelector="metadata.name=s3") == ["s3"]
    assert client.names("/api/v1/secrets", labelSelector="n=2") == ["s2"]
    for unknown in ("a==b", "a!=b", "a in (b)", "!a"):
        assert client.refused("GET", SECRETS, labelSelector=unknown)[0] == 400
    assert "field label not supported" in client.refused("GET", SECRETS, fieldSelector="a=b")[2]


def test_lists_come_in_pages(client: Client) -> None:
    for n in range(5):
        client.ok("POST", SECRETS, secret(f"s{n}"))
    first = client.ok("GET", SECRETS, limit=2)
    assert [each["metadata"]["name"] for each in first["items"]] == ["s0", "s1"]
    assert first["metadata"]["remainingItemCount"] == 3
    second = client.ok("GET", SECRETS, **{"limit": 3, "continue": first["metadata"]["continue"]})
    assert [each["metadata"]["name"] for each in second["items"]] == ["s2", "s3", "s4"]
    assert "continue" not in second["metadata"]
    assert client.refused("GET", SECRETS, **{"continue": "no"})[0] == 400


def test_items_of_a_list_do_not_say_what_they_are(client: Client) -> None:
    client.ok("POST", SECRETS, secret())
    found = client.ok("GET", SECRETS)
    assert found["kind"] == "SecretList"
    assert "kind" not in found["items"][0]


@needs_document
def test_unknown_fields_are_dropped_and_violations(
    cluster: KubernetesCluster, client: Client
) -> None:
    assert "backofLimit" not in client.ok("POST", JOBS, job(backofLimit=3))["spec"]
    assert cluster.violations == ['create jobs: unknown field "spec.backofLimit"']


@needs_document
def test_a_wrong_type_is_400(cluster: KubernetesCluster, client: Client) -> None:
    status, reason, message = client.refused("POST", JOBS, job(backoffLimit="none"))
    assert (status, reason) == (400, "BadRequest")
    assert "spec.backoffLimit" in message
    assert cluster.violations


@needs_document
def test_requests_that_nobody_documented_are_violations(
    cluster: KubernetesCluster, client: Client
) -> None:
    client.ok("GET", PODS, labelSelector="a=b", limit=3)
    assert cluster.violations == []
    client.ok("GET", PODS, lablSelector="a=b")
    assert cluster.violations == [
        "GET /api/v1/namespaces/{namespace}/pods: lablSelector: no such parameter"
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", f"{JOBS}/j"), ("POST", f"{JOBS}/j"), ("PATCH", JOBS), ("DELETE", JOBS)],
)
def test_what_this_server_does_not_do_is_405(client: Client, method: str, path: str) -> None:
    assert client.refused(method, path, job())[0] == 405


def test_nobody_watches_here(client: Client) -> None:
    assert client.refused("GET", JOBS, watch="1")[0] == 405


def test_garbage_is_400(client: Client) -> None:
    assert client.refused("POST", JOBS, [1])[0] == 400
    assert client.refused("POST", JOBS, {"kind": "Pod", "apiVersion": "v1"})[0] == 400
    elsewhere = job()
    elsewhere["metadata"]["namespace"] = "other"
    assert "does not match the namespace" in client.refused("POST", JOBS, elsewhere)[2]


def test_rbac_says_what_is_missing(cluster: KubernetesCluster) -> None:
    limited = kube.client(cluster, kube.LIMITED)
    for path, told in (
        (PODS, f'pods is forbidden: User "{kube.LIMITED}" cannot list resource "pods"'),
        (f"{PODS}/p/log", 'cannot get resource "pods/log" in API group "" in the namespace'),
        ("/api/v1/pods", "at the cluster scope"),
    ):
        with pytest.raises(Denied, match=re.escape(told)):
            limited.get(path)
    kube.grant(cluster, "default", ["list"], ["pods"])
    assert limited.get(PODS)["items"] == []
    with pytest.raises(Denied):
        limited.get("/api/v1/namespaces/kube-system/pods")
    assert may(limited, "default", ("", "pods", "list"))
    assert not may(limited, "default", ("", "pods", "create"))
    assert may(kube.client(cluster), "default", ("", "pods", "create"))
    kube.bind(cluster, "default", "all", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])
    assert may(limited, "default", ("batch", "jobs", "delete"))


def test_a_quota_is_kept(cluster: KubernetesCluster, client: Client) -> None:
    kube.quota(cluster, "default", pods="1")
    client.ok("POST", PODS, pod("one"))
    status, reason, message = client.refused("POST", PODS, pod("two"))
    assert (status, reason) == (403, "Forbidden")
    assert message == (
        'pods "two" is forbidden: exceeded quota: limit, requested: pods=1, used: pods=1,'
        " limited: pods=1"
    )
    path = "/api/v1/namespaces/default/resourcequotas/limit"
    until(lambda: client.ok("GET", path).get("status", {}).get("used", {}).get("pods") == "1")


def test_a_pod_needs_its_service_account(client: Client) -> None:
    told = client.refused("POST", PODS, pod(serviceAccountName="ghost"))
    assert told[0] == 403
    assert 'serviceaccount "ghost" not found' in told[2]


def test_the_log_keeps_no_secret(cluster: KubernetesCluster, client: Client) -> None:
    client.ok("POST", SECRETS, secret(password="hunter2"))
    client.ok("POST", JOBS, job())
    assert [entry.operation for entry in cluster.log] == ["create secrets", "create jobs"]
    assert "hunter2" not in repr(cluster.log)
    assert cluster.log[1].user == "kubernetes-admin"
    assert cluster.log[1].body == job()
    assert cluster.admin_token not in repr(cluster.log)


def test_the_kubeconfig_is_for_its_owner(cluster: KubernetesCluster) -> None:
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    assert (cluster.folder.stat().st_mode & 0o077) == 0
    cluster.close()
    assert not cluster.folder.exists()


def test_nothing_is_left_of_a_cluster() -> None:
    before, files = threading.active_count(), len(list(FILES.iterdir()))
    for _ in range(3):
        with KubernetesCluster() as cluster:
            Client(cluster).ok("GET", PODS)
    until(lambda: threading.active_count() <= before)
    until(lambda: len(list(FILES.iterdir())) <= files + 1)


def test_it_is_started_by_hand_and_leaves_nothing() -> None:
    words = ("--no-pods", "--nodes", "2", "--gpus", "4", "--fault", "any-500")
    argv = [sys.executable, "-m", "cvl.testing.kubernetes", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert "a Kubernetes cluster on loopback" in running.stdout.readline()
        name, _, place = running.stdout.readline().removeprefix("export ").strip().partition("=")
        assert name == "KUBECONFIG"
        assert json.loads(Path(place).read_text())["current-context"] == "admin"
        running.terminate()
        assert running.wait(30) == 0
    assert not Path(place).parent.exists()


# --- the parts


@pytest.mark.parametrize(
    ("text", "number"),
    [("100m", "0.1"), ("1Gi", str(2**30)), ("1.5k", "1500"), ("1e3", "1000"), (2, "2")],
)
def test_quantities(text: object, number: str) -> None:
    assert quantity(text) == Decimal(number)


@given(st.integers(0, 4 * 10**9))
def test_times_survive(seconds: int) -> None:
    assert nanoseconds_of(rfc3339(seconds)) == seconds * 10**9


def test_nanoseconds() -> None:
    assert nanoseconds_of("1970-01-01T00:00:01.000000002Z") == 10**9 + 2
    assert nanoseconds_of("1970-01-01T01:00:01.5+01:00") == 1_500_000_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$A $ $$", "$A $ $"),
        ("$(A)$(A)", "11"),
        ("$(", "$("),
    ],
)
def test_variables_are_expanded(text: str, shown: str) -> None:
    assert expand(text, {"A": "1"}) == shown


@given(st.text())
def test_doubled_dollars_keep_a_text_as_it_is(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text
