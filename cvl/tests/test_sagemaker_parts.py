"""The parts of the SageMaker runner that need no engine: request, entry script, logs, outputs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvl.container.command import command, docker_runs
from cvl.container.contents import entry_script
from cvl.core.errors import (
    AuthError,
    Denied,
    FetchError,
    Missing,
    MissingTool,
    Rejected,
    Taken,
    Unreachable,
    UsageError,
)
from cvl.core.scope import Scope
from cvl.core.spec import JobSpec, Limits, Needs, Source, new_run_id
from cvl.core.tags import Marks, name_of
from cvl.providers.aws.api_errors import understood
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker import docker
from cvl.providers.sagemaker.image import entry
from cvl.providers.sagemaker.inputs import exports, script
from cvl.providers.sagemaker.job import code_in
from cvl.providers.sagemaker.job_options import JobOptions, request, runtime
from cvl.providers.sagemaker.logs import LogReader
from cvl.providers.sagemaker.outputs import fetch
from cvl.providers.sagemaker.s3_location import S3Location
from cvl.run.nodes import NodeEnd, first_failed
from cvl.testing.sagemaker import FAULTS, AwsCloud
from cvl.testing.sagemaker.cloud import BUCKET, missing
from cvl.testing.sagemaker.faults import Fault
from cvl.testing.sagemaker.model import faults_of_request
from cvl.tests.fakes import FakeClock

SHELLS = [shell for shell in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]
LIMIT = 30.0
ROLE = "arn:aws:iam::123456789012:role/service-role/cvl"


@pytest.fixture(scope="module")
def clouds() -> Iterator[AwsCloud]:
    if why := missing():
        pytest.skip(why)
    with AwsCloud() as running:
        yield running


@pytest.fixture
def cloud(clouds: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> AwsCloud:
    clouds.reset()
    for name, value in clouds.env.items():
        monkeypatch.setenv(name, value)
    return clouds


def job_options(**more: object) -> JobOptions:
    given = {
        "role_arn": ROLE,
        "instance_type": "ml.g5.xlarge",
        "output": S3Location.parse("s3://bucket/some/where/"),
    }
    return JobOptions(**{**given, **more})  # type: ignore[arg-type]


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,40}", fullmatch=True)


@settings(deadline=None)
@given(
    example=st.text(max_size=80),
    secrets=st.dictionaries(NAMES, st.text(), max_size=120),
    spot=st.booleans(),
    seconds=st.floats(0.001, 28 * 86400),
    nodes=st.integers(1, 20),
)
def test_every_request_is_one_that_aws_takes(
    example: str, secrets: Mapping[str, str], spot: bool, seconds: float, nodes: int
) -> None:
    pytest.importorskip("botocore")
    limits = Limits(timeout=seconds)
    spec = JobSpec(
        run_id=new_run_id(example), argv=("true",), secrets=secrets, nodes=nodes, limits=limits
    )
    run = runtime(limits, None)
    marks = Marks(run_id=spec.run_id, owner="o" * 32, deadline=1.8e9)
    asked = request(job_options(spot=spot), spec, run, image="i", marks=marks)
    assert faults_of_request("sagemaker", "CreateTrainingJob", asked) == []
    assert asked["TrainingJobName"] == name_of(spec.run_id)
    shown = asked["Environment"]
    assert isinstance(shown, dict)
    forwarded = {name: f"<redacted:{name}>" for name in list(secrets)[:90]}
    assert shown.keys() - {f"CVL_SECRET_{name}" for name in forwarded} == {
        "CVL_RUN_ID",
        "CVL_GRACE",
    }
    assert all(shown[f"CVL_SECRET_{name}"] == value for name, value in forwarded.items())


def test_money_and_time_limit_a_job() -> None:
    assert runtime(Limits(), None).seconds == 86400
    assert runtime(Limits(timeout=90.2), None).seconds == 91
    assert runtime(Limits(timeout=9000, max_cost=Decimal(1)), Decimal(2)).seconds == 1680
    with pytest.raises(UsageError, match="--max-cost needs a price"):
        runtime(Limits(max_cost=Decimal(1)), None)
    with pytest.raises(UsageError, match="cannot run for"):
        runtime(Limits(max_cost=Decimal("0.01")), Decimal(100))


WORDS = st.lists(st.binary(max_size=30).filter(lambda word: b"\0" not in word), max_size=6)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=WORDS, value=st.binary(max_size=30).filter(lambda word: b"\0" not in word))
def test_any_bytes_reach_the_script(
    shell: list[str], words: list[bytes], value: bytes, tmp_path: Path
) -> None:
    argv = tuple(os.fsdecode(word) for word in words)
    spec = JobSpec(run_id="r", argv=("env", *argv), secrets={"V": os.fsdecode(value)})
    (tmp_path / "job.sh").write_bytes(exports(spec.secrets) + script(spec))
    show = '. "$0"; shift; printf "%s\\0" "$V" "$@"'
    done = subprocess.run(
        [*shell, "-c", show, str(tmp_path / "job.sh")],
        capture_output=True,
        check=True,
        timeout=LIMIT,
    )
    assert done.stdout == b"".join(word + b"\0" for word in (value, *words))


def test_a_nul_in_an_argument_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        script(JobSpec(run_id="r", argv=("echo", "a\0b")))


class Container:
    """The entry script in a folder that looks like a container's file system."""

    def __init__(self, shell: list[str], folder: Path) -> None:
        self.shell, self.folder, self.ml = shell, folder, folder / "ml"
        self.secrets: dict[str, str] = {}
        for name in ("input/config", "input/data/cvl", "output/data", "model"):
            (self.ml / name).mkdir(parents=True)
        for name in ("workspace", "cvlization_repo"):
            (folder / name).mkdir()

    def start(self, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        spec = JobSpec(run_id="r", argv=argv, secrets=self.secrets)
        (self.ml / "input/data/cvl/job.sh").write_bytes(script(spec))
        own = self.folder / "entry.sh"
        own.write_bytes(entry())
        ours = {"CVL_ML": str(self.ml), "CVL_ROOT_DIR": str(self.folder), "CVL_RUN_ID": "r"}
        return subprocess.Popen(
            [*self.shell, str(own)],
            env={"PATH": os.environ["PATH"], **ours, **env},
            stdout=subprocess.PIPE,
        )

    def run(self, *argv: str, **env: str) -> tuple[int, bytes]:
        with self.start(*argv, **env) as process:
            out, _ = process.communicate(timeout=LIMIT)
            return process.returncode, out

    def results(self) -> set[str]:
        data = self.ml / "output/data"
        return {str(each.relative_to(data)) for each in data.rglob("*") if not each.is_dir()}


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    return Container(request.param, tmp_path)


def test_what_is_new_or_changed_is_kept_on_any_ending(container: Container) -> None:
    home = container.folder / "workspace"
    for name in ("same", "changed"):
        (home / name).write_text("old")
        os.utime(home / name, (1.7e9, 1.7e9))
    script_text = (
        "echo new >changed; mkdir -p 'a b/c'; echo x >'a b/c/-d'; ln -s changed link; "
        'touch -t 200001010000 ancient; echo w >"$CVL_WORK_DIR/w"; mkdir __pycache__; '
        "echo >__pycache__/x; echo r >../cvlization_repo/r; echo out; echo err >&2; exit 42"
    )
    code, out = container.run("sh", "-c", script_text)
    assert (code, out) == (42, b"out\nerr\n[cvl] r: exit code 42\n")
    kept = {"changed", "a b/c/-d", "link", "ancient", "w", "_repo/r"}
    assert container.results() == kept
    assert code_in((container.ml / "output/failure").read_text()) == 42


def test_secrets_are_read_once_and_removed(container: Container) -> None:
    container.secrets = {"A_TOKEN": "it's $HOME\n"}
    file = container.ml / "input/data/cvl/secrets.sh"
    file.write_bytes(exports(container.secrets))
    code, out = container.run("sh", "-c", 'printf "%s" "$A_TOKEN"; ls "$CVL_ML/input/data/cvl"')
    assert (code, out) == (0, b"it's $HOME\njob.sh\n[cvl] r: exit code 0\n")
    assert not file.exists()
    code, out = container.run("sh", "-c", "echo it ran")
    assert (code, b"it ran" in out) == (125, False)
    assert b"cvl: the forwarded variables are not there\n" in out


def test_every_exit_code_is_told_three_times(container: Container) -> None:
    """By the process, by its last line, and by what becomes FailureReason."""
    failure = container.ml / "output/failure"
    for code in (1, 2, 42, 124, 125, 126, 127, 128, 130, 137, 143, 254, 255):
        assert container.run("sh", "-c", f"exit {code}") == (
            code,
            b"[cvl] r: exit code %d\n" % code,
        )
        assert code_in(failure.read_text()) == code
        failure.unlink()
    assert container.run("sh", "-c", "exit 0")[0] == 0
    assert not failure.exists()
    assert container.run("sh", "-c", "kill -9 $$")[0] == 137


def test_inputs_that_were_not_changed_are_no_results(container: Container) -> None:
    work = container.ml / "input/data/cvl/work/sub"
    work.mkdir(parents=True)
    for name in ("read", "written"):
        (work / name).write_text(name)
    line = 'cat "$CVL_WORK_DIR/sub/read"; echo more >>"$CVL_WORK_DIR/sub/written"'
    assert container.run("sh", "-c", line)[1].startswith(b"read")
    assert container.results() == {"sub/written"}


def test_term_reaches_the_job_and_its_results_are_kept(container: Container) -> None:
    line = "trap 'echo saved >saved; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with container.start("sh", "-c", line, CVL_GRACE="20") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.readline() == b"[cvl] r: exit code 9\n"
        assert process.wait(LIMIT) == 9
    assert container.results() == {"saved"}


def test_a_term_that_comes_as_soon_as_the_job_reaches_it(container: Container) -> None:
    """Also before our script knows which process it has started."""
    line = "trap 'exit 9' TERM; kill -s TERM $PPID; while :; do sleep 0.05; done"
    for _ in range(5):
        with container.start("sh", "-c", line, CVL_GRACE="20") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"[cvl] r: exit code 9\n"
            assert process.wait(LIMIT) == 9


def test_a_term_sends_one_kill_whenever_it_comes(tmp_path: Path) -> None:
    """A second one would come when the job has ended, and hit what brings its results home."""
    script_text = """
    start() { exec sleep 30; }
    signal_all() { echo "$1"; kill -s KILL "$pid"; } 2>/dev/null
    come() { [[ -z $pid || -n ${sent:-} ]] || { sent=1; kill -s TERM "$$"; }; }
    trap end_job TERM
    set -o functrace
    trap come DEBUG
    run
    wait
    """
    own = tmp_path / "entry.sh"
    own.write_text(script_text)
    own.write_bytes(entry_script(own))
    done = subprocess.run(
        ["bash", str(own)],
        env={"PATH": os.environ["PATH"], "CVL_GRACE": "0"},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert [done.stdout.count(b"%s\n" % each) for each in (b"TERM", b"KILL")] == [1, 1]


def test_a_job_that_does_not_end_is_killed_in_time(container: Container) -> None:
    line = "trap '' TERM; echo x >x; echo ready; while :; do sleep 0.05; done"
    with container.start("sh", "-c", line, CVL_GRACE="0") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.readline() == b"[cvl] r: exit code 137\n"
        assert process.wait(LIMIT) == 137
    assert container.results() == {"x"}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('{"current_host":"algo-2","hosts":["algo-1","algo-2"]}', "1 2 algo-1"),
        ('{\n "hosts": ["a", "b", "c"],\n "current_host": "c"\n}', "2 3 a"),
        (
            '{"current_host":"algo-10","hosts":["algo-1","algo-10","algo-2"],"instance_groups":[{}]}',
            "9 3 algo-1",
        ),
        ("", "0 1 localhost"),
    ],
)
def test_nodes_are_told_apart(config: str, told: str, container: Container) -> None:
    if config:
        (container.ml / "input/config/resourceconfig.json").write_text(config)
    _, out = container.run("sh", "-c", 'echo "$NODE_RANK $WORLD_SIZE $MASTER_ADDR"')
    assert out.splitlines()[0].decode() == told


