"""Templates of requests: what is merged, what is named, and what no template may set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cvl.cli.project_config import allowed
from cvl.core import request_template
from cvl.core.errors import UsageError
from cvl.core.request_template import Rules, Template
from cvl.core.spec import JobSpec, Source
from cvl.core.tags import Marks
from cvl.providers.kubernetes import template as kube
from cvl.providers.kubernetes.job_options import JobOptions
from cvl.providers.kubernetes.manifest import Made, job
from cvl.providers.lambda_cloud import template
from cvl.providers.sagemaker import template as aws
from cvl.providers.sagemaker.job_options import Runtime, request
from cvl.testing.cli_harness import Desk
from cvl.tests.test_sagemaker_parts import job_options

RUN = "k8s-0101-000000-0000000000"
RULES = Rules(kept={("a", "kept"): "it is kept"}, keys={"named": "name", "all": ""})


def made(nodes: int = 1, **more: Any) -> Made:
    spec = JobSpec(
        run_id=RUN, argv=("true",), nodes=nodes, source=Source(root=Path("/x"), folder="one")
    )
    marks = Marks(run_id=RUN, owner="0" * 32, deadline=1.0)
    return job(
        JobOptions(image="image", **more), spec, marks, {f"cvl-{RUN}-files-00": ("entry.sh",)}
    )


def pod(found: Made) -> Any:
    return found["spec"]["template"]


def written(folder: Path, text: object, name: str = "t.yaml") -> Path:
    file = folder / name
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


def of_ours(**fields: Any) -> Any:
    return {"spec": {"containers": [{"name": "job", **fields}]}}


def a_training() -> Mapping[str, Any]:
    spec = JobSpec(run_id=RUN, argv=("true",))
    run = Runtime(seconds=60, why="")
    return request(
        job_options(), spec, run, image="i", marks=Marks(run_id=RUN, owner="o", deadline=1.0)
    )


# --- the file ------------------------------------------------------------------------------------


def test_yaml_means_what_kubernetes_reads_in_it(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "a: {mode: 0444, on: yes, day: 2026-01-01, x: null, text: '1', f: 1.5, inf: .inf}",
    )
    assert request_template.read(file).data == {
        "a": {"mode": 0o444, "on": True, "day": "2026-01-01", "text": "1", "f": 1.5}
        | {"inf": ".inf"}
    }


JSON = st.recursive(
    st.booleans() | st.integers() | st.text(st.characters(codec="ascii"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc:{", max_size=3), inner)
    ),
    max_leaves=10,
)


@given(data=st.dictionaries(st.text("abc", min_size=1), JSON, min_size=1))
def test_any_json_is_read_as_it_is(data: dict[str, object], tmp_path_factory: Any) -> None:
    file = written(tmp_path_factory.mktemp("t"), data)
    assert request_template.read(file).data == data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a: [", ":1: "),
        ("a: 1\na: 2", ":2: 'a' is given twice"),
        ("- a", "key: value"),
        ("a: &a [*a]", "*a"),
        ("a: " + "[" * 100, "nested"),
        ("a: " + "9" * 5000, None),
        ("a: 1\n---\nb: 1", "more than one document"),
        ("a: !!python/object:os.system x", None),
        ("x" * (request_template.LIMIT + 1), "more than 1024 KiB"),
        ("a: \x00", ":1: "),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str, said: str | None) -> None:
    file = written(tmp_path, text)
    if said is None:
        assert isinstance(request_template.read(file).data["a"], str)
        return
    with pytest.raises(UsageError) as error:
        request_template.read(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(UsageError, match="cannot be read"):
            request_template.read(path)
    bad = tmp_path / "latin"
    bad.write_bytes(b"a: \xe9")
    with pytest.raises(UsageError, match="UTF-8"):
        request_template.read(bad)


# --- the merge -----------------------------------------------------------------------------------


@given(
    theirs=st.dictionaries(st.text("ab", max_size=2), JSON), ours=st.dictionaries(st.text(), JSON)
)
def test_all_of_ours_counts(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    try:
        found = request_template.merged(
            ours, Template(origin="t", data=theirs), Rules(kept={}, keys={})
        )
    except UsageError:
        return

    def holds(mine: Any, there: Any) -> bool:
        if isinstance(mine, dict):
            return all(key in there and holds(each, there[key]) for key, each in mine.items())
        return bool(mine == there)

    assert holds(ours, found.value)
    assert set(found.value) == set(ours) | set(theirs)


def test_lists_are_merged_by_what_names_their_items() -> None:
    given = Template(
        origin="t", data={"named": [{"name": "b", "x": 1}, {"name": "c"}], "all": [1, 2]}
    )
    ours = {"named": [{"name": "a"}, {"name": "b", "x": 2, "y": 3}], "all": [2, 3]}
    found = request_template.merged(ours, given, RULES)
    assert found.value["named"] == [{"name": "a"}, {"name": "b", "x": 2, "y": 3}, {"name": "c"}]
    assert found.value["all"] == [2, 3, 1]
    assert "named[b].x" in found.warnings[0]


def test_only_where_lists_meet_an_item_has_to_be_told_from_the_others() -> None:
    """A variable that stands twice in a container beside ours is the API server's to judge."""
    twice = [{"name": "x", "is": "a"}, {"name": "x", "is": "b"}, {"is": "c"}]
    theirs = Template(origin="t.yaml", data={"b": {"named": twice}})
    merged = request_template.merged({"a": 1}, theirs, RULES)
    assert (merged.value, merged.warnings) == ({"a": 1, "b": {"named": twice}}, ())
    for items, said in ((twice[:2], r"b.named\[x\] must be there once"), (twice[1:], "each have")):
        theirs = Template(origin="t.yaml", data={"b": {"named": items}})
        with pytest.raises(UsageError, match=said):
            request_template.merged({"b": {"named": []}}, theirs, RULES)


