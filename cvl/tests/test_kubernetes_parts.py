"""The parts of the Kubernetes runner that need no cluster: objects, entry script, configuration."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.container.contents import contents_of
from cvl.core.errors import AuthError, CvlError, Denied, MissingTool, UsageError
from cvl.core.spec import Cause, JobSpec, Limits, Source
from cvl.core.tags import Marks
from cvl.providers.kubernetes import (
    check,
    files,
    job_options,
    kubeconfig,
    lost_pods,
    pods,
)
from cvl.providers.kubernetes.api_errors import understood
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.credentials import Granted, granted, headers
from cvl.providers.kubernetes.exit_line import Ending
from cvl.providers.kubernetes.job_options import JobOptions
from cvl.providers.kubernetes.manifest import escaped, objects
from cvl.providers.kubernetes.runner import K8sRunner

LIMIT = 60.0
SHELLS = [["/bin/sh"]] + ([[str(shutil.which("busybox")), "sh"]] if shutil.which("busybox") else [])
MARKS = Marks(run_id="one-1125-000000-0123456789", owner="owner1", deadline=1_790_000_000.5)


def expanded(text: str, known: Mapping[str, str]) -> str:
    """What Kubernetes makes of an argument: third_party/forked/golang/expansion, in short."""
    out, at = "", 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            if text[at + 1] == "$":
                out, at = out + "$", at + 2
                continue
            if text[at + 1] == "(" and (end := text.find(")", at)) > 0:
                name = text[at + 2 : end]
                out, at = out + known.get(name, f"$({name})"), end + 1
                continue
        out, at = out + text[at], at + 1
    return out


@given(st.text(alphabet=st.sampled_from("$()ab X"), max_size=20))
def test_kubernetes_makes_just_that_word_again(word: str) -> None:
    known = dict.fromkeys(("a", "b", "X", "", "ab"), "REPLACED")
    assert expanded(escaped(word), known) == word
    assert "$(" not in escaped(word).replace("$$", "")


def test_what_needs_no_escape_has_none() -> None:
    assert escaped("$HOME costs 5$, $(X)") == "$HOME costs 5$, $$(X)"


def spec_of(folder: Path | None = None, **more: Any) -> JobSpec:
    source = Source(root=folder, folder="examples/one") if folder else None
    made: dict[str, Any] = {"argv": ("sh", "-c", "echo '$(X)'"), "source": source}
    return JobSpec(run_id=MARKS.run_id, **{**made, **more})


@pytest.fixture
def example(tmp_path: Path) -> Path:
    folder = tmp_path / "repo/examples/one"
    folder.mkdir(parents=True)
    (folder / "example.yaml").write_text("name: one\n")
    (folder / "train.sh").write_text("echo hi\n")
    (folder / "train.sh").chmod(0o755)
    return tmp_path / "repo"


def made(wish: JobOptions, spec: JobSpec, *, shown: bool = False) -> list[dict[str, Any]]:
    keys: Mapping[str, bytes] = {}
    if spec.source:
        keys = files.packed(contents_of(spec.source), spec).keys
    return objects(wish, spec, MARKS, keys, shown=shown)


def job_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in found if each["kind"] == "Job")


FULL = JobOptions(
    namespace="ml",
    image="registry.example/train:1",
    gpu=2,
    memory="8Gi",
    cpu="500m",
    disk="20Gi",
    shm="1Gi",
    node_selector={"kind": "gpu"},
    volumes={"/data": "claim"},
    service_account="trainer",
    pull_secrets=("registry",),
    labels={"kueue.x-k8s.io/queue-name": "team", "cvl.run": "not-this"},
    annotations={"note": "x"},
    start_limit=600.0,
)


def test_a_job_is_what_was_promised(example: Path) -> None:
    limits = Limits(timeout=90.5, grace=7.0)
    found = made(FULL, spec_of(example, limits=limits, secrets={"TOKEN": "s3cret"}))
    job = job_of(found)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == ("cvl-" + MARKS.run_id, "ml")
    assert (spec["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert (pod["activeDeadlineSeconds"], spec["activeDeadlineSeconds"]) == (91, 691)
    assert spec["ttlSecondsAfterFinished"] >= 3600
    labels = job["metadata"]["labels"]
    assert labels["cvl.run"] == MARKS.run_id == spec["template"]["metadata"]["labels"]["cvl.run"]
    assert labels["cvl.owner"] == "owner1"
    assert labels["kueue.x-k8s.io/queue-name"] == "team"
    assert job["metadata"]["annotations"]["cvl.deadline"] == "1790000000"
    assert (container["name"], container["image"]) == ("job", "registry.example/train:1")
    assert container["imagePullPolicy"] == "IfNotPresent"
    hard = {"nvidia.com/gpu": "2", "memory": "8Gi", "ephemeral-storage": "20Gi"}
    assert container["resources"] == {"requests": {**hard, "cpu": "500m"}, "limits": hard}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert (pod["nodeSelector"], pod["serviceAccountName"]) == ({"kind": "gpu"}, "trainer")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each.pop("name"): each for each in pod["volumes"]}
    assert volumes[mounted["/dev/shm"]] == {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    assert volumes[mounted["/data"]]["persistentVolumeClaim"] == {"claimName": "claim"}
    assert container["args"] == ["sh", "-c", "echo '$$(X)'"]
    token = next(each for each in container["env"] if each["name"] == "TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["key"] == "TOKEN"
    assert "s3cret" not in json.dumps(job)
    secrets = {each["metadata"]["name"]: each for each in found if each["kind"] == "Secret"}
    values = secrets[token["valueFrom"]["secretKeyRef"]["name"]]["data"]
    assert base64.b64decode(values["TOKEN"]) == b"s3cret"


def test_what_is_shown_holds_no_secret(example: Path) -> None:
    found = made(FULL, spec_of(example, secrets={"TOKEN": "s3cret"}), shown=True)
    text = json.dumps(found)
    assert "<redacted:TOKEN>" in text
    assert "s3cret" not in text
    assert base64.b64encode(b"s3cret").decode() not in text


def test_a_bare_job_is_the_command_and_nothing_of_ours() -> None:
    job = job_of(made(JobOptions(image="i"), spec_of(argv=("echo", "$(X)"))))
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["echo", "$$(X)"]
    assert "args" not in container
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/dev/shm"]
    own = made(JobOptions(image="i"), spec_of(argv=()))
    assert "command" not in job_of(own)["spec"]["template"]["spec"]["containers"][0]


def test_many_nodes_find_each_other() -> None:
    found = made(JobOptions(image="i"), spec_of(nodes=3))
    service = next(each for each in found if each["kind"] == "Service")
    job = job_of(found)
    pod = job["spec"]["template"]["spec"]
    name = service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert (
        service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    )
    shape = ("completionMode", "completions", "parallelism")
    assert [job["spec"][each] for each in shape] == ["Indexed", 3, 3]
    assert pod["subdomain"] == name
    env = {each["name"]: each for each in pod["containers"][0]["env"]}
    assert env["WORLD_SIZE"]["value"] == "3"
    assert env["MASTER_ADDR"]["value"] == f"{job['metadata']['name']}-0.{name}"
    assert "job-completion-index" in str(env["NODE_RANK"])


@pytest.mark.parametrize("nodes", [1, 2])
def test_every_object_is_as_the_official_document_says(nodes: int, example: Path) -> None:
    schema = pytest.importorskip("cvl.testing.kubernetes.schema")
    document = schema.find()[0]
    if document is None:
        pytest.skip(schema.find()[1])
    kinds = {
        "Job": "io.k8s.api.batch.v1.Job",
        "Secret": "io.k8s.api.core.v1.Secret",
        "Service": "io.k8s.api.core.v1.Service",
    }
    spec = spec_of(example, secrets={"A": "b"}, env={"X": "y"}, nodes=nodes)
    for shown in (False, True):
        for each in made(FULL, spec, shown=shown):
            assert not document.object(kinds[each["kind"]], each).all


def test_a_large_example_travels_in_several_secrets(example: Path) -> None:
    (example / "examples/one/data").write_bytes(os.urandom(2_500_000))
    found = made(JobOptions(image="i"), spec_of(example))
    secrets = [each for each in found if each["kind"] == "Secret"]
    assert len(secrets) == 4
    for each in secrets:
        assert sum(len(base64.b64decode(value)) for value in each["data"].values()) < 1 << 20
    sources = job_of(found)["spec"]["template"]["spec"]["volumes"][1]["projected"]["sources"]
    assert [each["secret"]["name"] for each in sources] == [s["metadata"]["name"] for s in secrets]


def test_too_much_is_told_with_its_limit_and_the_largest(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_SENT", 1 << 20)
    (example / "examples/one/weights.bin").write_bytes(os.urandom(files.MOST_SENT + 1000))
    with pytest.raises(UsageError, match=r"more than the 1.0 MB that travel") as caught:
        made(JobOptions(image="i"), spec_of(example))
    assert "weights.bin" in caught.value.hint


def test_what_is_too_much_for_secrets_is_sent_later(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST", 1000)
    (example / "examples/one/data").write_bytes(os.urandom(2000))
    spec = spec_of(example)
    assert spec.source
    packed = files.packed(contents_of(spec.source), spec)
    assert packed.archive
    with packed.archive as archive:
        archive.seek(0)
        assert len(archive.read()) == packed.size > 2000
    assert sorted(packed.keys) == ["collect.sh", "entry.sh"]
    job = job_of(objects(JobOptions(image="i"), spec, MARKS, packed.keys, shown=False))
    names = [each["name"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert "CVL_AWAIT" in names
    small = job_of(made(JobOptions(image="i"), spec_of()))
    assert "CVL_AWAIT" not in json.dumps(small)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"memory": "8gb"}, "--memory 8gb"),
        ({"cpu": "-1"}, "--cpu -1"),
        ({"gpu": -1}, "--gpu -1"),
        ({"namespace": "My_Space"}, "no namespace"),
        ({"pull_policy": "Sometimes"}, "--pull-policy Sometimes"),
    ],
)
def test_what_no_cluster_takes_is_refused_here(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        JobOptions(**wish)
    with pytest.raises(UsageError, match="KEY=VALUE"):
        job_options.pairs(["x"], "--label")
    with pytest.raises(UsageError, match="CLAIM"):
        job_options.mounts(["data"])


@pytest.mark.parametrize("word", ["a\0b", "\udcff"])
def test_what_is_no_text_is_refused_without_being_shown(word: str) -> None:
    with pytest.raises(UsageError, match="an argument is no text"):
        made(JobOptions(image="i"), spec_of(argv=("echo", word)))
    with pytest.raises(UsageError, match="the value of TOKEN is no text") as caught:
        made(JobOptions(image="i"), spec_of(secrets={"TOKEN": word}))
    assert word not in str(caught.value)


def test_the_runner_keeps_the_names_that_were_promised() -> None:
    runner = K8sRunner(namespace="default")
    with pytest.raises(UsageError, match="no image"):
        runner.run(command=["true"], gpu=0, memory=None, timeout_minutes=None)


# --- the entry script ----------------------------------------------------------------------------


class Container:
    """The entry script in a folder that looks like a container's file system."""

    def __init__(self, shell: list[str], folder: Path, spec: JobSpec) -> None:
        self.shell, self.folder = shell, folder
        for name in ("cvl-in", "cvl", "workspace", "cvlization_repo"):
            (folder / name).mkdir()
        assert spec.source is not None
        packed = files.packed(contents_of(spec.source), spec)
        self.archive = packed.archive
        for key, data in packed.keys.items():
            (folder / "cvl-in" / key).write_bytes(data)

    def start(self, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        ours = {"CVL_ROOT_DIR": str(self.folder), "CVL_RUN_ID": "r", "CVL_HOLD": "0"}
        return subprocess.Popen(
            [*self.shell, str(self.folder / "cvl-in/entry.sh"), *argv],
            env={"PATH": os.environ["PATH"], **ours, **env},
            stdout=subprocess.PIPE,
        )

    def run(self, *argv: str, **env: str) -> tuple[int, bytes]:
        with self.start(*argv, **env) as process:
            out, _ = process.communicate(timeout=LIMIT)
            return process.returncode, out

    def collected(self, most: str = "1000000") -> tuple[int, set[str]]:
        """What the collect script sends: the size in KiB, and the names."""
        done = subprocess.run(
            [*self.shell, str(self.folder / "cvl-in/collect.sh"), most],
            env={"PATH": os.environ["PATH"], "CVL_ROOT_DIR": str(self.folder)},
            capture_output=True,
            check=True,
            timeout=LIMIT,
        )
        head, _, tar = done.stdout.partition(b"\n")
        told = subprocess.run(["tar", "-tif", "-"], input=tar, capture_output=True, check=bool(tar))
        return int(head), set(told.stdout.decode().splitlines())


@pytest.fixture(params=SHELLS, ids=lambda shell: Path(shell[0]).name)
def container(request: pytest.FixtureRequest, tmp_path: Path, example: Path) -> Container:
    folder = tmp_path / "container"
    folder.mkdir()
    (example / "examples/one/link").symlink_to("train.sh")
    given_file = tmp_path / "given"
    given_file.write_text("given")
    spec = spec_of(example, inputs={"sub/given": given_file})
    return Container(request.param, folder, spec)


def test_what_is_new_or_changed_is_collected(container: Container) -> None:
    line = (
        "cat train.sh; echo new >>train.sh; mkdir -p 'a b/c'; echo x >'a b/c/-d'; ln -s x l; "
        'echo w >"$CVL_WORK_DIR/w"; cat "$CVL_WORK_DIR/sub/given"; mkdir __pycache__; '
        "echo >__pycache__/x; echo r >../cvlization_repo/r; echo err >&2; exit 42"
    )
    code, out = container.run("sh", "-c", line)
    assert (code, out) == (42, b"echo hi\ngivenerr\n[cvl] r: exit code 42\n")
    assert container.collected()[1] == {
        "workspace/train.sh",
        "workspace/a b/c/-d",
        "workspace/l",
        "cvl/work/w",
        "cvlization_repo/r",
    }
    assert os.access(container.folder / "workspace/train.sh", os.X_OK)


def test_nothing_new_is_nothing(container: Container) -> None:
    assert container.run("true") == (0, b"[cvl] r: exit code 0\n")
    assert container.collected() == (0, set())


def test_too_much_is_only_told(container: Container) -> None:
    container.run("sh", "-c", "head -c 100000 /dev/urandom >big")
    kib, names = container.collected("10")
    assert (kib >= 98, names) == (True, set())


def test_arguments_arrive_as_they_are(container: Container) -> None:
    words = ["-x", "--", "", "a b", "'", "$(id)", "\n", "\\", "é\u2028"]
    _, out = container.run("sh", "-c", 'printf "%s|" "$@"', "sh", *words)
    assert out == "".join(f"{word}|" for word in words).encode() + b"[cvl] r: exit code 0\n"


def test_term_reaches_the_job_and_results_wait(container: Container) -> None:
    line = "trap 'echo saved >saved; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with container.start("sh", "-c", line, CVL_GRACE="20", CVL_HOLD="60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.readline() == b"[cvl] r: exit code 9 (stopped)\n"
        assert container.collected()[1] == {"workspace/saved"}
        (container.folder / "cvl/collected").touch()
        assert process.wait(LIMIT) == 9


def test_a_job_that_does_not_end_is_killed_in_time(container: Container) -> None:
    line = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    with container.start("sh", "-c", line, CVL_GRACE="0") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.readline() == b"[cvl] r: exit code 137 (stopped)\n"
        assert process.wait(LIMIT) == 137


class Sent(Container):
    """One whose files are sent while it runs."""

    def receive(self, data: bytes, length: int) -> int:
        """What the client has run in it; returns the exit code."""
        command = [*self.shell, "-c", files.RECEIVE, "sh", str(self.folder / "cvl"), str(length)]
        return subprocess.run(command, input=data, check=False, timeout=LIMIT).returncode


@pytest.fixture(params=SHELLS, ids=lambda shell: Path(shell[0]).name)
def sent_to(
    request: pytest.FixtureRequest, tmp_path: Path, example: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sent]:
    monkeypatch.setattr(files, "MOST", 0)
    folder = tmp_path / "container"
    folder.mkdir()
    made = Sent(request.param, folder, spec_of(example))
    assert made.archive
    with made.archive:
        yield made


def test_files_that_are_sent_are_waited_for_and_checked(sent_to: Sent) -> None:
    assert sent_to.archive
    sent_to.archive.seek(0)
    data = sent_to.archive.read()
    with sent_to.start("sh", "-c", "cat train.sh; echo r >new", CVL_AWAIT="60") as process:
        assert sent_to.receive(data[:-10], len(data)) != 0
        assert not (sent_to.folder / "cvl/sent").exists()
        assert sent_to.receive(data, len(data)) == 0
        out, _ = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (0, b"echo hi\n[cvl] r: exit code 0\n")
    assert sent_to.collected()[1] == {"workspace/new"}


def test_files_that_nobody_sends_end_it(sent_to: Sent) -> None:
    code, out = sent_to.run("true", CVL_AWAIT="1")
    assert code == 125
    assert b"cvl: nobody has sent the job's files within 1 seconds\n" in out
    assert out.endswith(b"[cvl] r: exit code 125\n")


def test_term_ends_the_waiting_for_files(sent_to: Sent) -> None:
    with sent_to.start("true", CVL_AWAIT="600") as process:
        process.terminate()
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode in {143, -15}
    assert not out or out.endswith(b"[cvl] r: exit code 143 (stopped)\n")


def test_python_unpacks_where_there_is_no_tar(container: Container, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "mkdir", "sleep", "find", "touch", "sed", "grep"):
        (tools / name).symlink_to(shutil.which(name) or name)
    assert container.run("cat", "train.sh", PATH=str(tools))[0] == 125
    (tools / "python3").symlink_to(sys.executable)
    (tools / "tar").symlink_to(shutil.which("tar") or "tar")  # of no use without gzip
    code, out = container.run("cat", "train.sh", PATH=str(tools))
    assert (code, out) == (0, b"echo hi\n[cvl] r: exit code 0\n")


# --- configuration -------------------------------------------------------------------------------


def write(file: Path, **parts: Any) -> Path:
    file.write_text(json.dumps({"kind": "Config", "apiVersion": "v1", **parts}))
    return file


def named(kind: str, name: str, **entry: Any) -> dict[str, Any]:
    return {"name": name, kind: entry}


def test_files_are_merged_and_the_first_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    first = write(
        tmp_path / "a.yaml",
        contexts=[named("context", "one", cluster="c", user="u")],
        clusters=[named("cluster", "c", server="https://first/")],
    )
    second = write(
        tmp_path / "b/b.yaml",
        **{"current-context": "two"},
        contexts=[named("context", "two", cluster="c", user="u")],
        clusters=[named("cluster", "c", server="https://second")],
        users=[named("user", "u", tokenFile="token")],
    )
    (tmp_path / "b/token").write_text("abc\n")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}:{tmp_path}/absent")
    found = kubeconfig.access()
    assert (found.context, found.server) == ("two", "https://first")
    assert dict(headers(found, Granted())) == {"Authorization": "Bearer abc"}
    assert kubeconfig.access("one").context == "one"
    with pytest.raises(UsageError, match="no context 'three'") as caught:
        kubeconfig.access("three")
    assert "one, two" in caught.value.hint