def test_an_interpreter_of_another_name_will_do(container: Container) -> None:
    bin_folder = container.folder / "bin"
    bin_folder.mkdir()
    for name in ("sh", "mkdir", "find", "touch", "tr", "sed", "head", "grep", "mv", "rm"):
        (bin_folder / name).symlink_to(shutil.which(name) or "")
    shell = shutil.which(container.shell[0]) or ""
    container.shell = [shell, *container.shell[1:]]
    code, out = container.run("bash", "-c", "echo $0", "name", PATH=str(bin_folder))
    assert (code, out.splitlines()[0]) == (0, b"name")


def log(cloud: AwsCloud, stream: str, *messages: str) -> None:
    assert cloud.wire.jobs is not None
    cloud.wire.jobs._storage.write(stream, messages)


def read(cursor: str = "") -> tuple[bytes, str, LogReader]:
    reader = LogReader(Account(), "job", "r", cursor)
    chunks = list(reader.look())
    cursor = chunks[-1].cursor if chunks else cursor
    return b"".join(chunk.data for chunk in chunks), cursor, reader


def test_the_log_is_read_on_from_its_cursor(cloud: AwsCloud) -> None:
    log(cloud, "job/algo-1-100", *(f"line {n}" for n in range(500)))
    data, cursor, reader = read()
    assert data == b"".join(b"line %d\n" % n for n in range(500))
    assert not reader.complete(1)
    assert read(cursor)[:2] == (b"", cursor)
    log(cloud, "job/algo-1-100", "half[cvl] other: exit code 1", "no end[cvl] r: exit code 3")
    data, _, reader = read(cursor)
    assert data == b"half[cvl] other: exit code 1\nno end"
    assert reader.complete(1)
    assert not reader.complete(2)
    assert [each.code for each in reader.endings] == [3]