@pytest.mark.parametrize("wrong", [{"named": 1}, {"named": ["x"]}, {"named": [{}]}, {"map": [1]}])
def test_what_has_another_shape_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"t: (named|map) must be"):
        request_template.merged({"named": [], "map": {}}, Template(origin="t", data=wrong), RULES)


def test_what_is_kept_may_only_be_said_as_it_is() -> None:
    same = Template(origin="t", data={"a": {"kept": 1}})
    assert request_template.merged({"a": {"kept": 1}}, same, RULES).warnings == ()
    with pytest.raises(UsageError, match=r"a\.kept cannot be set") as error:
        request_template.merged({"a": {"kept": 2}}, same, RULES)
    assert error.value.hint == "it is kept"


# --- pods ----------------------------------------------------------------------------------------

WHOLE = """
kind: Pod
apiVersion: v1
metadata:
  labels: {team: vision}
  annotations: {sidecar.istio.io/inject: "false"}
spec:
  priorityClassName: low
  tolerations: [{key: spot, operator: Exists}]
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  nodeSelector: {pool: a}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers:
    - name: job
      resources: {limits: {cpu: "4"}}
      env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
      volumeMounts: [{name: data, mountPath: /data}]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    - {name: log, image: logger}
"""


def test_a_pod_template_adds_to_ours(tmp_path: Path) -> None:
    given = kube.read(written(tmp_path, WHOLE))
    plain = made(gpu=1, memory="1Gi", node_selector={"zone": "b"})
    found = kube.under(plain, given)
    spec, own = pod(found.value)["spec"], pod(found.value)["spec"]["containers"][0]
    assert found.warnings == ()
    assert [each["name"] for each in spec["containers"]] == ["job", "log"]
    assert spec["nodeSelector"] == {"pool": "a", "zone": "b"}
    assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu", "spot"]
    limits = {"cpu": "4", "memory": "1Gi", "nvidia.com/gpu": "1"}
    assert own["resources"]["limits"] == limits
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in own["env"]
    assert {"name": "data", "mountPath": "/data"} in own["volumeMounts"]
    assert pod(found.value)["metadata"]["labels"]["team"] == "vision"
    before = pod(plain)["spec"]
    for key in ("restartPolicy", "activeDeadlineSeconds", "terminationGracePeriodSeconds"):
        assert spec[key] == before[key]
    assert own["command"] == before["containers"][0]["command"]