def test_no_configuration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert not kubeconfig.configured()
    assert K8sRunner.owner() is None
    with pytest.raises(UsageError, match="no kubeconfig found"):
        kubeconfig.access()
    broken = tmp_path / "broken"
    broken.write_text("a: [\n")
    with pytest.raises(UsageError, match="broken, line 1: no kubeconfig"):
        kubeconfig.access(named=str(broken))


def test_a_pod_uses_its_own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "INSIDE", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    (tmp_path / "token").write_text("first")
    found = kubeconfig.access()
    assert (found.context, found.server) == ("in-cluster", "https://[::1]:443")
    assert dict(headers(found, Granted())) == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second")
    assert dict(headers(found, Granted())) == {"Authorization": "Bearer second"}


PLUGIN = """\
#!/bin/sh
echo x >>"$0.calls"
case $KUBERNETES_EXEC_INFO in *ExecCredential*) ;; *) exit 3 ;; esac
[ "$1 $FLAVOUR" = "get-token sweet" ] || exit 4
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
"status": {"token": "t-%s", "expirationTimestamp": "%s"}}' "$(wc -l <"$0.calls" | tr -d ' ')" "$DUE"
"""


def plugin_access(tmp_path: Path, due: str, **more: Any) -> kubeconfig.Access:
    program = tmp_path / "plugin"
    program.write_text(PLUGIN)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(program),
        "args": ["get-token"],
        "env": [{"name": "FLAVOUR", "value": "sweet"}, {"name": "DUE", "value": due}],
        "provideClusterInfo": "true",
    }
    return kubeconfig.Access(
        context="c",
        server="https://x",
        cluster={},
        user={"exec": {**plugin, **more}},
    )


