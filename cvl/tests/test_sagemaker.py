"""SageMakerRunner against a SageMaker that runs the pushed image in real containers."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from cvl.testing import conformance
from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.conformance import CHECKS, Check
from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker import FAULTS, AwsCloud, Settings, registry
from cvl.testing.sagemaker.cloud import BUCKET, missing
from cvl.testing.sagemaker.faults import Fault
from cvl.testing.sagemaker.registry import ImageRegistry
from cvl.tests.clouds import desk

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
BUILT = "examples/conformance/built"
APART = {conformance.output_bytes, conformance.live_output, conformance.hang_up}
"""CloudWatch keeps lines of text: half a line is not shown, bytes that are no text are lost.
A hang-up leaves the job to SageMaker's own limit: see below."""
FAST = Settings(stop=10.0)
"""Long enough for any results on a busy machine, and not too long for a job that hears nothing."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    if why := registry.missing():
        pytest.skip(why)
    running = ImageRegistry(tmp_path_factory.mktemp("registry"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def clouds(shared_engine: Engine, images: ImageRegistry) -> Iterator[AwsCloud]:
    if why := missing():
        pytest.skip(why)
    with AwsCloud(FAST, engine=shared_engine, registry=images) as running:
        yield running


@pytest.fixture
def cloud(clouds: AwsCloud) -> Iterator[AwsCloud]:
    clouds.reset(FAST)
    yield clouds
    assert not clouds.wire.violations
    assert not clouds.going_on()
    assert not [key for key in clouds.objects() if "cvl-input" in key]


@pytest.fixture
def there(cloud: AwsCloud, shared_engine: Engine, tmp_path: Path) -> Desk:
    """A desk whose runs use busybox as it is."""
    return desk(tmp_path, cloud, shared_engine.image, engine=shared_engine)


@pytest.mark.parametrize(
    "check", [each for each in CHECKS if each not in APART], ids=lambda check: check.__name__
)
def test_promise(check: Check, there: Desk) -> None:
    check(there)


def test_a_hang_up_leaves_the_job_alone(there: Desk) -> None:
    with there.start("run", *there.options, "one", "sh", "echo ready; sleep 3; exit 3") as client:
        client.shows(b"ready")
        client.signal(signal.SIGHUP)
        assert client.ended().code == 129
    end = there.cvl("attach", there.runs()[0])
    assert (end.code, end.out) == (3, b"")


def test_arguments_of_any_length_arrive_byte_for_byte(there: Desk) -> None:
    words = ["x" * 100_000, "a'b", "\udcff\udc80", *(["w" * 50] * 2000)]
    script = 'shift; for w; do printf "%s\\0" "$w"; done | md5sum; echo "$#"'
    done = there.cvl("run", *there.options, "one", "sh", script, *words)
    data = b"".join(os.fsencode(word) + b"\0" for word in words)
    told = subprocess.run(["md5sum"], input=data, capture_output=True, check=True, timeout=10)
    assert done.out == told.stdout + b"%d\n" % len(words)


def test_a_forwarded_variable_changes_nothing_but_the_job(there: Desk) -> None:
    """Neither the entry script nor whoever starts the container takes it for its own."""
    given = ("-e", "PATH=/bin:/x", "-e", "CVL_ML=/y", "-e", "LD_PRELOAD=", "-e", "IFS=:")
    done = there.sh('echo "$PATH|$CVL_ML|$LD_PRELOAD|"; echo a >a', *given)
    assert (done.code, done.out) == (0, b"/bin:/x|/y||\n"), done.err
    assert there.result("a") == b"a\n"


def test_every_line_comes_once_whatever_cloudwatch_does(cloud: AwsCloud, there: Desk) -> None:
    for name in ("logs-throttled", "streams-reset", "describe-throttled", "describe-expired"):
        cloud.inject(FAULTS[name])
    cloud.wire.hidden_streams = time.time() + 2.0
    cloud.wire.empty_pages = 3
    done = there.sh("for i in $(seq 3000); do echo line $i; done; printf 'the last'; exit 5")
    assert done.code == 5, done.err
    assert done.out == b"".join(b"line %d\n" % i for i in range(1, 3001)) + b"the last"
    assert "asking again" in done.err
    assert there.cvl("logs", there.runs()[0]).out == done.out


@pytest.fixture
def building(cloud: AwsCloud, shared_engine: Engine, tmp_path: Path) -> Desk:
    """A desk with an example whose image is built; what is in it is like in no other test's."""
    calling = desk(tmp_path, cloud, "", engine=shared_engine)
    example = calling.repo / BUILT
    example.mkdir()
    (example / "example.yaml").write_text(
        "name: built\npresets:\n  train: {script: train.sh}\n  line: {command: 'cat file'}\n"
    )
    (example / "train.sh").write_text("docker run built python train.py\n")
    (example / "train.py").write_text("")
    (example / "file").write_text(f"what is in the file of {tmp_path}\n")
    (example / ".env").write_text("KEY=secret\n")
    (example / "Dockerfile").write_text(
        f"FROM {shared_engine.image}\nCOPY file /built-from\n"
        'USER 1000\nWORKDIR /elsewhere\nENTRYPOINT ["/bin/false"]\nCMD ["x"]\n'
    )
    return calling