def test_a_stream_that_was_empty_at_first_loses_nothing(cloud: AwsCloud) -> None:
    log(cloud, "job/algo-2-100", "elsewhere")
    cloud.client("logs").create_log_stream(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamName="job/algo-1-100"
    )
    reader = LogReader(Account(), "job", "r", "")
    assert [chunk.node for chunk in reader.look()] == [1]
    log(cloud, "job/algo-1-100", "the first line")
    assert [chunk.data for chunk in reader.look()] == [b"the first line\n"]


def test_a_token_that_is_too_old_repeats_nothing(cloud: AwsCloud) -> None:
    log(cloud, "job/algo-1-100", *(f"line {n}" for n in range(10)))
    cursor = '{"job/algo-1-100": ["not-a-token", 7]}'
    data, cursor, _ = read(cursor)
    assert data == b"line 7\nline 8\nline 9\n"
    assert '",10]' in cursor


def test_a_restarted_node_is_complete_by_its_latest_stream(cloud: AwsCloud) -> None:
    log(cloud, "job/algo-1-100", "[cvl] r: exit code 143")
    log(cloud, "job/algo-1-200", "again")
    assert not read()[2].complete(1)
    log(cloud, "job/algo-1-200", "[cvl] r: exit code 7")
    reader = read()[2]
    assert reader.complete(1)
    assert [each.code for each in reader.endings] == [7]  # the interrupted one does not count