def test_a_credential_program_is_asked_again_when_that_is_due(tmp_path: Path) -> None:
    access = plugin_access(tmp_path, "2100-01-01T00:00:00Z")
    long = granted(access, print)
    assert dict(headers(access, long)) == {"Authorization": "Bearer t-1"}
    assert not long.stale()
    short = granted(plugin_access(tmp_path, "2020-01-01T00:00:00Z"), print)
    assert dict(headers(access, short)) == {"Authorization": "Bearer t-2"}
    assert short.stale()


def test_a_credential_program_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="plugin, which gives the credentials, failed"):
        granted(plugin_access(tmp_path, "", args=["other"]), print)
    missing = plugin_access(tmp_path, "", command="no-such-program", installHint="get it there")
    with pytest.raises(MissingTool, match="no-such-program not installed") as caught:
        granted(missing, print)
    assert caught.value.hint == "get it there"


# --- refusals, permissions, states ---------------------------------------------------------------


def status(code: int, message: str) -> CvlError:
    return understood(code, json.dumps({"kind": "Status", "message": message}).encode())


def test_a_refusal_says_which_permission_is_missing() -> None:
    text = 'jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group "batch" '
    error = status(403, text + 'in the namespace "ml"')
    assert isinstance(error, Denied)
    assert error.hint == (
        'ask for a Role with apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]'
    )
    nodes = status(403, 'nodes is forbidden: User "u" cannot list resource "nodes" in API group ""')
    assert "ClusterRole" in nodes.hint
    quota = status(403, 'pods "x" is forbidden: exceeded quota: q, requested: pods=1')
    assert "quota" in quota.hint
    assert "log in" in status(401, "Unauthorized").hint


