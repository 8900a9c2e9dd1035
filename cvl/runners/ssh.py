"""SSHRunner: your own machine over SSH, with cvl itself on it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from cvl.provider import Provider
from cvl.remote.host import HostProvider
from cvl.remote.launch import Setup
from cvl.runners import frontdoor
from cvl.runners.frontdoor import Common
from cvl.spec import EMPTY, ExitStatus
from cvl.transports.openssh import OpenSSH


class SSHRunner:
    """Runs examples on a machine of yours; who is logged in there sees, follows, stops them."""

    name = "ssh"

    def __init__(
        self, ssh_key_path: str | Path | None = None, accept_new_host_key: bool = False
    ) -> None:
        """Use this key beside those that the SSH configuration names."""
        self._key = Path(ssh_key_path) if ssh_key_path else None
        self._accept_new = accept_new_host_key

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
        """Run the example, as it is here now, on `host`.

        `timeout_action` is a command that runs on the host after a timeout. `setup_cvl` puts
        this very version of cvl there first, if it is not there yet. Returns the script's exit
        code; raises `CvlError`.
        """
        spec = frontdoor.job(
            example,
            preset,
            args,
            common,
            timeout_minutes=timeout_minutes,
            timeout_action=timeout_action,
        )
        setup = Setup(bundle="install" if setup_cvl else "require")
        provider = provider_at(self.name, host, self._key, setup, accept_new=self._accept_new)
        return frontdoor.run(provider, spec, common)

    run = run_remote

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        return reopened(cls.name, handle)


def provider_at(
    name: str,
    host: str,
    key: Path | None,
    setup: Setup,
    *,
    base: str = "",
    accept_new: bool = False,
) -> HostProvider:
    """Return the provider for a machine that the user names.

    Raises `MissingTool` and `UsageError`, before anything is noted or started.
    """
    config = os.environ.get("CVL_SSH_CONFIG", "")
    address = {
        "host": host,
        "key": str(key.absolute()) if key else "",
        "config": str(Path(config).absolute()) if config else "",
    }
    transport = OpenSSH(host, key=key, accept_new=accept_new)
    transport.check()
    return HostProvider(name, transport, base=base, setup=setup, address=address)


def reopened(name: str, handle: Mapping[str, str]) -> HostProvider:
    """Return the provider for a machine that the ledger names."""
    key, config = handle.get("key"), handle.get("config")
    transport = OpenSSH(
        handle["host"], key=Path(key) if key else None, config=Path(config) if config else None
    )
    return HostProvider(name, transport, base=handle["base"])