def test_the_first_node_that_fails_gives_the_exit_code() -> None:
    endings = (
        NodeEnd(node=0, code=143, time=30),
        NodeEnd(node=1, code=4, time=20),
        NodeEnd(node=2, code=0, time=10),
    )
    first = first_failed(endings)
    assert first
    assert first.code == 4
    assert first_failed(endings[2:]) is None
    assert code_in("AlgorithmError: cvl: exit code 7 on node 0. , exit code: 1") == 7
    assert code_in("AlgorithmError: , exit code: 137") == 137
    assert code_in("ClientError: no image") == 0


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_a_hostile_archive_writes_nothing_outside(cloud: AwsCloud, tmp_path: Path) -> None:
    archive = packed(
        (member("good/file"), b"good"),
        (member("../outside"), b"bad"),
        (member("/absolute"), b"bad"),
        (member("out", tarfile.SYMTYPE, "../.."), b""),
        (member("out/through"), b"bad"),
        (member("device", tarfile.CHRTYPE), b""),
        (member("hard", tarfile.LNKTYPE, "/etc/passwd"), b""),
        (member(".git/config"), b"[core]"),
    )
    cloud.client("s3").put_object(Bucket=BUCKET, Key="j/output/output.tar.gz", Body=archive)
    into = tmp_path / "deep/into"
    fetch(Account(), S3Location.parse(f"s3://{BUCKET}/j/output"), into, Scope())
    found = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()}
    assert found == {"deep/into/good/file", "deep/into/.git.inert/config"}