def test_an_unchanged_example_is_neither_built_nor_pushed_again(
    cloud: AwsCloud, images: ImageRegistry, building: Desk
) -> None:
    words = ("run", *building.options, "built", "line")
    file = building.repo / BUILT / "file"
    first = building.cvl(*words)
    assert (first.code, first.out) == (0, file.read_bytes()), first.err
    assert first.err.count("cvl: building: ") > 4  # what Docker says of both builds
    assert "cvl: pushing: " in first.err
    auth = json.loads(
        Path(cloud.env["AWS_CONFIG_FILE"]).with_name("docker").joinpath("config.json").read_text()
    )
    assert images.host in auth["auths"]  # the service's own login; ours is nowhere
    assert not (building.folder / "home/.docker").exists()

    pushed = images.requests("PUT"), images.requests("POST"), images.requests("PATCH")
    spent = children_seconds()
    second = building.cvl(*words)
    assert children_seconds() - spent < 2
    assert (second.code, second.out) == (0, file.read_bytes())
    assert pushed == (images.requests("PUT"), images.requests("POST"), images.requests("PATCH"))
    assert len({str(j.asked["AlgorithmSpecification"]) for j in cloud.jobs.values()}) == 1

    file.write_text("something else\n")
    assert building.cvl(*words).out == b"something else\n"


def test_a_push_that_fails_is_said_to_be_one_and_leaves_nothing(
    cloud: AwsCloud, building: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud.wire, "_registry", "127.0.0.1:1")
    done = building.cvl("run", *building.options, "built", "line")
    assert done.code == 125
    assert "cvl: ECR push failed: docker push failed: " in done.err
    assert "hint: trying again sends only what is missing" in done.err
    assert (cloud.jobs, cloud.objects()) == ({}, [])


def test_who_may_not_log_in_to_the_registry_builds_nothing(cloud: AwsCloud, building: Desk) -> None:
    """A build may take hours; its image could not be pushed."""
    denied = Fault(operation="GetAuthorizationToken", code="AccessDeniedException", times=9)
    cloud.inject(denied)
    done = building.cvl("run", *building.options, "built", "line")
    assert done.code == 125
    assert "AccessDeniedException" in done.err
    assert "cvl: building: " not in done.err


def test_an_image_holds_the_example_and_starts_our_script_whatever_its_own_is(
    cloud: AwsCloud, images: ImageRegistry, building: Desk, shared_engine: Engine
) -> None:
    entry = ("--entry-command", "printf '%s|' \"a  b\"")
    done = building.cvl("run", *building.options, *entry, "built", "train", "c  d", "$x")
    assert done.out == b"a  b|c  d|$x|"
    job = next(iter(cloud.jobs.values()))
    image = str(job.asked["AlgorithmSpecification"]["TrainingImage"])
    assert image.startswith(f"{images.host}/cvl:built-")
    held = shared_engine.docker("run", "--rm", "--entrypoint", "find", image, "/workspace")
    there = ("example.yaml", "train.sh", "train.py", "file", "Dockerfile")
    assert set(held.split()) == {"/workspace", *(f"/workspace/{name}" for name in there)}
    no_python = building.cvl("run", *building.options, "built", "train")
    assert (no_python.code, b"not found" in no_python.out) == (127, True)


