"""Whatever breaks while a training job is asked for, followed and stopped: none is forgotten."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Client, wait_for
from cvl.testing.sagemaker import FAULTS, AwsCloud, Settings
from cvl.testing.sagemaker.cloud import TRUST, missing
from cvl.tests.clouds import desk

pytestmark = pytest.mark.timeout(600)
LONG = Settings(start=300.0)
"""Jobs wait for an instance until they are stopped."""
UNTRUSTED = "untrusted"
BARRED = [name for name in FAULTS if name.startswith("create-") and "Exception" in name]
CREATE = [
    name
    for name in FAULTS
    if name.startswith("create-") and name not in {*BARRED, "create-refused"}
]


@pytest.fixture(scope="module")
def clouds() -> Iterator[AwsCloud]:
    if why := missing():
        pytest.skip(why)
    with AwsCloud() as running:
        yield running


@pytest.fixture
def cloud(clouds: AwsCloud) -> AwsCloud:
    clouds.reset(Settings())
    return clouds


def inputs(cloud: AwsCloud) -> list[str]:
    return [key for key in cloud.objects() if "cvl-input" in key]


@pytest.mark.parametrize("name", [*CREATE, *(name for name in BARRED if "after" in name)])
def test_a_lost_reply_makes_one_job_and_follows_it(
    name: str, cloud: AwsCloud, tmp_path: Path
) -> None:
    cloud.inject(FAULTS[name])
    done = desk(tmp_path, cloud).sh("true")
    assert (done.code, len(cloud.jobs)) == (0, 1), done.err
    assert not cloud.going_on()
    assert not inputs(cloud)


def test_a_refusal_is_told_and_leaves_nothing(cloud: AwsCloud, tmp_path: Path) -> None:
    cloud.inject(FAULTS["create-refused"])
    done = desk(tmp_path, cloud).sh("true")
    assert (done.code, cloud.jobs) == (125, {})
    assert "ResourceLimitExceeded" in done.err
    assert "Service Quotas" in done.err
    assert not inputs(cloud)


@pytest.mark.parametrize("name", [name for name in BARRED if "before" in name])
def test_that_we_may_not_is_told_once_it_is_certain(
    name: str, cloud: AwsCloud, tmp_path: Path
) -> None:
    cloud.inject(FAULTS[name])
    there = desk(tmp_path, cloud)
    done = there.sh("true")
    assert (done.code, cloud.jobs) == (125, {})
    assert f"{name.split('-')[1]}: " in done.err
    assert "looking for training-job" in done.err
    assert not inputs(cloud)
    assert there.ps()[0]["state"] == "ended"


def test_a_machine_without_any_state_reaps_what_is_past_its_deadline(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    cloud.reset(LONG)
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    done = desk(here, cloud).sh("true", "-d")
    assert done.code == 0
    other = desk(elsewhere, cloud)
    assert other.cvl("reap", "-y").code == 0
    assert len(cloud.going_on()) == 1  # not over, and another's
    job = cloud.going_on()[0]
    job.tags["cvl-deadline"] = "1"
    foreign = cloud.client("sagemaker")
    asked = {key: value for key, value in job.asked.items() if key != "Tags"}
    foreign.create_training_job(**{**asked, "TrainingJobName": "cvl-not-ours-at-all"})
    assert other.cvl("reap", "-y").code == 0
    assert [each.name for each in cloud.going_on()] == ["cvl-not-ours-at-all"]
    assert not inputs(cloud)
    foreign.stop_training_job(TrainingJobName="cvl-not-ours-at-all")


def test_all_regions_are_asked_now_and_then_and_the_ledger_s_each_time(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    there, counts = desk(tmp_path, cloud), []
    assert there.sh("true").code == 0
    for _ in range(2):
        cloud.wire.log.clear()
        assert there.cvl("reap", "-y").code == 0
        counts.append(cloud.requests("ListTrainingJobs"))
    assert counts[0] > 15, "one for each region, and the ledger's"
    assert counts[1] in {1, 2}


def test_detach_leaves_it_running_and_stop_ends_it(cloud: AwsCloud, tmp_path: Path) -> None:
    cloud.reset(LONG)
    calling = desk(tmp_path, cloud)
    run = calling.sh("true", "-d").out.decode().strip()
    assert calling.cvl("reap", "-y").code == 0
    assert len(cloud.going_on()) == 1
    assert calling.cvl("stop", run).code == 0
    assert not cloud.going_on()
    assert calling.ps()[0]["cause"] == "stopped"
    assert not inputs(cloud)


@pytest.mark.parametrize("more", [(), ("--spot",)], ids=["", "spot"])
def test_a_quota_is_looked_at_before_a_build(
    more: tuple[str, ...], cloud: AwsCloud, tmp_path: Path
) -> None:
    use = "spot training job usage" if more else "training job usage"
    cloud.quotas[f"ml.g5.xlarge for {use}"] = 1
    calling = desk(tmp_path, cloud, "", *more)
    (calling.repo / "examples/conformance/one/Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "docker").write_text("#!/bin/sh\n[ $1 = version ]\n")
    (tmp_path / "docker").chmod(0o755)
    done = calling.sh("true", "--nodes", "2", env={"PATH": str(tmp_path)})
    assert done.code == 2
    assert f"the job needs 2 ml.g5.xlarge for {use}, and your quota is 1" in done.err
    assert "Service Quotas" in done.err
    assert cloud.requests("CreateRepository") == 0
    asked = desk(tmp_path, cloud, "an-image", *more).sh("true", "--nodes", "2")
    assert (asked.code, cloud.jobs, inputs(cloud)) == (125, {}, [])
    assert "ResourceLimitExceeded: The account-level service limit" in asked.err


def test_ctrl_c_before_there_is_a_job_leaves_nothing(cloud: AwsCloud, tmp_path: Path) -> None:
    calling = desk(tmp_path, cloud)
    running: list[Client] = []

    def hook(operation: str, moment: str) -> None:
        if operation == "PutObject" and moment == "after" and running:
            running.pop().signal(signal.SIGINT)

    cloud.wire.hook = hook
    with calling.start("run", *calling.options, "one", "sh", "true") as client:
        running.append(client)
        assert client.ended().code == 130
    assert cloud.jobs == {}
    assert not inputs(cloud)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--role-arn", "arn:aws:iam::123456789012:role/none"), "does not exist"),
        (("--role-arn", "arn:aws:iam::999999999999:role/x"), "of account 999999999999"),
        (("--role-arn", "me"), "is no role"),
        (("--role-arn", f"arn:aws:iam::123456789012:role/{UNTRUSTED}"), "does not let sagemaker."),
        (("--output-path", "s3://no-such-bucket-anywhere/x"), "does not exist"),
        (("--output-path", "bucket"), "is no place in S3"),
        (("--instance-type", "g5.xlarge"), "is no instance type"),
        (("--region", "eu-west-1"), "is in us-east-1, and the job would run in eu-west-1"),
        (("--timeout", "40d"), "cannot run for"),
        (("--max-wait-minutes", "5"), "goes with --spot"),
        (("--spot", "--timeout", "2h", "--max-wait-minutes", "5"), "less than the 7200 s"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_said_before_anything_is_made(
    words: tuple[str, ...], told: str, cloud: AwsCloud, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud)
    trust = TRUST.replace("sagemaker.", "ec2.")
    cloud.client("iam").create_role(RoleName=UNTRUSTED, AssumeRolePolicyDocument=trust)
    done = calling.cvl("run", *calling.options, *words, "one", "sh", "true")
    assert done.code == 2, done.err
    assert told in done.err
    assert "hint: " in done.err
    assert (cloud.jobs, cloud.objects()) == ({}, [])


def test_without_credentials_it_says_so_and_a_dry_run_still_plans(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud)
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    done = calling.sh("true", env=none)
    assert done.code == 125
    assert "Unable to locate credentials" in done.err
    assert "aws sso login" in done.err
    planned = calling.sh("true", "--dry-run", "--json", env=none)
    assert planned.code == 0
    assert b'"price_per_hour": null' in planned.out


def test_an_example_without_a_dockerfile_needs_an_image(cloud: AwsCloud, tmp_path: Path) -> None:
    done = desk(tmp_path, cloud, "").sh("true")
    assert (done.code, cloud.objects()) == (2, [])
    assert "has no Dockerfile" in done.err


def test_max_cost_becomes_a_limit_that_aws_keeps(cloud: AwsCloud, tmp_path: Path) -> None:
    done = desk(tmp_path, cloud).sh("true", "--max-cost", "1.408", "--timeout", "9h")
    assert done.code == 0
    asked = next(iter(cloud.jobs.values())).asked
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 3480}


@pytest.mark.parametrize("there", [False, True], ids=["no docker", "no engine"])
def test_without_docker_it_says_so_before_anything_is_made(
    there: bool, cloud: AwsCloud, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud, "")
    (calling.repo / "examples/conformance/one/Dockerfile").write_text("FROM scratch\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    if there:
        (tools / "docker").write_text("#!/bin/sh\necho no engine here >&2; exit 1\n")
        (tools / "docker").chmod(0o755)
    done = calling.sh("true", env={"PATH": str(tools)})
    assert done.code == 125
    assert ("no engine here" if there else "docker is not installed") in done.err
    assert "--image-uri" in done.err
    assert cloud.requests("CreateRepository") == 0
    assert (cloud.jobs, cloud.objects()) == ({}, [])


@pytest.mark.parametrize("name", ["put-object-reset", "put-object-slow"])
def test_the_input_is_sent_again_where_that_failed(
    name: str, cloud: AwsCloud, tmp_path: Path
) -> None:
    cloud.inject(FAULTS[name])
    done = desk(tmp_path, cloud).sh("true")
    assert (done.code, len(cloud.jobs)) == (0, 1), done.err
    assert not inputs(cloud)


def test_a_job_that_is_not_seen_at_once_is_not_lost(cloud: AwsCloud, tmp_path: Path) -> None:
    cloud.inject(FAULTS["describe-missing"])
    done = desk(tmp_path, cloud).sh("true", env={"SAGEMAKER_SETTLE": "8"})
    assert (done.code, len(cloud.jobs)) == (0, 1), done.err
    assert [job.status for job in cloud.jobs.values()] == ["Completed"]


def test_whoever_logs_in_again_is_followed_on(cloud: AwsCloud, tmp_path: Path) -> None:
    """A token expires while a job is followed; the new one is read from the same file."""
    cloud.reset(Settings(start=1.0))
    file = tmp_path / "credentials"
    keys = "[default]\naws_access_key_id = {}\naws_secret_access_key = x\n"
    file.write_text(keys.format("OLD"))
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_ACCESS_KEY_ID": ""}
    calling = desk(tmp_path, cloud)
    cloud.wire.hook = lambda operation, moment: (
        setattr(cloud.wire, "expired_key", "OLD")
        if (operation, moment) == ("CreateTrainingJob", "after")
        else None
    )
    words = ("run", *calling.options, "one", "sh", "true")
    with calling.start(*words, env={**named, "AWS_SECRET_ACCESS_KEY": ""}) as client:
        client.says("ExpiredToken")
        assert "aws sso login" in client.err
        file.write_text(keys.format("NEW"))
        assert client.ended().code == 0
    assert not inputs(cloud)


def test_whoever_attaches_hears_what_is_waited_for_and_what_it_costs(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud)
    run = calling.sh("true", "-d").out.decode().strip()
    cloud.inject(replace(FAULTS["describe-throttled"], skip=0))
    done = calling.cvl("attach", run)
    assert done.code == 0
    assert "the job goes on, asking again" in done.err
    assert "billed at $1.408 an hour" in done.err


def test_without_boto3_it_says_what_to_install(cloud: AwsCloud, tmp_path: Path) -> None:
    (tmp_path / "boto3.py").write_text("raise ImportError('no boto3')\n")
    calling, without = desk(tmp_path, cloud), {"PYTHONPATH": str(tmp_path)}
    done = calling.sh("true", env=without)
    assert done.code == 125
    assert done.err.splitlines()[-2:] == [
        "cvl: boto3 not installed",
        "hint: pip install 'cvl[aws]'",
    ]
    assert calling.runs() == []
    nowhere = {**without, "AWS_DEFAULT_REGION": "", "AWS_REGION": ""}
    for env in (without, nowhere):
        assert calling.sh("true", "--dry-run", env=env).code in {0, 125}
    planned = calling.sh("true", "--dry-run", "--json", "--region", "us-east-1", env=without)
    assert (planned.code, b"boto3 not installed" in planned.out) == (0, True)


def test_the_region_is_the_profiles_own(cloud: AwsCloud, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile far]\nregion = eu-central-1\naws_access_key_id = A\naws_secret_access_key = S\n"
        "[default]\nregion = ap-south-1\n"
    )
    calling, env = desk(tmp_path, cloud), {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    calling = replace(
        calling, env={k: v for k, v in calling.env.items() if k != "AWS_DEFAULT_REGION"}
    )

    def region(*more: str, **env_more: str) -> str:
        done = calling.sh("true", "--dry-run", *more, env={**env, **env_more})
        assert done.code == 0, done.err
        return (done.out.decode() + done.err).partition(" in ")[2].split()[0].rstrip(",.\"'")

    assert region() == "ap-south-1"
    assert region("--profile", "far") == "eu-central-1"
    assert region(AWS_PROFILE="far") == "eu-central-1"
    assert region("--region", "us-west-2", AWS_PROFILE="far") == "us-west-2"
    assert region(AWS_DEFAULT_REGION="us-west-1", AWS_PROFILE="far") == "us-west-1"
    none_left = calling.sh("true", "--dry-run")
    assert (none_left.code, "no AWS region is set" in none_left.err) == (2, True)
    assert "--region" in none_left.err
    unknown = calling.sh("true", "--dry-run", "--profile", "nobody", env=env)
    assert (unknown.code, "(nobody)" in unknown.err) == (125, True)


def test_what_a_detached_job_was_given_is_removed_once_it_has_ended(
    cloud: AwsCloud, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud)
    assert calling.sh("true", "-d", "-e", "TOKEN=secret").code == 0
    wait_for(lambda: not cloud.going_on())
    assert inputs(cloud)
    reaped = calling.cvl("reap", "-y")
    assert (reaped.code, b"its job has ended" in reaped.out) == (0, True), reaped.err
    assert not inputs(cloud)
    assert calling.ps()[0]["state"] == "ended"