def test_a_broken_archive_is_an_error_and_can_be_fetched_again(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    archive = packed((member("file"), os.urandom(100_000)))
    place = S3Location.parse(f"s3://{BUCKET}/j/output")
    for body, told in ((archive[:-5000], "broke off"), (b"no gzip", "no gzip")):
        cloud.client("s3").put_object(Bucket=BUCKET, Key="j/output/output.tar.gz", Body=body)
        with pytest.raises(FetchError, match=told):
            fetch(Account(), place, tmp_path / "into", Scope())
    cloud.client("s3").put_object(Bucket=BUCKET, Key="j/output/output.tar.gz", Body=archive)
    cloud.inject(FAULTS["get-object-reset"])
    fetch(Account(), place, tmp_path / "into", Scope())
    assert [each.name for each in (tmp_path / "into").iterdir()] == ["file"]


@pytest.mark.parametrize("operation", ["HeadObject", "GetObject"])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("SlowDown", 503),
        ("InternalError", 500),
        ("ServiceUnavailable", 503),
        ("RequestTimeout", 400),
        ("ExpiredToken", 400),
        ("TooManyRequests", 429),
        ("", 0),
    ],
)
def test_s3_is_asked_until_it_gives_the_results(
    operation: str, code: str, status: int, cloud: AwsCloud, tmp_path: Path
) -> None:
    """However often it refuses, as long as there is time; also while a login has expired."""
    archive = packed((member("file"), b"data"))
    cloud.client("s3").put_object(Bucket=BUCKET, Key="j/output/output.tar.gz", Body=archive)
    times = 25
    cloud.inject(Fault(operation=operation, code=code, status=status, times=times))
    clock, place = FakeClock(), S3Location.parse(f"s3://{BUCKET}/j/output")
    fetch(Account(clock=clock), place, tmp_path / "into", Scope(clock, seconds=1800))
    assert (tmp_path / "into/file").read_bytes() == b"data"
    assert clock.now - FakeClock().now < 400


def test_s3_that_gives_nothing_until_the_limit_is_told_with_where_the_results_are(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    archive = packed((member("file"), b"data"))
    cloud.client("s3").put_object(Bucket=BUCKET, Key="j/output/output.tar.gz", Body=archive)
    cloud.inject(Fault(operation="HeadObject", code="SlowDown", status=503, times=10**6))
    clock, place = FakeClock(), S3Location.parse(f"s3://{BUCKET}/j/output")
    with pytest.raises(FetchError) as caught:
        fetch(Account(clock=clock), place, tmp_path / "into", Scope(clock, seconds=1800))
    assert clock.now - FakeClock().now >= 1790
    assert str(place) in caught.value.hint


def test_a_large_archive_goes_on_where_it_was_cut(cloud: AwsCloud, tmp_path: Path) -> None:
    """However often: what has arrived is not sent again."""
    data = os.urandom(300_000)
    archive = packed((member("file"), data))
    cloud.client("s3").put_object(Bucket=BUCKET, Key="j/output/output.tar.gz", Body=archive)
    cloud.inject(FAULTS["get-object-cut"])
    place = S3Location.parse(f"s3://{BUCKET}/j/output")
    fetch(Account(), place, tmp_path / "into", Scope())
    assert (tmp_path / "into/file").read_bytes() == data
    assert cloud.requests("GetObject") == FAULTS["get-object-cut"].times + 1


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 400, Unreachable),
        ("SlowDown", 503, Unreachable),
        ("Whatever", 500, Unreachable),
        ("ExpiredTokenException", 400, AuthError),
        ("AccessDenied", 403, Denied),
        ("ResourceInUse", 400, Taken),
        ("ResourceNotFoundException", 400, Missing),
        ("ValidationException", 400, Rejected),
    ],
)
def test_an_error_says_what_may_be_concluded(code: str, status: int, kind: type) -> None:
    boto = pytest.importorskip("botocore.exceptions")
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert type(understood(boto.ClientError(answer, "X"), "s")) is kind