@pytest.mark.parametrize(
    "where",
    [
        "spec.restartPolicy",
        "spec.activeDeadlineSeconds",
        "spec.terminationGracePeriodSeconds",
        "spec.backoffLimit",
        "spec.ttlSecondsAfterFinished",
        "spec.template",
        "spec.hostname",
        "backoffLimit",
        "activeDeadlineSeconds",
        "metadata.name",
        "metadata.namespace",
        "metadata.finalizers",
        "metadata.ownerReferences",
        "metadata.labels.cvl!run",
        "metadata.labels.cvl!owner",
        "metadata.labels.app!kubernetes!io/managed-by",
        "metadata.annotations.cvl!deadline",
        "spec.containers.restartPolicy",
        "spec.containers.lifecycle",
    ],
)
def test_what_the_guarantee_rests_on_cannot_be_in_a_pod_template(
    where: str, tmp_path: Path
) -> None:
    data: Any = "Always"
    for part in reversed(where.replace(".containers.", ".containers:.").split(".")):
        key = part.replace("!", ".").rstrip(":")
        data = {key: [{"name": "job", **data}]} if part.endswith(":") else {key: data}
    with pytest.raises(UsageError) as error:
        kube.under(made(), kube.read(written(tmp_path, data)))
    shown = where.replace("containers.", "containers[job].").replace("!", ".")
    assert shown in str(error.value)
    assert error.value.hint


