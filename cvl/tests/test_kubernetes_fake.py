"""The fake API server: it has to be right, or what is tested against it proves nothing."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.testing.kubernetes import KubernetesCluster, Settings
from cvl.testing.kubernetes.indexes import compact, expanded
from cvl.testing.kubernetes.objects import nanoseconds_of, quantity, rfc3339
from cvl.testing.kubernetes.patches import JSON, MERGE, STRATEGIC, patched
from cvl.testing.kubernetes.schema import find
from cvl.testing.kubernetes.selectors import by_labels
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.variables import expand
from cvl.tests.apiserver import JOBS, PODS, Client, Obj, job, pod, secret, until

document, absent = find()
needs_document = pytest.mark.skipif(document is None, reason=absent)
SECRETS = "/api/v1/namespaces/default/secrets"
FILES = Path("/proc/self/fd")


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


def test_a_name_is_taken_once(client: Client) -> None:
    client.ok("POST", JOBS, job())
    status, reason, message = client.refused("POST", JOBS, job())
    assert (status, reason) == (409, "AlreadyExists")
    assert message == 'jobs.batch "j" already exists'


def test_a_generated_name_is_new_each_time(client: Client) -> None:
    wanted = job()
    wanted["metadata"] = {"generateName": "run-"}
    names = {client.ok("POST", JOBS, wanted)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


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


def test_dry_run_changes_nothing(client: Client) -> None:
    made = client.ok("POST", JOBS, job(), dryRun="All")
    assert made["metadata"]["uid"]
    assert client.names(JOBS) == []
    client.ok("POST", JOBS, job())
    changed = client.patch(f"{JOBS}/j", {"spec": {"suspend": True}}, dryRun="All")
    assert changed["spec"]["suspend"] is True
    client.ok("DELETE", f"{JOBS}/j", dryRun="All")
    assert client.ok("GET", f"{JOBS}/j")["spec"]["suspend"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"name": "Upper"}}, "a lowercase RFC 1123 subdomain must consist of"),
        ({"metadata": {"name": "j", "labels": {"a": "b" * 64}}}, "no more than 63 characters"),
        ({"metadata": {"name": "j", "labels": {"a": "b c"}}}, "a valid label must be"),
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
        ({"activeDeadlineSeconds": 0}, "must be between 1 and 2147483647, inclusive"),
        ({"hostname": "a_b"}, "a lowercase RFC 1123 label"),
        ({"containers": [{"name": "a", "image": "x"}] * 2}, 'Duplicate value: "a"'),
        ({"containers": [{"name": "a"}]}, "containers[0].image: Required value"),
        (
            {
                "containers": [
                    {"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
                ]
            },
            'Not found: "v"',
        ),
        (
            {
                "containers": [
                    {
                        "name": "a",
                        "image": "x",
                        "resources": {
                            "limits": {"nvidia.com/gpu": "1"},
                            "requests": {"nvidia.com/gpu": "2"},
                        },
                    }
                ]
            },
            "must be equal to nvidia.com/gpu limit of 1",
        ),
        (
            {
                "containers": [
                    {"name": "a", "image": "x", "resources": {"limits": {"memory": "lots"}}}
                ]
            },
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
    assert (
        "Required value: when completion mode is Indexed"
        in client.refused("POST", JOBS, job(completionMode="Indexed", parallelism=2))[2]
    )
    client.ok("POST", JOBS, job("a" * 60, **indexed))


def test_what_runs_is_not_changed(client: Client) -> None:
    client.ok("POST", JOBS, job())
    changed = client.ok("GET", f"{JOBS}/j")
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    status, _, message = client.refused("PUT", f"{JOBS}/j", changed)
    assert status == 422
    assert "field is immutable" in message
    until(lambda: client.names(PODS))
    path = f"{PODS}/{client.names(PODS)[0]}"
    running = client.ok("GET", path)
    running["spec"]["containers"][0]["command"] = ["false"]
    assert "pod updates may not change fields" in client.refused("PUT", path, running)[2]


def test_an_older_version_does_not_overwrite(client: Client) -> None:
    old = client.ok("POST", SECRETS, secret(a="1"))
    client.patch(f"{SECRETS}/s", {"stringData": {"a": "2"}})
    status, reason, message = client.refused("PUT", f"{SECRETS}/s", old)
    assert (status, reason) == (409, "Conflict")
    assert "the object has been modified" in message
    del old["metadata"]["resourceVersion"]
    client.ok("PUT", f"{SECRETS}/s", old)


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
    assert client.names(SECRETS, labelSelector="n in (0,1),odd") == ["s1"]
    assert client.names(SECRETS, labelSelector="!odd") == ["s0", "s2"]
    assert client.names(SECRETS, labelSelector="n!=0,odd") == ["s1", "s3"]
    assert client.names(SECRETS, labelSelector="n=2") == ["s2"]
    assert client.names(SECRETS, fieldSelector="metadata.name=s3") == ["s3"]
    assert client.names("/api/v1/secrets", fieldSelector="metadata.namespace!=default") == []
    assert client.refused("GET", SECRETS, labelSelector="a==b==c")[0] == 400
    assert "field label not supported" in client.refused("GET", SECRETS, fieldSelector="a=b")[2]


def test_lists_come_in_pages(cluster: KubernetesCluster, client: Client) -> None:
    for n in range(5):
        client.ok("POST", SECRETS, secret(f"s{n}"))
    first = client.ok("GET", SECRETS, limit=2)
    assert [each["metadata"]["name"] for each in first["items"]] == ["s0", "s1"]
    assert first["metadata"]["remainingItemCount"] == 3
    token = first["metadata"]["continue"]
    second = client.ok("GET", SECRETS, **{"limit": 3, "continue": token})
    assert [each["metadata"]["name"] for each in second["items"]] == ["s2", "s3", "s4"]
    assert "continue" not in second["metadata"]
    cluster.compact()
    status, reason, _ = client.refused("GET", SECRETS, **{"continue": token})
    assert (status, reason) == (410, "Expired")


def test_items_of_a_list_do_not_say_what_they_are(client: Client) -> None:
    client.ok("POST", SECRETS, secret())
    found = client.ok("GET", SECRETS)
    assert found["kind"] == "SecretList"
    assert "kind" not in found["items"][0]


def test_a_strategic_patch_knows_its_lists(client: Client) -> None:
    wanted = pod()
    wanted["metadata"]["ownerReferences"] = []
    client.ok("POST", PODS, wanted)
    image = {"spec": {"containers": [{"name": "main", "image": "other"}]}}
    made = client.patch(f"{PODS}/p", image, "strategic-merge-patch")
    assert made["spec"]["containers"][0]["image"] == "other"
    assert made["spec"]["containers"][0]["command"] == ["true"]
    made = client.patch(
        f"{PODS}/p", [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}], "json-patch"
    )
    assert made["metadata"]["labels"] == {"a": "b"}
    made = client.patch(f"{PODS}/p", {"metadata": {"labels": {"a": None, "c": "d"}}})
    assert made["metadata"]["labels"] == {"c": "d"}


def test_a_status_is_written_by_its_own_door(client: Client) -> None:
    client.ok("POST", PODS, pod())
    plain = client.patch(f"{PODS}/p", {"status": {"phase": "Running"}})
    assert plain["status"]["phase"] == "Pending"
    made = client.patch(f"{PODS}/p/status", {"status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Running"


def test_apply_makes_what_is_not_there(cluster: KubernetesCluster, client: Client) -> None:
    connection, reply = client.open(
        "PATCH", f"{SECRETS}/s", secret(a="b"), "application/apply-patch+yaml", fieldManager="t"
    )
    assert reply.status == 201
    connection.close()
    assert client.names(SECRETS) == ["s"]
    assert cluster.violations == []


@needs_document
def test_unknown_fields_are_dropped_warned_of_or_refused(
    cluster: KubernetesCluster, client: Client
) -> None:
    wanted = job()
    wanted["spec"]["backofLimit"] = 3
    connection, reply = client.open("POST", JOBS, wanted)
    made = json.loads(reply.read())
    connection.close()
    assert reply.getheader("Warning") == '299 - "unknown field \\"spec.backofLimit\\""'
    assert "backofLimit" not in made["spec"]
    wanted["metadata"]["name"] = "k"
    status, _, message = client.refused("POST", JOBS, wanted, fieldValidation="Strict")
    assert (status, message) == (400, 'strict decoding error: unknown field "spec.backofLimit"')
    assert 'create jobs: unknown field "spec.backofLimit"' in cluster.violations


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


def test_what_cannot_be_done_is_405(client: Client) -> None:
    assert client.refused("PUT", JOBS, job())[0] == 405
    client.ok("POST", JOBS, job())
    assert client.refused("POST", f"{JOBS}/j", job())[0] == 405


def test_garbage_is_400(client: Client) -> None:
    assert client.refused("POST", JOBS, [1])[0] == 400
    assert client.refused("POST", JOBS, {"kind": "Pod", "apiVersion": "v1"})[0] == 400
    elsewhere = job()
    elsewhere["metadata"]["namespace"] = "other"
    assert "does not match the namespace" in client.refused("POST", JOBS, elsewhere)[2]


def test_rbac_says_what_is_missing(cluster: KubernetesCluster, client: Client) -> None:
    limited = Client(cluster, cluster.token("jane"))
    status, reason, message = limited.refused("GET", PODS)
    assert (status, reason) == (403, "Forbidden")
    assert message == (
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the'
        ' namespace "default"'
    )
    assert '"pods/log" in API group ""' in limited.refused("GET", f"{PODS}/p/log")[2]
    assert "at the cluster scope" in limited.refused("GET", "/api/v1/pods")[2]
    _grant(client, "jane", ["list"], ["pods"])
    assert limited.ok("GET", PODS)["items"] == []
    assert limited.refused("GET", "/api/v1/namespaces/kube-system/pods")[0] == 403
    assert _allowed(limited, "list", "pods") is True
    assert _allowed(limited, "create", "pods") is False
    assert _allowed(client, "create", "pods") is True


def test_a_service_account_has_tokens(cluster: KubernetesCluster, client: Client) -> None:
    path = "/api/v1/namespaces/default/serviceaccounts/default"
    until(lambda: client.call("GET", path)[0] == 200)
    request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}}
    token = client.ok("POST", f"{path}/token", request)["status"]["token"]
    account = Client(cluster, token)
    told = account.refused("GET", PODS)[2]
    assert 'User "system:serviceaccount:default:default" cannot list' in told


def test_a_quota_is_kept(client: Client) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "limit"},
        "spec": {"hard": {"pods": "1", "requests.nvidia.com/gpu": "2"}},
    }
    client.ok("POST", "/api/v1/namespaces/default/resourcequotas", quota)
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
    assert cluster.admin_token not in repr(cluster.log)


def test_the_kubeconfig_is_for_its_owner(cluster: KubernetesCluster) -> None:
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    assert (cluster.folder.stat().st_mode & 0o077) == 0
    cluster.close()
    assert not cluster.folder.exists()


def test_nothing_is_left_of_a_cluster() -> None:
    before, files = threading.active_count(), len(list(FILES.iterdir()))
    for _ in range(3):
        with KubernetesCluster(Settings()) as cluster:
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


def _grant(client: Client, user: str, verbs: list[str], resources: list[str]) -> None:
    group = "rbac.authorization.k8s.io"
    home = f"/apis/{group}/v1/namespaces/default"
    about = {"apiVersion": f"{group}/v1", "metadata": {"name": "r"}}
    rules = [{"apiGroups": ["", "batch"], "verbs": verbs, "resources": resources}]
    client.ok("POST", f"{home}/roles", {**about, "kind": "Role", "rules": rules})
    subjects = [{"kind": "User", "apiGroup": group, "name": user}]
    role = {"apiGroup": group, "kind": "Role", "name": "r"}
    bound = {**about, "kind": "RoleBinding", "subjects": subjects, "roleRef": role}
    client.ok("POST", f"{home}/rolebindings", bound)


def _allowed(client: Client, verb: str, resource: str) -> bool:
    attributes = {"namespace": "default", "verb": verb, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    made = client.ok("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(made["status"]["allowed"])


# --- the parts


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100m", "0.1"),
        ("1Gi", str(2**30)),
        ("1.5k", "1500"),
        ("1e3", "1000"),
        (2, "2"),
        ("3E", "3e18"),
    ],
)
def test_quantities(text: object, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "lots", "1 Gi", "1GiB", "--1"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantit"):
        quantity(text)


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


@given(st.sets(st.integers(0, 30)))
def test_indexes_are_written_short(indexes: set[int]) -> None:
    assert expanded(compact(indexes)) == indexes


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")))
def test_a_selector_of_an_objects_labels_selects_it(labels: dict[str, str]) -> None:
    test = by_labels(",".join(f"{key}={value}" for key, value in labels.items()))
    assert test({"metadata": {"labels": labels}})
    assert not test({"metadata": {"labels": {**labels, "a": "none"}}}) or "a" not in labels


@pytest.mark.parametrize(
    ("kind", "patch", "made"),
    [
        (MERGE, {"a": {"b": None}, "l": [9]}, {"a": {"c": 2}, "l": [9]}),
        (STRATEGIC, {"a": {"$patch": "replace", "d": 1}}, {"a": {"d": 1}, "l": [1]}),
        (STRATEGIC, {"$deleteFromPrimitiveList/l": [1]}, {"a": {"b": 1, "c": 2}, "l": []}),
        (STRATEGIC, {"a": {"$retainKeys": ["b"], "b": 5}}, {"a": {"b": 5}, "l": [1]}),
        (JSON, [{"op": "remove", "path": "/a"}], {"l": [1]}),
    ],
)
def test_patches(kind: str, patch: object, made: object) -> None:
    assert patched({"a": {"b": 1, "c": 2}, "l": [1]}, kind, patch) == made


def test_a_list_of_named_things_is_merged_by_name() -> None:
    old = {"env": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]}
    new = {"env": [{"name": "b", "value": "3"}, {"name": "a", "$patch": "delete"}, {"name": "c"}]}
    assert patched(old, STRATEGIC, new) == {"env": [{"name": "b", "value": "3"}, {"name": "c"}]}


def test_a_patch_that_is_none_is_refused() -> None:
    for kind, patch in ((JSON, [{"op": "test", "path": "/a", "value": 2}]), (JSON, [1]), ("x", {})):
        with pytest.raises(ApiError):
            patched({"a": 1}, kind, patch)