def test_docker_is_told_to_make_plain_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$1 $BUILDX_NO_DEFAULT_ATTESTATIONS"\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told: list[tuple[str, str]] = []
    docker.run(("build",), "building", Scope(tell=lambda *words: told.append(words)))
    assert told == [("building", "build 1")]


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingTool, match="boto3 not installed") as caught:
        Account("us-east-1").call("sts", "get_caller_identity")
    assert caught.value.hint == "pip install 'cvl[aws]'"


def spec_of(folder: Path, argv: tuple[str, ...], preset: str = "train") -> JobSpec:
    return JobSpec(
        run_id="r",
        argv=argv,
        example="e",
        preset=preset,
        args=argv[len(argv) :],
        source=Source(root=folder, folder=""),
        needs=Needs(docker=True),
    )


def test_what_runs_is_the_command_the_script_or_the_python_file(tmp_path: Path) -> None:
    line = ("bash", "-c", 'echo "$@"', "train", "a")
    assert command(spec_of(tmp_path, line), None) == line
    (tmp_path / "train.sh").write_text("# docker is not needed\npython train.py\n")
    argv = ("bash", "train.sh", "config.py", "a b")
    assert command(spec_of(tmp_path, argv), None) == argv
    (tmp_path / "train.sh").write_text("exec docker run image\n")
    with pytest.raises(UsageError, match="starts Docker itself"):
        command(spec_of(tmp_path, argv), None)
    (tmp_path / "train.py").write_text("")
    assert command(spec_of(tmp_path, argv), None) == ("python", "train.py", "config.py", "a b")
    (tmp_path / "predict.sh").write_text("docker run image\n")
    with pytest.raises(UsageError, match="'predict' of e starts Docker"):
        command(spec_of(tmp_path, ("bash", "predict.sh"), "predict"), None)
    assert command(spec_of(tmp_path, argv), "x 'y z'") == ("sh", "-c", "x 'y z' \"$@\"", "entry")


def test_a_script_that_can_do_without_docker_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "train.sh").write_text('[ "$CVL_NO_DOCKER" = 1 ] || exec docker run i\npython x\n')
    argv = ("bash", "train.sh", "a")
    assert command(spec_of(tmp_path, argv), None) == argv


def test_a_script_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'train' of e needs train.sh, which is not there"
    ) as told:
        command(spec_of(tmp_path, ("bash", "train.sh")), None)
    assert "train.py" in told.value.hint
    assert "--entry-command" in told.value.hint


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('python train.py config/small.py "$@"', ("python", "train.py", "config/small.py", "a b")),
        ('python3 -u train.py --out="x y" $@', ("python3", "-u", "train.py", "--out=x y", "a b")),
        ("python train.py --lr 0.1", ("python", "train.py", "--lr", "0.1", "a b")),
        ('python train.py "${@}" --last', ("python", "train.py", "a b", "--last")),
        ('python other.py "$@"', ("python", "other.py", "a b")),
        # what a shell would have to work out first is left alone
        ('python train.py "$CONFIG" "$@"', ("python", "train.py", "a b")),
        ('bash -c "python train.py --x; echo done"', ("python", "train.py", "a b")),
        ('python train.py "$@" | tee log', ("python", "train.py", "a b")),
        ('python missing.py "$@"', ("python", "train.py", "a b")),
        ("python -m pkg --x", ("python", "train.py", "a b")),
    ],
)
def test_the_scripts_own_arguments_are_kept(
    line: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("train.py", "other.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "train.sh").write_text(
        "#!/bin/bash\n# docker run image python wrong.py\ndocker run --rm --gpus all \\\n"
        f'    -v "$(pwd)":/workspace \\\n    image \\\n    {line}\n'
    )
    argv = ("bash", "train.sh", "a b")
    assert command(spec_of(tmp_path, argv), None) == words


def test_a_script_that_says_docker_run_without_end_is_read_like_any_other(tmp_path: Path) -> None:
    started = time.process_time()
    for text in ("docker run " * 80_000, "docker run a\n" * 70_000, "docker" + " " * 900_000):
        assert docker_runs(text, (), tmp_path) is None
    assert time.process_time() - started < 5