def test_a_variable_of_ours_cannot_be_in_a_pod_template(tmp_path: Path) -> None:
    own = {"name": "job", "env": [{"name": "CVL_HOLD", "value": "0"}]}
    given = kube.read(written(tmp_path, {"spec": {"containers": [own]}}))
    with pytest.raises(UsageError, match=r"env\[CVL_HOLD\] cannot be set"):
        kube.under(made(), given)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "Deployment", "spec": {}}, "Deployment is no pod"),
        ({"kind": "Job", "spec": {"template": {}}}, "below spec.template"),
        ({"kind": ["Pod"]}, "is no pod"),
        ({"tolerations": []}, "tolerations is no field"),
        ({"spec": []}, "spec must be"),
        ({"metadata": 1}, "metadata must be"),
        ({"metadata": {"labels": [1]}}, "metadata.labels must be"),
        ({"spec": {"containers": {}}}, "spec.containers must be a list"),
        ({"spec": {"containers": [{"name": "main", "resources": {}}]}}, "has no image"),
        ({"spec": {"containers": ["x"]}}, "spec.containers[0] must be key: value pairs"),
        ({"spec": {"initContainers": {"a": {}}}}, "spec.initContainers must be a list"),
        ({"spec": {"tolerations": {"key": "a"}}}, "spec.tolerations must be a list"),
        ({"spec": {"nodeSelector": ["a"]}}, "spec.nodeSelector must be key: value pairs"),
        ({"spec": {"nodeSelector": {"spot": True}}}, "spec.nodeSelector.spot must be text: put"),
        ({"metadata": {"labels": {"cost": 1}}}, "metadata.labels.cost must be text: put"),
        ({"spec": {"securityContext": []}}, "spec.securityContext must be key"),
        (of_ours(resources={"limits": [1]}), "containers[job].resources.limits must be key"),
        (of_ours(args=[1]), "containers[job].args[0] must be text"),
        (of_ours(command="x"), "containers[job].command must be a list"),
        (of_ours(env=[{"name": "N", "value": 1}]), "containers[job].env[N].value must be text"),
        (of_ours(env={"N": "1"}), "containers[job].env must be a list"),
        ({"spec": {"volumes": "x"}}, "spec.volumes must be a list"),
        ({"spec": {"containers": [{"name": "job"}] * 2}}, "containers[job] must be there once"),
        ({"kind": "PodTemplate", "spec": {"priority": 1}}, "spec is no field"),
    ],
)
def test_what_is_no_pod_is_one_sentence(data: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        kube.under(made(), kube.read(written(tmp_path, data)))
    assert said in str(error.value)


def test_ours_counts_and_the_other_is_named(tmp_path: Path) -> None:
    own = {
        "name": "job",
        "command": ["sleep", "1"],
        "volumeMounts": [{"name": "mine", "mountPath": "/workspace/"}],
    }
    data = {"spec": {"containers": [own], "volumes": [{"name": "workspace", "hostPath": {}}]}}
    found = kube.under(made(), kube.read(written(tmp_path, data)))
    spec = pod(found.value)["spec"]
    assert spec["containers"][0]["command"] == ["/bin/sh", "/cvl-in/entry.sh"]
    assert {"name": "workspace", "emptyDir": {}} in spec["volumes"]
    assert [m["mountPath"] for m in spec["containers"][0]["volumeMounts"]].count("/workspace") == 1
    [said] = found.warnings
    for each in ("containers[job].command", "volumeMounts[/workspace]", "volumes[workspace]"):
        assert each in said


def test_what_a_cluster_did_not_keep_is_found(tmp_path: Path) -> None:
    given = kube.read(written(tmp_path, WHOLE.replace("priorityClassName", "priorityClasName")))
    sent = kube.under(made(), given).value
    assert kube.dropped(given, sent, sent) == []
    kept = yaml.safe_load(yaml.safe_dump(sent))
    del pod(kept)["spec"]["priorityClasName"]
    del pod(kept)["spec"]["containers"][0]["securityContext"]["capabilities"]
    assert kube.dropped(given, sent, kept) == [
        "spec.priorityClasName",
        "spec.containers[job].securityContext.capabilities",
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "shm", "hostPath": {"path": "/tmp"}}]},
        {"containers": [{"name": "job", "env": [{"name": "PYTHONUNBUFFERED", "valueFrom": {}}]}]},
        {"containers": [{"name": "job", "volumeMounts": [{"mountPath": "/cvl", "subPath": "x"}]}]},
        {"containers": [{"name": "job", "volumeMounts": [{"mountPath": "//cvl", "subPath": "x"}]}]},
    ],
)
def test_the_cluster_is_not_said_to_have_lost_what_we_overruled(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    given = kube.read(written(tmp_path, {"spec": spec}))
    found = kube.under(made(), given)
    assert found.warnings
    assert kube.dropped(given, found.value, found.value) == []


def test_a_command_of_ours_has_no_arguments_of_a_template(tmp_path: Path) -> None:
    spec = JobSpec(run_id=RUN, argv=("echo", "ours"))
    given = kube.read(written(tmp_path, of_ours(args=["x"])))
    options = JobOptions(image="image", template=given)
    bare = job(options, spec, Marks(run_id=RUN, owner="", deadline=1.0), {})
    found = kube.under(bare, given)
    own = pod(found.value)["spec"]["containers"][0]
    assert (own["command"], own["args"]) == (["echo", "ours"], [])
    assert "containers[job].args" in found.warnings[0]


def test_an_empty_status_says_nothing(tmp_path: Path) -> None:
    """As `kubectl run --dry-run=client -o yaml` writes it."""
    data = {"kind": "Pod", "metadata": {"creationTimestamp": None}, "spec": {}, "status": {}}
    assert kube.read(written(tmp_path, data)).data == {}


def test_the_old_name_of_a_service_account_is_taken(tmp_path: Path) -> None:
    for name in ("serviceAccount", "serviceAccountName"):
        given = kube.read(written(tmp_path, {"spec": {name: "trainer"}}))
        assert kube.service_account(given) == "trainer"


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"TrainingJobName": "x"},
        {"StoppingCondition": {"MaxRuntimeInSeconds": 5}},
        {"StoppingCondition": {"MaxPendingTimeInSeconds": 9000}},
        {"RetryStrategy": {"MaximumRetryAttempts": 3}},
        {"ResourceConfig": {"KeepAlivePeriodInSeconds": 600}},
        {"ResourceConfig": {"InstanceType": "ml.p5.48xlarge"}},
        {"Tags": [{"Key": "cvl-deadline", "Value": "9"}]},
        {"Tags": [{"Key": "cvl-owner", "Value": "me"}]},
        {"EnableManagedSpotTraining": True},
        {"ProfilerRuleConfigurations": [{"RuleConfigurationName": "x"}]},
        {"AlgorithmSpecification": {"ContainerArguments": ["x"]}},
        {"Environment": {"CVL_GRACE": "9"}},
        {"InputDataConfig": [{"ChannelName": "cvl"}]},
    ],
)
def test_what_the_guarantee_rests_on_cannot_be_in_a_request(data: dict[str, Any]) -> None:
    given = Template(origin="t", data=data)
    with pytest.raises(UsageError, match="cannot be set in a template"):
        request_template.merged(a_training(), given, aws.RULES)