def children_seconds() -> float:
    """Return the CPU time of all children so far: on a busy machine the clock says nothing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_line_is_whole_however_long_and_whatever_is_in_it(there: Desk) -> None:
    """CloudWatch takes 256 KB in one event; what is no UTF-8 it cannot keep."""
    script = (
        "head -c 600000 /dev/zero | tr '\\0' x; echo; "
        "i=0; while [ $i -lt 90000 ]; do printf é€😀; i=$((i+1)); done; echo; "
        r"printf '10%%\r20%%\r\n  two  \t\n\001\033[1m\377\n'; printf end"
    )
    done = there.sh(script)
    longs = f"{'x' * 600000}\n{'é€😀' * 90000}\n"
    text = f"{longs}10%\r20%\r\n  two  \t\n\1\33[1m\ufffd\nend"
    assert done.out == text.encode()
    assert there.cvl("logs", there.runs()[0]).out == done.out


def test_outputs_come_back_after_a_failure_and_stay_in_s3(cloud: AwsCloud, there: Desk) -> None:
    cloud.inject(FAULTS["get-object-reset"])
    script = "mkdir -p d; echo a >d/a; echo m >/opt/ml/model/m; ln -s /etc/passwd out; exit 3"
    done = there.sh(script)
    assert done.code == 3
    assert "not brought: 'out': link leads out of the results: '/etc/passwd'" in done.err
    assert there.result("a") == b"a\n"
    run = there.repo / "cvl-runs" / there.runs()[0]
    assert (run / "model/m").read_text() == "m\n"  # which SageMaker does not keep of a failure
    assert "out" not in [path.name for path in run.rglob("*")]  # a link that leads out is not made
    keys = cloud.objects()
    assert [key.rpartition("/")[2] for key in keys] == ["output.tar.gz"]


def test_a_model_comes_back_beside_the_results(there: Desk) -> None:
    assert there.sh("echo m >/opt/ml/model/m; echo a >a").code == 0
    run = there.repo / "cvl-runs" / there.runs()[0]
    assert (run / "model/m").read_text() == "m\n"
    assert (run / "a").read_text() == "a\n"


def test_a_stopped_job_leaves_its_model(there: Desk) -> None:
    job = "echo m >/opt/ml/model/m; echo ready; trap 'exit 0' TERM; while :; do sleep .1; done"
    with there.running(job) as client:
        client.shows(b"ready")
        client.signal(signal.SIGINT)
        assert client.ended().code == 130
    assert there.result("m") == b"m\n"


def test_results_can_stay_in_s3_and_come_later(there: Desk) -> None:
    done = there.sh("echo a >a", "--no-download-outputs")
    assert done.code == 0
    assert not (there.repo / "cvl-runs").exists()
    assert there.cvl("fetch", there.runs()[0], "-o", "later").code == 0
    assert (there.repo / "later/a").read_text() == "a\n"


def test_the_bill_is_what_aws_bills(cloud: AwsCloud, there: Desk) -> None:
    done = there.sh("sleep 1")
    job = next(iter(cloud.jobs.values()))
    assert f"{job.billable()} s billed at $1.408 an hour" in done.err
    assert there.ps()[0]["cost"] == "0.01"


def test_many_nodes_know_each_other(cloud: AwsCloud, there: Desk) -> None:
    script = (
        'echo "$NODE_RANK of $WORLD_SIZE, $MASTER_ADDR"; echo $NODE_RANK >$CVL_WORK_DIR/rank; '
        "if [ $NODE_RANK = 1 ]; then until nc $MASTER_ADDR $MASTER_PORT; do sleep 0.1; done; "
        "exit 4; fi; "
        "trap 'exit 9' TERM; nc -l -p $MASTER_PORT </dev/null; while :; do sleep 0.1; done"
    )
    done = there.sh(script, "--nodes", "2")
    assert done.code == 4
    lines = sorted(line.rpartition("] ")[2] for line in done.out.decode().splitlines())
    assert [line for line in lines if "of" in line] == [
        "0 of 2, algo-1",
        "1 of 2, algo-1",
    ]
    assert next(iter(cloud.jobs.values())).asked["ResourceConfig"]["InstanceCount"] == 2
    there_is = {path.read_text() for path in (there.repo / "cvl-runs").rglob("rank")}
    assert there_is == {"0\n", "1\n"}


@pytest.mark.parametrize("code", [0, 7])
def test_a_spot_job_goes_on_from_its_checkpoint(
    code: int, cloud: AwsCloud, shared_engine: Engine, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud, shared_engine.image, "--spot", engine=shared_engine)
    script = (
        "trap 'exit 1' TERM; if [ -e $CVL_CHECKPOINT_DIR/ck ]; then echo resumed; "
        f"exit {code}; fi; echo x >$CVL_CHECKPOINT_DIR/ck; echo first; while :; do sleep 0.1; done"
    )
    words = ("run", *calling.options, "--timeout", "600s", "one", "sh", script)
    with calling.start(*words) as client:
        client.shows(b"first")
        cloud.interrupt()
        done = client.ended()
    assert done.code == code
    told = [line for line in done.out.splitlines() if line != b"Terminated"]
    assert told == [b"first", b"resumed"]
    asked = next(iter(cloud.jobs.values())).asked
    assert asked["EnableManagedSpotTraining"] is True
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 4200}
    assert "up to $1.41 an hour" in done.err or "up to $1.408 an hour" in done.err


def test_stop_waits_for_what_aws_does_not_answer(cloud: AwsCloud, there: Desk) -> None:
    cloud.inject(FAULTS["stop-throttled"])
    with there.running(
        "echo ready; trap 'echo a >a; exit 0' TERM; while :; do sleep .1; done"
    ) as c:
        c.shows(b"ready")
        c.signal(signal.SIGINT)
        assert c.ended().code == 130
    assert there.result("a") == b"a\n"
    assert cloud.requests("StopTrainingJob") >= 6


def test_the_aws_command_line_sees_the_same(cloud: AwsCloud, there: Desk) -> None:
    if which("aws") is None:
        pytest.skip("the AWS command line is not installed")
    done = there.sh("echo one; echo two; echo a >a; exit 6", "-e", "TOKEN=s3cret-value")
    name = next(iter(cloud.jobs))

    def aws(*words: str) -> str:
        env = {**os.environ, **cloud.env}
        told = subprocess.run(["aws", *words], env=env, capture_output=True, check=True, timeout=60)
        return told.stdout.decode()

    found = aws("sagemaker", "describe-training-job", "--training-job-name", name)
    assert json.loads(found)["FailureReason"].endswith("exit code: 6")
    assert "s3cret-value" not in found
    assert json.loads(found)["Environment"]["CVL_SECRET_TOKEN"] == "<redacted:TOKEN>"
    group = "/aws/sagemaker/TrainingJobs"
    stream = json.loads(aws("logs", "describe-log-streams", "--log-group-name", group))
    streams = [each["logStreamName"] for each in stream["logStreams"]]
    told = aws(
        *("logs", "get-log-events", "--log-group-name", group),
        *("--log-stream-name", next(each for each in streams if each.startswith(name))),
    )
    assert [each["message"] for each in json.loads(told)["events"]][:2] == ["one", "two"]
    assert f"{name}/output/output.tar.gz" in aws("s3", "ls", "--recursive", f"s3://{BUCKET}/")
    assert done.code == 6


def test_an_image_that_cannot_be_pulled_is_no_exit_code(there: Desk, cloud: AwsCloud) -> None:
    calling = Desk(
        folder=there.folder,
        options=[
            word if word != "cvl-test/busybox" else "127.0.0.1:1/no:1" for word in there.options
        ],
        env=there.env,
    )
    done = calling.sh("exit 3")
    assert done.code == 125
    assert "SageMaker training job failed: ClientError: Cannot pull" in done.err
    wait_for(lambda: not cloud.going_on())
