"""DockerContextRunner: your files on somebody's GPU box, nothing of cvl installed there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

from cvl.core.spec import EMPTY, ExitStatus
from cvl.providers.common import Common
from cvl.providers.runner import Runner
from cvl.providers.ssh import ON_A_HOST, provider_at, reached, reopened

if TYPE_CHECKING:
    from cvl.core.interfaces import Provider
    from cvl.providers.needs import Check


class DockerContextRunner(Runner):
    """Runs examples on a machine with Docker and a shell: no Python, no cvl, no root there."""

    name = "docker"
    options_help: ClassVar = {
        **ON_A_HOST,
        "remote_workdir": "the folder for our files there, absolute or ~/x (default: ~/.cvl)",
        "sync_outputs": "bring the results here",
    }

    def __init__(
        self, ssh_key_path: str | Path | None = None, accept_new_host_key: bool = False
    ) -> None:
        """Use this key beside those that the SSH configuration names."""
        self._key = Path(ssh_key_path) if ssh_key_path else None
        self._accept_new = accept_new_host_key

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
        with reached(host, self._key, common, accept_new=self._accept_new) as transport:
            from cvl.host.launch import Setup
            from cvl.providers import base

            spec = base.job(
                example,
                preset,
                args,
                common,
                timeout_minutes=timeout_minutes,
                timeout_action=timeout_action,
            )
            provider = provider_at(
                self.name, transport, self._key, Setup(), base=remote_workdir or ""
            )
            return base.run(provider, spec, common)

    @classmethod
    def needs(cls) -> Iterator[Check]:
        from cvl.providers import needs

        return needs.ssh()

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        return reopened(cls.name, handle)
