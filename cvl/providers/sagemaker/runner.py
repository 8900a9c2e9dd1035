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
from cvl.core.extras import require
from cvl.core.interfaces import Provider, Reapable
from cvl.core.spec import EMPTY, ExitStatus
from cvl.core.units import minutes
from cvl.providers import base
from cvl.providers.aws.api_errors import EXTRA
from cvl.providers.aws.session import GIVEN, Account, configured
from cvl.providers.common import Common
from cvl.providers.sagemaker.order import Order
from cvl.providers.sagemaker.provider import SageMaker
from cvl.providers.sagemaker.s3_location import Place

GRACE = 90.0
"""Of the 120 s between TERM and KILL, what the job has; the rest is for moving its results."""


class SageMakerRunner:
    """Builds the image, starts the job, follows it, brings its results."""

    name = "sagemaker"

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
        order = Order(
            role_arn=self._role_arn,
            instance_type=instance_type,
            output=Place.parse(output_path),
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
        spec = base.job(
            example, preset, args, common, timeout_minutes=max_run_minutes, checked=False
        )
        spec = replace(spec, argv=command(spec, entry_command))
        return base.run(SageMaker(self._account, order), spec, common)

    reach: ClassVar = ("region", "profile", "endpoint")
    variables: ClassVar = GIVEN

    @classmethod
    def login(cls) -> bool:
        """Return whether anything here speaks of AWS; asks nobody."""
        return configured()

    @classmethod
    def everywhere(cls, handle: Mapping[str, str] = EMPTY) -> Iterator[Reapable]:
        """Yield what `cvl reap` asks now and then: each region of the partition.

        `handle` may name region and profile, as that of a run does.
        """
        account = Account(handle.get("region"), handle.get("profile"), handle.get("endpoint"))
        for region in account.regions():
            yield SageMaker(account.elsewhere(region))

    @classmethod
    def reapable(cls) -> Reapable | None:
        """Return what `cvl reap` asks, None where nothing speaks of AWS. Raises `MissingExtra`."""
        if not configured():
            return None
        require(EXTRA)
        account = Account()
        return SageMaker(account) if account.has_credentials() else None

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        require(EXTRA)
        account = Account(handle.get("region"), handle.get("profile"), handle.get("endpoint"))
        output = handle.get("output")
        return SageMaker(account, output=Place.parse(output) if output else None)
