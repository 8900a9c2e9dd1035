"""LocalRunner: this machine, in the example's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

from cvl.paths import state_dir
from cvl.provider import Provider
from cvl.remote.host import HostProvider
from cvl.remote.launch import Setup
from cvl.runners import frontdoor
from cvl.runners.common import Common
from cvl.spec import EMPTY, ExitStatus
from cvl.transports.local import Local


class LocalRunner:
    """Runs examples here, under the same supervisor as anywhere else."""

    name = "local"
    options_help: ClassVar = {"timeout_action": "a command that runs after a timeout"}

    def run(
        self,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        timeout_minutes: float | None = None,
        timeout_action: str | None = None,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example in place. Returns the script's exit code; raises `CvlError`."""
        spec = frontdoor.job(
            example,
            preset,
            args,
            common,
            timeout_minutes=timeout_minutes,
            timeout_action=timeout_action,
            sent=False,
        )
        return frontdoor.run(_provider(), spec, common)

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        return _provider(handle["base"])


def _provider(base: str = "") -> HostProvider:
    setup = Setup(in_place=True)
    return HostProvider("local", Local(), base=base or str(state_dir() / "here"), setup=setup)
