"""What the tests of the SageMaker runner share: how the runner is called, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cvl.testing.desk import Desk
from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker import AwsCloud

INSTANCE = "ml.g5.xlarge"


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