def test_rights_are_read_as_rbac_means_them() -> None:
    def rule(groups: list[str], resources: list[str], verbs: list[str], **more: Any) -> Any:
        return {"apiGroups": groups, "resources": resources, "verbs": verbs, **more}

    log = ("", "pods/log", "get")
    assert check.allowed([rule(["*"], ["*"], ["*"])], log)
    assert check.allowed([rule([""], ["pods/log"], ["get"])], log)
    assert check.allowed([rule([""], ["*/log"], ["get"])], log)
    assert not check.allowed([rule([""], ["pods"], ["get"])], log)
    assert not check.allowed([rule([""], ["pods/log"], ["get"], resourceNames=["x"])], log)
    assert not check.allowed([rule(["batch"], ["pods/log"], ["get"])], log)


def pod(**status_: Any) -> dict[str, Any]:
    meta = status_.pop("meta", {})
    return {
        "metadata": {"name": "p", **meta},
        "spec": {"activeDeadlineSeconds": 60},
        "status": status_,
    }


def state(**what: Any) -> list[dict[str, Any]]:
    return [{"name": "job", "state": what}]


def ended(code: int, reason: str = "Error", **more: Any) -> list[dict[str, Any]]:
    times = {"startedAt": "2026-11-25T00:00:00Z", "finishedAt": "2026-11-25T00:00:30Z"}
    return state(terminated={"exitCode": code, "reason": reason, **times, **more})


