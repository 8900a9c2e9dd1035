"""A job on a rented machine: one that may move, break, or be gone while nobody can tell us."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cvl.cleanup.until_gone import UNSEEN
from cvl.core import identity
from cvl.core.errors import (
    AuthError,
    CvlError,
    Elsewhere,
    FetchError,
    HostError,
    HostKeyError,
    NotReady,
)
from cvl.core.interfaces import Cloud
from cvl.core.scope import Scope
from cvl.core.spec import Cause, ExitStatus, LogChunk, Resource, ended
from cvl.core.staging import not_taken
from cvl.host.job import RemoteJob
from cvl.host.rpc import FarSide
from cvl.rental.keys import RunKeys
from cvl.run.log import run_folder
from cvl.transports.ssh.openssh import OpenSSH

CONNECT_LIMIT = 8.0
"""Seconds: a machine that boots, or is gone, drops what is sent to it."""
KEPT = 60.0
"""Seconds that a connection outlives its last use: the machine will not be there for longer."""


def check() -> None:
    """Raise `MissingTool` unless all that a rented machine is reached with is installed here."""
    OpenSSH("localhost", config=os.devnull).check()


def reach(user: str, run_id: str, address: str) -> FarSide:
    """Return the way to a run's machine, with the run's keys, and no others.

    `CVL_SSH_CONFIG` may say more of the address: the user's own ssh_config has no say here.
    """
    keys = RunKeys.at(run_folder(run_id) / "ssh")
    keys.pin(address)
    return FarSide(
        OpenSSH(
            address,
            user=user,
            key=keys.path,
            known_hosts=keys.known_hosts,
            accept_new=keys.accept_new,
            config=os.environ.get("CVL_SSH_CONFIG") or os.devnull,
            connect_timeout=CONNECT_LIMIT,
            control_persist=KEPT,
        )
    )


class RentedJob:
    """The `Execution` that follows its machine, and knows when there is nothing to wait for."""

    def __init__(self, job: RemoteJob, far: FarSide, cloud: Cloud, machine: Resource) -> None:
        self._job, self._far, self._cloud, self._machine = job, far, cloud, machine
        self._address = job.handle.get("address", "")
        self._missing = 0
        self._fate = ""
        self._job.while_away = self._check

    @property
    def handle(self) -> Mapping[str, str]:
        return self._job.handle

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        """As every execution; a machine that is no longer of use ends them: `poll` says so."""
        while not self._fate:
            try:
                for chunk in self._job.chunks(after):
                    after = chunk.cursor
                    yield chunk
                return
            except (NotReady, HostKeyError, AuthError):
                # not our machine any more, or not at this address
                if not self._explained():
                    raise

    def written(self, after: str = "") -> None:
        del after

    def poll(self) -> ExitStatus | None:
        try:
            return self._lost() if self._fate else self._job.poll()
        except HostError:
            if not self._explained():
                raise
        return self._lost() if self._fate else self._job.poll()

    def stop(self, grace: float, cause: Cause) -> None:
        """As every execution's. Raises `NotReady` when there is no machine to stop anything on."""
        try:
            if not self._fate:
                return self._job.stop(grace, cause)
        except HostError:
            if self._moved():
                return self._job.stop(grace, cause)
            if not self._fate:
                raise
        raise NotReady(self._fate)

    def fetch(self, into: Path, scope: Scope) -> None:
        """As every execution's; where there is no machine any more it does not wait for one.

        Raises `Blocked` for files that this machine does not take: they would go with that one.
        """
        try:
            if not self._fate:
                self._job.fetch(into, scope)
        except FetchError:
            if not self._fate:
                raise
        if self._fate:
            raise FetchError(f"the last results of {self._job.run_id} are lost: {self._fate}")
        if refused := self._job.refused_here:
            raise not_taken(into, refused)

    def discard(self) -> None:
        """Nothing to tidy up: the machine itself goes."""

    def close(self) -> None:
        self._job.close()

    def _check(self) -> None:
        """Between two attempts to get back: raise `NotReady` if that makes no sense any more."""
        self._moved()
        if self._fate:
            raise NotReady(f"{self._machine.name}: {self._fate}")

    def _explained(self) -> bool:
        """Return whether the machine has ended or moved: then that was why."""
        return self._moved() or bool(self._fate)

    def _moved(self) -> bool:
        """Look at the machine: follow it to another address, note its end. Tell if it moved."""
        try:
            look = self._cloud.look(self._machine)
        except CvlError:
            return False
        self._missing = self._missing + 1 if look.state == "missing" else 0
        if look.state == "missing":
            self._confirm()
        if look.state in {"gone", "broken"} or self._missing >= UNSEEN:
            self._fate = f"the machine is {look.words}"
            return False
        if look.address in {"", self._address}:
            return False
        self._address = look.address
        self._far.transport = reach(self._cloud.user, self._job.run_id, look.address).transport
        return True

    def _confirm(self) -> None:
        """Raise `Elsewhere` if the machine may be in another account."""
        try:
            identity.confirm(self._cloud, identity.noted(self.handle))
        except Elsewhere:
            raise
        except CvlError:
            self._missing = 0  # it cannot be known now: nothing is concluded

    def _lost(self) -> ExitStatus:
        return ended(Cause.LOST, run_id=self._job.run_id, detail=self._fate)
