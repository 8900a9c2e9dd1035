"""The whole cloud in one object: server, state, machines, faults, log and bill."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace
from types import TracebackType
from typing import Self

from cvl.core.scope import SystemClock
from cvl.testing.clock import Clock
from cvl.testing.lambda_cloud.api import Answer, Api, Entry, Hook, Moment, Request
from cvl.testing.lambda_cloud.control import PREFIX as CONTROL
from cvl.testing.lambda_cloud.control import control
from cvl.testing.lambda_cloud.faults import Fault, Faults, What
from cvl.testing.lambda_cloud.hosts import Hosts, NoHosts
from cvl.testing.lambda_cloud.instance import Instance
from cvl.testing.lambda_cloud.meter import Bill
from cvl.testing.lambda_cloud.plain_hosts import PlainHosts
from cvl.testing.lambda_cloud.real_hosts import Door, RealHosts
from cvl.testing.lambda_cloud.replies import Reply
from cvl.testing.lambda_cloud.schema import find
from cvl.testing.lambda_cloud.server import serve
from cvl.testing.lambda_cloud.state import Cloud, Settings
from cvl.testing.machine import possible

TICK = 0.05
"""Seconds between two looks at real machines: they change without being asked."""


class LambdaCloud:
    """The whole of it. Listens from the start; a context manager; `close` ends everything."""

    def __init__(
        self, settings: Settings | None = None, clock: Clock | None = None, port: int = 0
    ) -> None:
        """Raises `OSError` when the port is taken or the hosts asked for cannot be had."""
        settings = settings or Settings()
        key = settings.key or f"secret_fake_{secrets.token_hex(16)}.{secrets.token_hex(16)}"
        self.settings = replace(settings, key=key)
        self.clock = clock or SystemClock()
        self.document, self.unchecked = find()
        self._faults = Faults(self.clock, settings.seed)
        self._server = serve(self, port, settings.hang_seconds)
        self.port = self._server.port
        try:
            self.hosts = self._hosts()
        except BaseException:
            self._server.close()
            raise
        self.state = Cloud(self.settings, self.clock, self.hosts, self._faults)
        self.api = Api(self.state, self.clock, self.document)
        self._ticking = threading.Event()
        if self.hosts.kind != "none":
            threading.Thread(target=self._tick, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server, and every machine. Idempotent."""
        self._ticking.set()
        self._server.close()
        self.state.reset()
        self.hosts.close()

    @property
    def base(self) -> str:
        """The URL that stands for `https://cloud.lambda.ai/api/v1`."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def key(self) -> str:
        return self.settings.key

    @property
    def env(self) -> dict[str, str]:
        """What points a client here."""
        env = {"LAMBDA_API_BASE": self.base, "LAMBDA_API_KEY": self.key}
        if isinstance(self.hosts, PlainHosts):
            env["CVL_SSH_CONFIG"] = str(self.hosts.ssh_config)
        return env

    @property
    def log(self) -> list[Entry]:
        """Every request so far."""
        return self.api.log

    @property
    def violations(self) -> list[str]:
        """What must not be: what the document says was wrong, and hosts that failed to be."""
        return self.api.violations + self.hosts.errors

    def bill(self) -> Bill:
        """Return the bill up to now."""
        return self.state.bill()

    def alive(self) -> list[Instance]:
        """Return the instances that cost money, or will."""
        return self.state.alive()

    def keys(self) -> list[str]:
        """Return the names of the SSH keys."""
        return [str(key["name"]) for key in list(self.state.keys.values())]

    def inject(self, fault: Fault) -> None:
        """Let it go wrong, from now on."""
        if fault.what is What.OUTAGE:
            self._server.refuse(fault.delay)
        else:
            self._faults.inject(fault)

    def clear_faults(self) -> None:
        """Let nothing more go wrong; an outage is over."""
        self._faults.clear()
        self._server.resume()

    def on_request(self, hook: Hook) -> None:
        """Call `hook(entry, moment)` for every request, in the thread that serves it.

        It may kill the client, and may raise `Drop` to cut the connection there and then.
        """
        self.api.hooks.append(hook)

    def reset(self) -> None:
        """Start anew, with the same key and port: no instances, keys, faults, hooks, log."""
        self.clear_faults()
        self.state.reset()
        self.api.log.clear()
        self.api.hooks.clear()
        self.api.violations.clear()
        self.api.active = True

    def answer(self, request: Request) -> Answer | Reply:
        """Serve one request: what the server calls."""
        if request.path.startswith(CONTROL):
            return control(self, request.method, request.path, request.body)
        return self.api.answer(request)

    def answered(self, answer: Answer) -> None:
        """Hear that the answer was sent: what the server calls."""
        answer.entry.answered = self.clock.time()
        self.api.tell(answer.entry, Moment.ANSWERED)

    def utc(self) -> float:
        """Return the cloud's idea of the time, as its HTTP `Date` tells it."""
        return self.state.utc()

    def _hosts(self) -> Hosts:
        kind = self.settings.hosts
        if kind == "auto":
            kind = "sshd" if possible() else "machine"
        if kind == "machine":
            if possible():
                raise OSError(possible())
            return RealHosts(self.clock, Door(port=self.port, serve=self._server.serve))
        if kind == "sshd":
            return PlainHosts(self.clock)
        return NoHosts()

    def _tick(self) -> None:
        while not self._ticking.wait(TICK):
            self.state.advance()
