"""DockerContextRunner: your files on somebody's GPU box, nothing of cvl installed there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

from cvl.core.spec import ExitStatus
from cvl.providers.common import Common
from cvl.providers.ssh import ON_A_HOST, HostRunner, provider_at


class DockerContextRunner(HostRunner):
    """Runs examples on a machine with Docker and a shell: no Python, no cvl, no root there."""

    name = "docker"
    options_help: ClassVar = {
        **ON_A_HOST,
        "remote_workdir": "the folder for our files there, absolute or ~/x (default: ~/.cvl)",
        "sync_outputs": "bring the results here",
    }

    def run(
        self,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        *,
        host: str,
        remote_workdir: str | None = None,
        sync_outputs: bool = True,
        timeout_minutes: float | None = None,
        timeout_action: str | None = None,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example, as it is here now, on `host`; build its image there if it is missing.

        `remote_workdir` is the folder for our files there, absolute or `~/x` (default `~/.cvl`).
        `sync_outputs=False` leaves the results there; `cvl fetch` gets them. Returns the
        script's exit code; raises `CvlError`.
        """
        if not sync_outputs:
            common["fetch"] = False
        with self._reached(host, common) as transport:
            from cvl.host.launch import Setup
            from cvl.providers import base

            spec = base.job(example, preset, args, common, timeout_minutes, timeout_action)
            provider = provider_at(
                self.name, transport, self._key, Setup(), base=remote_workdir or ""
            )
            return base.run(provider, spec, common)
