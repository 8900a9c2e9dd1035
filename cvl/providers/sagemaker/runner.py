"""SageMakerRunner: an example as a managed training job on AWS.

SageMaker enforces MaxRuntimeInSeconds itself, whatever becomes of this machine: no guardian is
needed to end the bill. The job's name carries the run id and is unique in an account, so a lost
reply is settled by asking for that name, and a request can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Unpack

from cvl.container.command import command
from cvl.core import request_template as template
from cvl.core.interfaces import Provider, Reapable
from cvl.core.spec import EMPTY, ExitStatus
from cvl.core.units import minutes
from cvl.providers import base, needs
from cvl.providers.aws.api_errors import EXTRA
from cvl.providers.aws.session import CHOOSING, FILES, Account, configured, lasting
from cvl.providers.common import Common
from cvl.providers.needs import Check
from cvl.providers.runner import Runner
from cvl.providers.sagemaker.job_options import JobOptions
from cvl.providers.sagemaker.provider import SageMaker
from cvl.providers.sagemaker.s3_location import S3Location

GRACE = 90.0
"""Of the 120 s between TERM and KILL, what the job has; the rest is for moving its results."""


class SageMakerRunner(Runner):
    """Builds the image, starts the job, follows it, brings its results."""

    name = "sagemaker"
    extra = EXTRA
    reapable = True
    regional = True
    reach: ClassVar = ("region", "profile", "endpoint")
    variables: ClassVar = CHOOSING
    places: ClassVar = ("region", "profile", "output_path")
    acting: ClassVar = {"endpoint": "AWS_ENDPOINT_URL"}
    files: ClassVar = ()
    path_variables: ClassVar = FILES
    path_lists: ClassVar = ("AWS_DATA_PATH",)
    options_help: ClassVar = {
        "role_arn": "the IAM role that the job itself runs as: arn:aws:iam::123456789012:role/NAME",
        "region": "where; default: AWS_REGION, or the profile's",
        "profile": "which of the profiles in ~/.aws/config; default: AWS_PROFILE",
        "instance_type": "the kind of machine, as SageMaker calls it: ml.g5.xlarge",
        "output_path": "where results stay: s3://BUCKET/PREFIX",
        "spot": "on spare capacity, much cheaper; AWS may take it away, then it starts again",
        "max_wait_minutes": "with --spot: how long waiting and running may take, in minutes",
        "download_outputs": "bring the results here as well",
        "entry_command": "a line for a shell, run in place of the preset's",
        "image_uri": "an image in a registry of AWS, as it is: nothing is built",
        "volume_gb": "the disk of each machine, in GB",
        "build_arg": "NAME=VALUE for the Dockerfile; may be repeated",
        "request_template": "a file with what there is no option for: fields of CreateTrainingJob",
    }

    def __init__(
        self, role_arn: str, region: str | None = None, profile: str | None = None
    ) -> None:
        """Connects to nothing. `role_arn` is what the job itself runs as."""
        self._role_arn = role_arn
        self._account = Account(region, profile)

    def run(
        self,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        *,
        instance_type: str,
        output_path: str,
        spot: bool = False,
        max_wait_minutes: float | None = None,
        max_run_minutes: float | None = None,
        entry_command: str | None = None,
        download_outputs: bool = True,
        image_uri: str | None = None,
        volume_gb: int = 30,
        build_arg: Sequence[str] = (),
        request_template: Path | None = None,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example as a training job; its results also stay below `output_path`.

        `entry_command` is a line for a shell, run in place of the preset's. `image_uri` is
        taken as it is: nothing is built. `request_template` is a file with more fields of
        CreateTrainingJob, over which ours are merged. Returns the script's exit code; raises
        `CvlError`.
        """
        options = JobOptions(
            role_arn=self._role_arn,
            instance_type=instance_type,
            output=S3Location.parse(output_path),
            spot=spot,
            max_wait=None if max_wait_minutes is None else minutes(max_wait_minutes),
            image=image_uri or "",
            volume_gb=volume_gb,
            build_args=tuple(build_arg),
            template=template.read(Path(request_template)) if request_template else None,
        )
        if not download_outputs:
            common["fetch"] = False
        common.setdefault("grace", GRACE)
        spec = base.job(example, preset, args, common, max_run_minutes, checked=False)
        spec = replace(spec, argv=command(spec, entry_command))
        return base.run(SageMaker(self._account, options), spec, common)

    @classmethod
    def needs(cls) -> Iterator[Check]:
        yield needs.program("docker", needed=False)
        yield needs.packages(EXTRA)
        yield from needs.login("AWS login", configured(), cls._check_login)

    @staticmethod
    def _check_login() -> Check:
        """Look for the credentials as a run would; AWS itself is asked only for a role's."""
        account = Account()
        ok = account.has_credentials()
        text = f"found, for {account.region}" if ok else "none found"
        return Check("AWS login", ok or None, text, "log in (`aws sso login`), or set AWS_PROFILE")

    @classmethod
    def timer_variables(cls, environ: Mapping[str, str]) -> Mapping[str, str]:
        return lasting(environ)

    @classmethod
    def login(cls) -> bool:
        return configured()

    @classmethod
    def everywhere(cls, handle: Mapping[str, str] = EMPTY) -> Iterator[Reapable]:
        """Yield each region of the partition."""
        account = _account(handle)
        for region in account.regions():
            yield SageMaker(account.elsewhere(region))

    @classmethod
    def owner(cls) -> Reapable | None:
        if not configured():
            return None
        EXTRA.require()
        account = Account()
        return SageMaker(account) if account.has_credentials() else None

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        EXTRA.require()
        output = handle.get("output")
        return SageMaker(_account(handle), output=S3Location.parse(output) if output else None)


def _account(handle: Mapping[str, str]) -> Account:
    return Account(handle.get("region"), handle.get("profile"), handle.get("endpoint"))
