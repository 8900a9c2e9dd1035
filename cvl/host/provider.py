"""A machine that is already there, as a `Provider`: nothing is rented, nothing has to be ended."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from cvl.core.errors import NotReady, UsageError
from cvl.core.interfaces import Leases, Transport
from cvl.core.scope import Scope, Tell, silent
from cvl.core.spec import EMPTY, FREE, STOP_LIMIT, JobSpec, Plan, Resource
from cvl.host import launch
from cvl.host.job import RemoteJob
from cvl.host.launch import Setup
from cvl.host.rpc import FarSide

LOOKING = 'if command -v cvl >/dev/null 2>&1 || test -x "$base/bin/cvl"; then echo yes; fi'
LAYERS = ("the host's own supervisor: timeout and stop work without this machine",)


class HostProvider:
    """Runs jobs on one machine through a transport."""

    many_nodes = False
    guarded = True
    stop_limit = STOP_LIMIT
    listing_lag = 0.0
    unique = frozenset[str]()

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        base: str = "",
        setup: Setup = Setup(),  # noqa: B008 - a frozen value
        address: Mapping[str, str] | None = None,
    ) -> None:
        """`base` is our folder there ("": `~/.cvl`); `address` makes the transport again."""
        self.name = name
        self.far = FarSide(transport, base)
        self._setup = setup
        self._address = dict(address or {})
        self._key = os.urandom(16)

    @property
    def secrets(self) -> Mapping[str, str]:
        return EMPTY

    def plan(self, spec: JobSpec) -> Plan:
        if spec.source is None:
            raise UsageError(f"{self.name} runs an example; none was named")
        request = {
            "host": self.far.transport.where,
            "folder": f"{self.far.shown}/jobs/{spec.run_id}",
            "argv": list(spec.argv),
            "env": {**spec.env, **{name: f"<redacted:{name}>" for name in spec.secrets}},
            "example": str(spec.source.root / spec.source.folder),
            "in_place": self._setup.in_place,
            "build": list(spec.build.argv) if spec.build else None,
            "timeout_seconds": spec.limits.timeout,
            "timeout_action": spec.limits.timeout_action,
        }
        return Plan(
            runner=self.name,
            where=self.far.transport.where,
            request=request,
            quote=FREE,
            layers=LAYERS,
        )

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {
            "run": spec.run_id,
            "seal": launch.seal(self._key, spec.run_id),
            "base": self.far.base,
            "folder": f"{self.far.shown}/jobs/{spec.run_id}",
            "place": launch.example_folder(spec, self._setup),
            "image": spec.image or "",
            **self._address,
        }

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> RemoteJob:
        del leases  # nothing here costs money
        if self._setup.bundle == "require" and self.far.output(LOOKING, scope=scope) != b"yes\n":
            raise NotReady(
                f"cvl is not installed on {self.far.transport.where}",
                "leave setup_cvl on (--setup-cvl), and it is put there without pip or sudo",
            )
        return launch.start(self.far, spec, self.handle(spec), self._setup, scope)

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> RemoteJob:
        return RemoteJob(self.far, handle, tell=tell)

    def owned(self, kind: str = "") -> Iterable[Resource]:
        del kind
        return ()

    def destroy(self, resource: Resource) -> None:
        raise UsageError(f"{self.name} rents nothing: {resource.name} is not ours to end")