RUNNING = state(running={"startedAt": "2026-11-25T00:00:00Z"})
NOW = pods.epoch("2026-11-25T00:00:45Z")
FATES = [
    (pod(phase="Running", containerStatuses=RUNNING), None, None),
    (pod(phase="Pending"), None, None),
    (pod(phase="Unknown"), None, None),
    (pod(phase="Failed", containerStatuses=ended(7)), None, (7, Cause.EXITED)),
    (pod(phase="Succeeded", containerStatuses=ended(0, "Completed")), None, (0, Cause.EXITED)),
    (pod(containerStatuses=ended(137, "OOMKilled")), None, (137, Cause.OUT_OF_MEMORY)),
    (pod(containerStatuses=ended(128, "ContainerCannotRun")), None, (128, Cause.NOT_STARTED)),
    (pod(containerStatuses=ended(128, "StartError")), None, (128, Cause.NOT_STARTED)),
    (
        pod(phase="Failed", reason="DeadlineExceeded", containerStatuses=ended(143)),
        None,
        (128, Cause.TIMEOUT),
    ),
    (pod(phase="Failed", reason="DeadlineExceeded", containerStatuses=RUNNING), None, None),
    (
        pod(phase="Failed", reason="DeadlineExceeded", containerStatuses=RUNNING),
        "stopped",
        (143, Cause.TIMEOUT),
    ),
    (
        pod(phase="Running", containerStatuses=RUNNING, startTime="2026-11-24T23:59:00Z"),
        "stopped",
        (143, Cause.TIMEOUT),
    ),
    (
        pod(phase="Running", containerStatuses=RUNNING, startTime="2026-11-25T00:00:00Z"),
        "stopped",
        (143, Cause.STOPPED),
    ),
    (pod(phase="Running", containerStatuses=RUNNING), "", (143, Cause.EXITED)),
    (pod(phase="Running", containerStatuses=RUNNING), "out of memory", (143, Cause.OUT_OF_MEMORY)),
    (pod(phase="Failed", reason="Evicted", message="low on disk"), None, (128, Cause.LOST)),
    (
        pod(phase="Failed", reason="Evicted", containerStatuses=ended(137)),
        None,
        (128, Cause.LOST),
    ),
    (pod(phase="Failed", reason="OutOfcpu"), None, (128, Cause.NOT_STARTED)),
    (
        pod(phase="Pending", containerStatuses=state(waiting={"reason": "InvalidImageName"})),
        None,
        (128, Cause.NOT_STARTED),
    ),
    (
        pod(phase="Pending", containerStatuses=state(waiting={"reason": "ImagePullBackOff"})),
        None,
        None,
    ),
    (
        pod(
            containerStatuses=ended(143),
            meta={
                "deletionTimestamp": "2026-11-25T00:00:40Z",
                "deletionGracePeriodSeconds": 30,
            },
        ),
        None,
        (143, Cause.STOPPED),
    ),
    (
        pod(
            containerStatuses=ended(7),
            meta={"deletionTimestamp": "2026-11-25T00:00:40Z", "deletionGracePeriodSeconds": 0},
        ),
        None,
        (7, Cause.EXITED),
    ),
]


