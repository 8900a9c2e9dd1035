"""Instances that are plain sshds on 127.0.3.N, for where machines cannot be had.

They run as the current user, on this computer's own disk, and honour of `user_data` only the host
key. The client learns the ports and the user from `ssh_config`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from cvl.testing.clock import Clock
from cvl.testing.cloud_init import host_keys
from cvl.testing.lambda_cloud.hosts import Host, Worker
from cvl.testing.lifeline import Lifeline, started
from cvl.testing.machine import Image
from cvl.testing.sshd import Sshd

PREFIX = "cvl-cloud-"
OWNER = "owner"
SWEEPER = "from cvl.testing.lambda_cloud.plain_hosts import sweep; sweep({!r})"


class PlainHosts:
    """Builds sshds in one folder, which is swept when we end, in whatever way."""

    kind = "sshd"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(2)
        self._all: list[_PlainHost] = []
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        (self._folder / OWNER).write_text(f"{os.getpid()} {started(os.getpid())}")
        last = f'echo ready; cat >/dev/null; exec "{sys.executable}" -c "$0"'
        self._sweeper = Lifeline(("sh", "-c", last, SWEEPER.format(str(self._folder))))
        self.ssh_config = self._folder / "ssh_config"
        self.ssh_config.touch()

    @property
    def errors(self) -> list[str]:
        return [host.worker.error for host in self._all if host.worker.error]

    def new(self, image: Image) -> Host:
        number = next(self._numbers)
        sshd = Sshd(self._folder / str(number), address=f"127.0.3.{number % 250 + 2}")
        host = _PlainHost(Worker(self._clock), sshd, image, self.ssh_config)
        self._all.append(host)
        return host

    def close(self) -> None:
        for host in self._all:
            host.destroy()
        for host in self._all:
            host.worker.join()
        self._sweeper.close()


class _PlainHost:
    def __init__(self, worker: Worker, sshd: Sshd, image: Image, config: Path) -> None:
        self.worker = worker
        self._sshd, self._image, self._config = sshd, image, config
        self._built = False
        self.alive = True
        self.address = sshd.address

    @property
    def ready_at(self) -> float | None:
        return self.worker.ready_at

    def power_on(self) -> None:
        self.worker.boot(self._on)

    def power_cut(self) -> None:
        self.alive = False
        self.worker.do(self._sshd.crash)

    def reboot(self) -> None:
        self.worker.do(self._sshd.crash)
        self.power_on()

    def move(self) -> None:
        pass  # an sshd here has one address for life

    def destroy(self) -> None:
        self.worker.do(self._destroy, last=True)

    def _on(self) -> None:
        if not self._built:
            self._build()
        self._sshd.start()
        self.alive = True

    def _build(self) -> None:
        sshd = self._sshd
        sshd.__enter__()
        sshd.stop()
        self._built = True
        lines = "".join(f"{key}\n" for key in self._image.authorized)
        (sshd.folder / "authorized_keys").write_text(lines)
        key = host_keys(self._image.user_data).get("ed25519_private")
        if key is not None:
            (sshd.folder / "host_key").write_text(key)
        with self._config.open("a") as config:
            config.write(
                f"Host {sshd.address}\n  Port {sshd.port}\n  User {sshd.user}\n"
                f"  HostKeyAlias {sshd.address}\n"
            )

    def _destroy(self) -> None:
        if self._built:
            self._sshd.__exit__(None, None, None)


def abandoned() -> list[str]:
    """Return the folders whose owner is dead, and whose sweeper too."""
    found = []
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        pid, _, start = owner.read_text().partition(" ")
        if started(int(pid)) != start:
            found.append(str(owner.parent))
    return found


def sweep(folder: str) -> None:
    """End what was started from `folder`, and remove it."""
    name = os.fsencode(folder) + b"/"
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid != os.getpid() and name in _read(entry / "cmdline") + _read(entry / "environ"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
