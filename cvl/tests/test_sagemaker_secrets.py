"""What is forwarded to a training job lies in one object of its own, and no version of it stays."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cvl.core.errors import Denied
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker import inputs
from cvl.providers.sagemaker.s3_location import S3Location
from cvl.testing.cli_harness import Desk, wait_for
from cvl.testing.sagemaker import FAULTS, AwsCloud, Settings
from cvl.testing.sagemaker.cloud import BUCKET, missing
from cvl.tests.clouds import TOKEN, desk, holding, keep_versions, versions

pytestmark = pytest.mark.timeout(300)
GIVEN = ("-e", f"HF_TOKEN={TOKEN}")


@pytest.fixture(scope="module")
def clouds() -> Iterator[AwsCloud]:
    if why := missing():
        pytest.skip(why)
    with AwsCloud() as running:
        yield running


Begin = Callable[[Settings], AwsCloud]


@pytest.fixture(params=["Enabled", "Suspended", ""], ids=["versioned", "suspended", "plain"])
def begin(request: pytest.FixtureRequest, clouds: AwsCloud) -> Iterator[Begin]:
    def begun(settings: Settings) -> AwsCloud:
        clouds.reset(settings)
        keep_versions(clouds, *(("Enabled", request.param) if request.param else ()))
        return clouds

    yield begun
    assert not clouds.wire.violations
    assert not holding(clouds)
    assert not [key for key in versions(clouds) if "cvl-input" in key]
    assert TOKEN not in repr([job.described() for job in clouds.jobs.values()])


@pytest.mark.parametrize(
    "fault", ["", "create-refused", "create-reset-after", "put-object-reset", "put-object-slow"]
)
def test_no_version_holds_a_secret_afterwards(fault: str, begin: Begin, tmp_path: Path) -> None:
    cloud = begin(Settings())
    if fault:
        cloud.inject(FAULTS[fault])
    done = desk(tmp_path, cloud).sh("true", *GIVEN)
    assert done.code == (125 if fault == "create-refused" else 0), done.err
    assert TOKEN not in done.err


def test_ctrl_c_leaves_none(begin: Begin, tmp_path: Path) -> None:
    cloud = begin(Settings(start=300.0))
    calling = desk(tmp_path, cloud)
    with calling.start("run", *calling.options, *GIVEN, "one", "sh", "true") as client:
        wait_for(cloud.going_on)
        only_in_an_object_of_its_own(cloud)
        client.signal(signal.SIGINT)
        assert client.ended().code == 130


def test_reap_leaves_none_of_a_dead_client(begin: Begin, tmp_path: Path) -> None:
    cloud = begin(Settings(start=300.0))
    calling = desk(tmp_path, cloud)
    with calling.start("run", *calling.options, *GIVEN, "one", "sh", "true") as client:
        wait_for(cloud.going_on)
        client.signal(signal.SIGKILL)
        client.process.wait(10)
    only_in_an_object_of_its_own(cloud)
    assert not kept(calling)
    assert calling.cvl("reap", "-y").code == 0
    assert not cloud.going_on()


@pytest.mark.parametrize("spot", [False, True], ids=["", "spot"])
def test_it_is_gone_while_the_job_still_runs(spot: bool, begin: Begin, tmp_path: Path) -> None:
    """Not so for a spot job: it may start again, and reads it again then."""
    cloud = begin(Settings(upload=6.0))
    more = ("--spot",) if spot else ()
    calling = desk(tmp_path, cloud, "an-image", *more)
    with calling.start("run", *calling.options, *GIVEN, "one", "sh", "true") as client:
        wait_for(lambda: any(job.secondary == "Uploading" for job in cloud.jobs.values()))
        if spot:
            assert holding(cloud)
        else:
            wait_for(lambda: not holding(cloud))
            assert any(key.endswith("/job.sh") for key in versions(cloud))
        assert cloud.going_on()
        assert client.ended().code == 0


def only_in_an_object_of_its_own(cloud: AwsCloud) -> None:
    assert [key.rpartition("/")[2] for key in holding(cloud)] == [inputs.SECRETS]


def kept(calling: Desk) -> list[str]:
    """Return the files of ours that hold the token."""
    files = [path for path in calling.state.rglob("*") if path.is_file()]
    return [str(path) for path in files if TOKEN.encode() in path.read_bytes()]


class Limited(Account):
    """An account that may not do everything."""

    def __init__(self, cloud: AwsCloud, forbidden: str) -> None:
        super().__init__(cloud.settings.region, endpoint=cloud.url)
        self._forbidden = forbidden

    def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        objects = parameters.get("Delete", {}).get("Objects", ())
        if self._forbidden == operation == "list_object_versions":
            raise Denied("s3: AccessDenied: not these")
        if self._forbidden == operation and any("VersionId" in each for each in objects):
            return {"Errors": [{"Key": "x", "Code": "AccessDenied", "Message": "not these"}]}
        return super().call(service, operation, **parameters)


@pytest.mark.parametrize("forbidden", ["list_object_versions", "delete_objects"])
@pytest.mark.parametrize("versioned", [True, False], ids=["versioned", "plain"])
def test_who_may_not_delete_versions_is_told_what_stays(
    forbidden: str, versioned: bool, clouds: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds.reset(Settings())
    for name, value in clouds.env.items():
        monkeypatch.setenv(name, value)
    keep_versions(clouds, *(("Enabled",) if versioned else ()))
    place = S3Location.parse(f"{clouds.output}/cvl-input/job")
    key = (place / inputs.SECRETS).prefix
    clouds.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"x")
    account = Limited(clouds, forbidden)
    if versioned:
        with pytest.raises(Denied, match=r"old versions of s3://.* stay, forwarded variables"):
            inputs.remove(account, place)
    else:
        inputs.remove(account, place)
    assert clouds.objects() == []