@pytest.mark.parametrize(("found", "why", "told"), FATES)
def test_a_pods_status_tells_how_its_job_ended(
    found: dict[str, Any], why: str | None, told: tuple[int, Cause] | None
) -> None:
    ending = None if why is None else Ending(code=143, why=why, time="2026-11-25T00:00:30Z")
    fate = pods.fate(found, ending, NOW)
    assert (fate and (fate.code, fate.cause)) == told


def test_what_a_pod_waits_for_is_said_in_the_clusters_words() -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    unschedulable = pod(phase="Pending", conditions=[{**condition, "message": message}])
    assert pods.waits_for(unschedulable, []) == f"Unschedulable: {message}"
    pulling = pod(containerStatuses=state(waiting={"reason": "ContainerCreating"}))
    events = [
        {"reason": "Scheduled", "message": "to node a", "lastTimestamp": "2026-11-25T00:00:01Z"},
        {"reason": "Pulling", "message": "image x", "lastTimestamp": "2026-11-25T00:00:02Z"},
    ]
    assert pods.waits_for(pulling, events) == "Pulling: image x"
    back_off = pod(containerStatuses=state(waiting={"reason": "ErrImagePull", "message": "no\n x"}))
    assert pods.waits_for(back_off, events) == "ErrImagePull: no x"
    assert not pods.waits_for(pod(containerStatuses=RUNNING), events)