def test_a_request_template_adds_to_ours() -> None:
    given = Template(
        origin="t",
        data={
            "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
            "OutputDataConfig": {"KmsKeyId": "alias/mine"},
            "EnableNetworkIsolation": True,
            "Tags": [{"Key": "team", "Value": "vision"}],
            "RoleArn": "arn:aws:iam::123456789012:role/other",
        },
    )
    ours = a_training()
    found = request_template.merged(ours, given, aws.RULES)
    assert found.value["VpcConfig"] == given.data["VpcConfig"]
    assert found.value["OutputDataConfig"]["KmsKeyId"] == "alias/mine"
    assert (
        found.value["OutputDataConfig"]["S3OutputPath"]
        == a_training()["OutputDataConfig"]["S3OutputPath"]
    )
    keys = [each["Key"] for each in found.value["Tags"]]
    assert keys == ["cvl-run", "cvl-owner", "cvl-deadline", "team"]
    assert "RoleArn" in found.warnings[0]


@pytest.mark.parametrize(
    "data",
    [
        {"name": "x"},
        {"user_data": "#!/bin/sh"},
        {"ssh_key_names": ["mine"]},
        {"instance_type_name": "gpu_8x_h100"},
        {"region_name": "us-west-1"},
        {"tags": [{"key": "cvl-deadline", "value": "9"}]},
        {"quantity": 3},
        {"imagee": {}},
    ],
)
def test_what_cannot_be_in_lambdas_request(data: dict[str, Any]) -> None:
    ours = {"name": "n", "tags": [{"key": "cvl-deadline", "value": "1"}], "user_data": ""}
    with pytest.raises(UsageError):
        template.under(ours, Template(origin="t", data=data))


# --- the command line ----------------------------------------------------------------------------


def test_no_project_names_a_template(tmp_path: Path) -> None:
    for name in ("pod_template", "request_template"):
        assert not allowed(("runner", "k8s", name), "pod.yaml", tmp_path)


CONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: c, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: c}}]
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    config = written(tmp_path, CONFIG, "kubeconfig")
    options = ("--k8s", "--image", "i", "--dry-run", "--json")
    return Desk(
        folder=tmp_path, options=options, env={"KUBECONFIG": str(config)}, left=lambda _: ()
    )


def test_a_dry_run_shows_the_pod_with_the_template(desk: Desk) -> None:
    file = written(desk.folder, WHOLE)
    done = desk.sh("true", "--pod-template", str(file))
    assert done.code == 0, done.err
    request = json.loads(done.out)["request"]
    spec = pod(request[-1])["spec"]
    assert (spec["priorityClassName"], spec["restartPolicy"]) == ("low", "Never")


def test_the_image_may_stand_in_the_template(desk: Desk) -> None:
    own = {"name": "job", "image": "mine", "imagePullPolicy": "Always"}
    file = written(desk.folder, {"spec": {"serviceAccountName": "sa", "containers": [own]}})
    options = [each for each in desk.options if each not in {"--image", "i"}]
    done = desk.cvl("run", *options, "--pod-template", str(file), "one", "args")
    assert done.code == 0, done.err
    spec = pod(json.loads(done.out)["request"][-1])["spec"]
    assert spec["containers"][0] | own == spec["containers"][0]
    assert spec["serviceAccountName"] == "sa"
    assert "do not count" not in done.err


@pytest.mark.parametrize("text", ["spec: {restartPolicy: Always}", "spec: [", "kind: Job", "a: b"])
def test_a_bad_template_is_one_sentence_and_nothing_is_made(text: str, desk: Desk) -> None:
    file = written(desk.folder, text)
    done = desk.sh("true", "--pod-template", str(file))
    assert done.code == 2
    assert str(file) in done.err
    assert "Traceback" not in done.err
    assert desk.ps() == []


def test_a_template_in_the_users_file_is_relative_to_it(desk: Desk) -> None:
    home = desk.folder / "config" / "cvl"
    home.mkdir(parents=True)
    written(home, '[runner.k8s]\npod_template = "pod.yaml"\n', "cvl.toml")
    written(home, "spec: {priorityClassName: low}", "pod.yaml")
    there = replace(desk, env={**desk.env, "XDG_CONFIG_HOME": str(desk.folder / "config")})
    done = there.sh("true")
    assert done.code == 0, done.err
    assert pod(json.loads(done.out)["request"][-1])["spec"]["priorityClassName"] == "low"


def test_a_template_goes_with_the_runner_that_has_it(desk: Desk) -> None:
    done = desk.sh("true", "--request-template", "x")
    assert done.code == 2
    assert "--request-template goes with --remote lambda or --sagemaker" in done.err
