"""LambdaLabsRunner: rent a Lambda Cloud machine for one run, and see it gone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Unpack

from cvl.cleanup.reap_timer import installed, lasting_variables
from cvl.core.api_key import checked
from cvl.core.errors import CvlError, UsageError
from cvl.core.http.secure_url import address
from cvl.core.interfaces import Offer, Provider, Reapable
from cvl.core.request_template import read
from cvl.core.spec import EMPTY, ExitStatus
from cvl.core.units import duration
from cvl.host.launch import Setup
from cvl.providers import base, needs
from cvl.providers.common import Common
from cvl.providers.lambda_cloud.api import EXTRA
from cvl.providers.lambda_cloud.cloud import LambdaCloud, api
from cvl.providers.lambda_cloud.key import NAME as KEY
from cvl.providers.lambda_cloud.key import configured, lambda_key
from cvl.providers.needs import Check
from cvl.providers.runner import Runner
from cvl.rental.provider import Machines

BASE = "LAMBDA_API_BASE"


class LambdaLabsRunner(Runner):
    """Rents a machine, runs, fetches, terminates: and is not done before it saw it gone."""

    name = "lambda"
    extra = EXTRA
    reapable = True
    lists_offers = True
    places: ClassVar = ("region",)
    path_variables: ClassVar = ("LAMBDA_API_KEY_FILE",)
    options_help: ClassVar = {
        "gpu_type": "the type of machine (`cvl offers`); default: the cheapest that will do",
        "region": "where; default: wherever there is one",
        "wait_capacity": "keep looking for a free one for so long: 2h, 30m",
        "timeout_action": "a command that runs there after a timeout",
        "install_cvl": "put cvl on the machine and run it there",
        "self_terminate": "the machine ends itself at its deadline; puts your API key on it",
        "keep_on_fetch_failure": "keep paying until the deadline when results do not arrive",
        "accept_new_host_key": "for an image that does not take the host key that we make for it",
        "request_template": "a file with what there is no option for: fields of the launch request",
        "accept_unguarded": "allow -d though only this computer ends the rent",
    }

    def __init__(self, api_key: str | None = None) -> None:
        """Without a key, `LAMBDA_API_KEY` has it, or the file `LAMBDA_API_KEY_FILE` names."""
        self._key = api_key

    def run(
        self,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        gpu_type: str | None = None,
        timeout_minutes: float | None = None,
        region: str | None = None,
        wait_capacity: str | None = None,
        timeout_action: str | None = None,
        install_cvl: bool = False,
        self_terminate: bool = False,
        keep_on_fetch_failure: bool = False,
        accept_unguarded: bool = False,
        accept_new_host_key: bool = False,
        request_template: Path | None = None,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example on a rented machine. `gpu_type` None: the cheapest that will do.

        `wait_capacity` (2h, 30m) keeps looking while there is none. `timeout_action` runs on the
        machine. `request_template` is a file with more fields of Lambda's launch request, over
        which ours are merged. Returns the script's exit code; raises `CvlError`, and `StillOpen`
        when the machine was not seen gone.
        """
        spec = base.job(example, preset, args, common, timeout_minutes, timeout_action)
        if spec.detach and not (accept_unguarded or self_terminate or installed(os.environ)):
            raise UsageError(
                "-d on Lambda leaves only the guardian on this machine to end the rent",
                "add --self-terminate, or `cvl reap --install`, or agree with --accept-unguarded",
            )
        if not common.get("fetch", True):
            raise UsageError(
                "--no-fetch would lose the results: the machine is gone after the run",
                "leave it out, or say --fetch where a file or a variable says otherwise",
            )
        cloud = LambdaCloud(
            api(self._key),
            self_terminate=self_terminate,
            template=read(Path(request_template)) if request_template else None,
        )
        provider = Machines(
            cloud,
            kind=gpu_type,
            region=region,
            patience=duration(wait_capacity) if wait_capacity else 0.0,
            accept_new_host_key=accept_new_host_key,
            setup=Setup(bundle="install" if install_cvl else "no", again=False),
        )
        common["keep_rented"] = keep_on_fetch_failure
        return base.run(provider, spec, common)

    @classmethod
    def needs(cls) -> Iterator[Check]:
        yield from needs.ssh()
        yield needs.packages(EXTRA)
        try:
            key = lambda_key()  # judged by its look
        except CvlError as error:
            yield Check(KEY, False, str(error), error.hint)
        else:
            remedy = "make one in the Lambda Cloud dashboard and export it"
            yield Check(KEY, bool(key) or None, "set" if key else "", remedy)

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        return LambdaCloud(api()).offers()

    @classmethod
    def timer_variables(cls, environ: Mapping[str, str]) -> Mapping[str, str]:
        variables = lasting_variables(environ, ("LAMBDA_API_",))
        if KEY in variables:
            variables[KEY] = checked(variables[KEY], KEY)
        if BASE in variables:
            address(variables[BASE], BASE)
        return variables

    @classmethod
    def has_key(cls) -> bool:
        return configured()

    @classmethod
    def login(cls) -> bool:
        return cls.has_key()

    @classmethod
    def owner(cls) -> Reapable | None:
        if not configured():
            return None
        EXTRA.require()
        return LambdaCloud(api())

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del handle
        EXTRA.require()
        return Machines(LambdaCloud(api(secrets.get("api_key"))))