def test_cvl_loads_no_client_to_say_its_version() -> None:
    line = "import sys; import cvl.__main__; print([m for m in sys.modules if 'websockets' in m])"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
    assert re.match(r"\d", done.stdout) is None


def test_a_second_pod_and_a_second_start_run_nothing(container: Container) -> None:
    first = container.folder / "cvl-first"
    first.mkdir()
    (first / "pods").write_text("0 aaa\n1 bbb\n")
    line = ("sh", "-c", "echo ran")
    assert container.run(*line, CVL_POD="bbb")[0] == 125
    assert container.run(*line, CVL_POD="aaa", CVL_NODE="1")[0] == 125
    assert container.run(*line, CVL_POD="bbb", CVL_NODE="1") == (0, b"ran\n[cvl] r: exit code 0\n")
    code, out = container.run(*line, CVL_POD="bbb", CVL_NODE="1")
    assert (code, b"ran\n" in out, out.endswith(b"exit code 125 (again)\n")) == (125, False, True)


def test_who_is_not_noted_runs(container: Container) -> None:
    assert container.run("true", CVL_POD="aaa")[0] == 0


DELETED = {"deletionTimestamp": "2026-11-25T00:00:40Z", "deletionGracePeriodSeconds": 30}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"reason": "Preempted", "message": "by a/b on n1"}, "Preempted: by a/b on n1"),
        ({"reason": "TaintManagerEviction", "message": "m"}, "TaintManagerEviction: m"),
        ({"reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory"),
        ({"reason": "Killing", "message": "Stopping container job"}, ""),
        ({"reason": "Scheduled", "message": "Successfully assigned a/b to n1"}, ""),
    ],
)
def test_events_tell_why_a_pod_was_ended(event: dict[str, str], said: str) -> None:
    told = {**event, "type": "Normal", "lastTimestamp": "2026-11-25T00:00:01Z"}
    assert lost_pods.cause(pod(meta=DELETED), [told]) == said
    assert lost_pods.node_of(None, [told]) == ("n1" if event["reason"] == "Scheduled" else "")


