"""What is asked of SageMaker: a CreateTrainingJob request, and for how long it may run."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import NamedTuple

from cvl.cleanup.leases import HOUR
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.request_template import Template
from cvl.core.spec import JobSpec, Limits
from cvl.core.tags import Marks, listed, name_of
from cvl.providers.sagemaker import inputs
from cvl.providers.sagemaker.image import ENTRY
from cvl.providers.sagemaker.s3_location import S3Location

DAY = 86400
NO_LIMIT, MOST = DAY, 28 * DAY
"""Seconds: MaxRuntimeInSeconds without any limit of ours, and the most that AWS takes."""
STOP = 120
"""Seconds that SageMaker leaves a job between TERM and KILL."""
WAIT = 3600.0
"""Seconds that a spot job waits for capacity at least, unless said otherwise."""
PENDING = 7200.0
"""Seconds from the request to the start, when the deadline in the tags is reckoned."""
SHOWN = 90
"""Variables whose names are shown; AWS takes 100 in all."""
SENT_ENTRY = "/opt/ml/input/data/cvl/entry.sh"
ARM64 = re.compile(r"ml\.([a-z]+\d+g[a-z]*|[a-z0-9]+-g[bh]\d+)\.")
"""Instance types whose processor is AWS's Graviton or NVIDIA's Grace."""
ROLE = re.compile(r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>\d{12}):role/(?P<path>.+)\Z")
INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+\Z")


class Role(NamedTuple):
    """`account`: 12 digits. `partition`: `aws`, `aws-cn`, `aws-us-gov`. `name`: without a path."""

    account: str
    partition: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the user asks of SageMaker, checked as far as that needs nobody else.

    `image` is a URI that is taken as it is; "" builds one. `max_wait` is in seconds.
    """

    role_arn: str
    instance_type: str
    output: S3Location
    spot: bool = False
    max_wait: float | None = None
    image: str = ""
    volume_gb: int = 30
    build_args: tuple[str, ...] = ()
    template: Template | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for what AWS would refuse."""
        if not ROLE.match(self.role_arn):
            raise UsageError(
                f"{self.role_arn!r} is no role",
                "give --role-arn arn:aws:iam::ACCOUNT:role/NAME, one that SageMaker may assume",
            )
        if not INSTANCE.match(self.instance_type):
            raise UsageError(
                f"{self.instance_type!r} is no instance type", "name one like ml.g5.xlarge"
            )
        if self.max_wait is not None and not self.spot:
            raise UsageError("--max-wait-minutes goes with --spot", "only a spot job waits so")

    def check_arch(self) -> None:
        """Raise `UsageError` where the image that we would build does not run on the instance."""
        if not self.image and ARM64.match(self.instance_type):
            raise UsageError(
                f"{self.instance_type} has arm64 processors, and the image is built for amd64",
                "take another --instance-type, or give --image-uri, one for arm64",
            )

    @property
    def role(self) -> Role:
        """What the role's ARN says."""
        match = ROLE.match(self.role_arn)
        assert match
        return Role(match["account"], match["partition"], match["path"].rpartition("/")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How long a job may train, in seconds, and why just so long."""

    seconds: int
    why: str


def runtime(limits: Limits, price: Decimal | None, currency: str = "USD") -> Runtime:
    """Return MaxRuntimeInSeconds: the timeout, or what the money buys if that is less.

    `price` is that of all nodes, an hour, in `currency`; so is the limit on it. Raises
    `UsageError`.
    """
    run = Runtime(seconds=NO_LIMIT, why="no --timeout was given")
    if limits.timeout is not None:
        run = Runtime(seconds=math.ceil(limits.timeout), why="the timeout")
    if limits.max_cost is not None:
        if price is None:
            raise UsageError(
                "--max-cost needs a price, and the AWS Price List gives none",
                "leave it out and give --timeout, or allow pricing:GetProducts",
            )
        bought = math.floor(limits.max_cost / price * HOUR) - STOP if price > 0 else run.seconds
        if bought < run.seconds:
            counted = "" if currency == "USD" else f", counted in {currency}"
            run = Runtime(seconds=bought, why=f"--max-cost {limits.max_cost}{counted}")
    if not 1 <= run.seconds <= MOST:
        raise UsageError(
            f"a training job cannot run for {run.seconds} s ({run.why})",
            "SageMaker takes 1 second to 28 days",
        )
    return run


def max_wait(options: JobOptions, run: Runtime) -> int:
    """Return MaxWaitTimeInSeconds of a spot job: waiting and running. Raises `UsageError`."""
    if options.max_wait is None:
        return min(run.seconds + round(max(run.seconds, WAIT)), MOST)
    if options.max_wait < run.seconds:
        raise UsageError(
            f"--max-wait-minutes is less than the {run.seconds} s that the job may run",
            "it counts waiting and running together; or give a shorter --timeout",
        )
    return min(math.ceil(options.max_wait), MOST)


def deadline(options: JobOptions, run: Runtime, now: float) -> float:
    """Return the UTC epoch second by which such a job is over in any case."""
    spent = max_wait(options, run) if options.spot else PENDING + run.seconds
    return now + spent + STOP + PENDING


def request(
    options: JobOptions, spec: JobSpec, run: Runtime, *, image: str, marks: Marks
) -> dict[str, object]:
    """Return exactly what CreateTrainingJob is sent. Secrets are in none of it."""
    name = name_of(spec.run_id)
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": f"{inputs.location_of(options.output, name)}/",
        "S3DataDistributionType": "FullyReplicated",
    }
    stopping = {"MaxRuntimeInSeconds": run.seconds}
    more: dict[str, object] = {}
    if options.spot:
        stopping["MaxWaitTimeInSeconds"] = max_wait(options, run)
        more["EnableManagedSpotTraining"] = True
        more["CheckpointConfig"] = {
            "S3Uri": str(options.output / name / "checkpoints"),
            "LocalPath": "/opt/ml/checkpoints",
        }
    return {
        "TrainingJobName": name,
        "RoleArn": options.role_arn,
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", SENT_ENTRY if options.image else ENTRY],
        },
        "InputDataConfig": [
            {"ChannelName": "cvl", "DataSource": {"S3DataSource": source}, "InputMode": "File"}
        ],
        "OutputDataConfig": {"S3OutputPath": str(options.output)},
        "ResourceConfig": {
            "InstanceType": options.instance_type,
            "InstanceCount": spec.nodes,
            "VolumeSizeInGB": options.volume_gb,
        },
        "StoppingCondition": stopping,
        "Environment": environment(spec),
        "Tags": listed(marks.tags),
        **more,
    }


def environment(spec: JobSpec) -> dict[str, str]:
    """Return what DescribeTrainingJob shows: of secrets, only that they were forwarded.

    Their values come with the input, to the job alone. Under their own names these would mean
    something to the container's runtime and to the entry script: PATH, NVIDIA_VISIBLE_DEVICES.
    """
    names = {f"CVL_SECRET_{name}": f"<redacted:{name}>" for name in list(spec.secrets)[:SHOWN]}
    return {**names, "CVL_RUN_ID": spec.run_id, "CVL_GRACE": f"{round(spec.limits.grace)}"}
