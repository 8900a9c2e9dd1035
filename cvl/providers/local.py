"""LocalRunner: this machine, in the example's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Unpack

from cvl.core.interfaces import Provider
from cvl.core.paths import state_dir
from cvl.core.spec import EMPTY, ExitStatus, JobSpec
from cvl.host.launch import Setup
from cvl.host.provider import HostProvider
from cvl.providers import base
from cvl.providers.common import Common
from cvl.providers.runner import Runner
from cvl.transports.local import Local


class LocalRunner(Runner):
    """Runs examples here, under the same supervisor as anywhere else."""

    name = "local"
    options_help: ClassVar = {"timeout_action": "a command that runs here after a timeout"}
    places: ClassVar = ()
    acting: ClassVar = {"base": ""}
    files: ClassVar = ("base",)

    def run(
        self,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        timeout_minutes: float | None = None,
        timeout_action: str | None = None,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example in place. Returns the script's exit code; raises `CvlError`.

        One that came with cvl runs in a copy: where Python keeps packages nothing is to be written.
        """
        spec = base.job(example, preset, args, common, timeout_minutes, timeout_action, sent=False)
        return base.run(_provider(in_place=not installed(spec)), spec, common)

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        return _provider(handle["base"])


def installed(spec: JobSpec) -> bool:
    """Return whether an example lies among the packages of this Python."""
    package = Path(__file__).resolve().parent.parent
    return spec.source is not None and spec.source.root.resolve() == package / "_shipped"


def _provider(base: str = "", *, in_place: bool = True) -> HostProvider:
    setup = Setup(in_place=in_place)
    return HostProvider("local", Local(), base=base or str(state_dir() / "here"), setup=setup)
