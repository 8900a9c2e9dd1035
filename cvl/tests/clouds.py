"""What the tests of the SageMaker runner share: how the runner is called, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cvl.testing.cli_harness import Desk
from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker import AwsCloud
from cvl.testing.sagemaker.cloud import BUCKET

INSTANCE = "ml.g5.xlarge"
TOKEN = "hf_a-token-that-nobody-sees"


def options(cloud: AwsCloud, *more: str) -> tuple[str, ...]:
    """Return the options that run an example there."""
    ours = ("--sagemaker", "--role-arn", cloud.role, "--instance-type", INSTANCE)
    return (*ours, "--output-path", cloud.output, "-y", *more)


def desk(
    folder: Path, cloud: AwsCloud, image: str = "an-image", *more: str, engine: Engine | None = None
) -> Desk:
    """Return a desk whose runs are training jobs in a given image; "" builds one."""
    env: Mapping[str, str] = cloud.env
    if engine:
        env = {**env, "DOCKER_HOST": engine.url}
    given = ("--image-uri", image) if image else ()

    def left(run_id: str) -> Sequence[str]:
        return [job.name for job in cloud.going_on() if job.name == f"cvl-{run_id}"]

    return Desk(folder=folder, options=options(cloud, *given, *more), env=env, left=left)


def keep_versions(cloud: AwsCloud, *states: str) -> None:
    """Let the bucket keep what is replaced and deleted; the last state counts."""
    for state in states:
        cloud.client("s3").put_bucket_versioning(
            Bucket=BUCKET, VersioningConfiguration={"Status": state}
        )
    cloud.wire.log.clear()


def versions(cloud: AwsCloud) -> dict[str, list[bytes]]:
    """Return the content of every version of every object, by its key."""
    client, found = cloud.client("s3"), dict[str, list[bytes]]()
    for each in client.list_object_versions(Bucket=BUCKET).get("Versions", ()):
        where = {"Bucket": BUCKET, "Key": each["Key"], "VersionId": each["VersionId"]}
        with suppress(client.exceptions.ClientError):  # it has gone meanwhile
            found.setdefault(each["Key"], []).append(client.get_object(**where)["Body"].read())
    return found


def holding(cloud: AwsCloud) -> list[str]:
    """Return the keys of what holds the token, in any version."""
    return [k for k, every in versions(cloud).items() if any(TOKEN.encode() in e for e in every)]
