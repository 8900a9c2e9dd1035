"""SSHRunner: your own machine over SSH, with cvl itself on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

from cvl.core.errors import NotFound
from cvl.core.paths import absolute
from cvl.core.spec import EMPTY, ExitStatus
from cvl.providers.common import Common
from cvl.providers.runner import Runner

if TYPE_CHECKING:
    from cvl.core.interfaces import Provider
    from cvl.core.scope import Scope
    from cvl.core.spec import JobSpec
    from cvl.host.launch import Setup
    from cvl.host.provider import HostProvider
    from cvl.providers.needs import Check
    from cvl.transports.ssh.openssh import OpenSSH

ON_A_HOST = {
    "host": "HOST, USER@HOST, HOST:PORT, or a name from your ssh_config",
    "timeout_action": "a command that runs there after a timeout",
    "ssh_key_path": "a private key to use beside those that ssh_config names",
    "accept_new_host_key": "trust the host's key if it is unknown, never if it has changed",
}
"""What the options of every runner on a machine of the user's mean."""


class HostRunner(Runner):
    """What the runners on a machine of the user's share."""

    def __init__(
        self, ssh_key_path: str | Path | None = None, accept_new_host_key: bool = False
    ) -> None:
        """Use this key beside those that the SSH configuration names."""
        self._key = Path(ssh_key_path) if ssh_key_path else None
        self._accept_new = accept_new_host_key

    @contextmanager
    def _reached(self, host: str, common: Common) -> Iterator[OpenSSH]:
        """Give the way to a machine that the user names.

        With `ahead` it connects already, while everything else is still to be loaded and read:
        that takes half as long as the handshake. Raises `MissingTool` and `UsageError`, before
        anything is noted or started.
        """
        from cvl.host.request import REQUEST
        from cvl.transports.ssh.openssh import OpenSSH

        transport = OpenSSH(host, key=self._key, accept_new=self._accept_new)
        try:
            if common.get("ahead"):
                transport.get_ready(REQUEST)
            transport.check()
            yield transport
        finally:
            transport.unready()

    @classmethod
    def needs(cls) -> Iterator[Check]:
        from cvl.providers import needs

        return needs.ssh()

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        from cvl.host.provider import HostProvider
        from cvl.transports.ssh.openssh import OpenSSH

        key, config = handle.get("key"), handle.get("config")
        transport = OpenSSH(
            handle["host"], key=Path(key) if key else None, config=Path(config) if config else None
        )
        return HostProvider(cls.name, transport, base=handle["base"])


class SSHRunner(HostRunner):
    """Runs examples on a machine of yours; who is logged in there sees, follows, stops them."""

    name = "ssh"
    options_help: ClassVar = {
        **ON_A_HOST,
        "setup_cvl": "put this very cvl there first if it is not there",
    }

    def run_remote(
        self,
        host: str,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        timeout_minutes: float | None = None,
        timeout_action: str | None = None,
        setup_cvl: bool = True,
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example on `host`: as it is here now, or, if unknown here, the host's own.

        `timeout_action` is a command that runs on the host after a timeout. `setup_cvl` puts
        this very version of cvl there first, if it is not there yet. Returns the script's exit
        code; raises `CvlError`.
        """
        with self._reached(host, common) as transport:
            from dataclasses import replace

            from cvl.core.scope import Scope
            from cvl.host.launch import Setup
            from cvl.providers import base

            setup = Setup(bundle="install" if setup_cvl else "require")
            try:
                spec = base.job(example, preset, args, common, timeout_minutes, timeout_action)
            except NotFound as unknown:
                if base.is_known(example, common):
                    raise
                setup = replace(setup, in_place=True)
                scope = Scope(tell=base.observer_of(common).phase)
                words = (example, preset, args)
                bare = self._resolve_there(transport, setup, unknown, words, scope)
                bounds = base.limits(common, timeout_minutes, timeout_action)
                spec = base.equipped(bare, common, bounds)
            provider = provider_at(self.name, transport, self._key, setup)
            return base.run(provider, spec, common)

    run = run_remote

    def _resolve_there(
        self,
        transport: OpenSSH,
        setup: Setup,
        unknown: NotFound,
        words: tuple[str, str, Sequence[str]],
        scope: Scope,
    ) -> JobSpec:
        """Ask the host's own cvl for an example that is unknown here."""
        from cvl.host import resolve_there

        try:
            far = provider_at(self.name, transport, self._key, setup).far
            return resolve_there.job(far, *words, install=setup.bundle == "install", scope=scope)
        except NotFound as error:
            raise NotFound(
                f"{unknown}, and {transport.where} says: {error}", unknown.hint
            ) from error


def provider_at(
    name: str, transport: OpenSSH, key: Path | None, setup: Setup, *, base: str = ""
) -> HostProvider:
    """Return the provider for the machine at the end of `transport`."""
    from cvl.host.provider import HostProvider

    config = os.environ.get("CVL_SSH_CONFIG", "")
    address = {
        "host": transport.where,
        "key": str(absolute(key)) if key else "",
        "config": str(absolute(config)) if config else "",
    }
    return HostProvider(name, transport, base=base, setup=setup, address=address)