def test_conditions_and_nodes_tell_it_too() -> None:
    reason = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    disrupted = {"type": "DisruptionTarget", "status": "True", **reason}
    said = "EvictionByEvictionAPI: Eviction API: evicting"
    assert lost_pods.cause(pod(conditions=[disrupted]), []) == said
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {}}
    assert lost_pods.of_node("n1", ready) == ""
    assert lost_pods.of_node("n1", None) == "node n1 is gone"
    drained = {**ready, "spec": {"unschedulable": True}}
    assert lost_pods.of_node("n1", drained) == "node n1 is being drained"
    silent = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}, "spec": {}}
    assert "node n1 is not ready" in lost_pods.of_node("n1", silent)


def test_a_job_asks_for_no_second_pod() -> None:
    spec = job_of(made(JobOptions(image="i"), spec_of()))["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"][0]["type"]) == ("FailJob", "DisruptionTarget")
    notes = spec["template"]["metadata"]["annotations"]
    assert notes["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    other = JobOptions(image="i", annotations={"karpenter.sh/do-not-disrupt": "false"})
    chosen = job_of(made(other, spec_of()))["spec"]["template"]["metadata"]["annotations"]
    assert chosen["karpenter.sh/do-not-disrupt"] == "false"


def test_a_container_that_is_another_one_is_a_second_start() -> None:
    seen = lost_pods.Losses(Client(), "default")
    waits = pod(containerStatuses=state(waiting={"reason": "ContainerCreating"}))
    first, second = (
        pod(containerStatuses=[{**RUNNING[0], "containerID": f"docker://{n}"}]) for n in "ab"
    )
    assert [seen.see(0, each) for each in (waits, first, first, waits)] == [False] * 4
    assert not seen.see(1, second)
    assert seen.see(0, second)
