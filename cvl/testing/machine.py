"""A machine with a power switch: own disk, processes, clocks, boot id, network card and sshd.

It starts in a fraction of a second from this computer's own /usr, /etc and /var (copy on write;
nothing else of this computer is visible on it), has a user `ubuntu` who may `sudo`, and does what
`user_data` says on its first boot. Its disk is kept over reboots and lost with it. It cannot
outlive the process that made it, and leaves nothing behind. Needs Linux and root: ask `possible`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from cvl.testing.cloud_init import scripts
from cvl.testing.lifeline import Lifeline
from cvl.testing.network import Network, run

HERE = Path(__file__).parent
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "mount", "ssh-keygen", "/usr/sbin/sshd")
SPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root")
ENVIRONMENT = (
    "env",
    "-i",
    "-C",
    "/",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)


class Ssh(StrEnum):
    """How sshd behaves after a boot; `LATE` and `OTHER_KEY` last for `ssh_seconds`."""

    NORMAL = "normal"
    NO = "no"
    LATE = "late"
    OTHER_KEY = "other-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a machine boots from. `authorized` are public keys for `user`."""

    authorized: tuple[str, ...] = ()
    user_data: str = ""
    hostname: str = "machine"
    user: str = "ubuntu"
    ssh: Ssh = Ssh.NORMAL
    ssh_seconds: float = 0.0
    disk_mb: int = 4096


class Machine:
    """One machine, off at first. A context manager; `destroy` takes it away for good."""

    def __init__(self, network: Network, image: Image | None = None) -> None:
        """Build it. Raises `OSError` where namespaces cannot be had."""
        self.image = image or Image()
        self._network = network
        self._lock = threading.RLock()
        argv = ("unshare", "--mount", "--net", "--propagation", "private", "sh")
        size = f"{self.image.disk_mb}m"
        self._chassis = Lifeline((*argv, str(HERE / "machine.sh"), "chassis", size))
        self.pid = self._chassis.pid
        self._inside = Path(f"/proc/{self.pid}/root/mnt")
        try:
            self._install()
            self.address = network.address()
            self._port = network.plug(self.pid, self.address)
        except BaseException:
            self._chassis.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def power_on(self) -> None:
        """Boot, unless it runs. Returns at once: `wait_up` waits."""
        with self._lock:
            if not self.on:
                self._network.cable(self._port, up=True)
                self._chassis.order("on")
                _until(lambda: self.on or self.up, 10.0, "the machine does not start")

    def power_cut(self) -> None:
        """Everything on it is gone, and nobody at the other end of a connection is told."""
        with self._lock:
            self._network.cable(self._port, up=False)
            self._chassis.order("off")

    def reboot(self) -> None:
        """Switch it off and on: new boot id, same disk and address; connections are reset."""
        with self._lock:
            self._chassis.order("off")
            self.power_on()

    def wait_up(self, seconds: float = 30.0) -> None:
        """Wait until sshd listens (or would). Raises `TimeoutError`."""
        _until(lambda: self.up, seconds, f"{self.address} is not up")

    def wait_down(self, seconds: float = 30.0) -> None:
        """Wait until its system has ended, by itself or not. Raises `TimeoutError`."""
        _until(lambda: not self.on, seconds, f"{self.address} is still on")

    @property
    def on(self) -> bool:
        """Whether its system runs: False after a power cut and after `shutdown -h now`."""
        return (self._inside / "state/on").exists()

    @property
    def up(self) -> bool:
        """Whether it has booted as far as sshd."""
        return (self._inside / "state/up").exists()

    @property
    def boot_id(self) -> str:
        return (self._inside / "state/boot_id").read_text().strip()

    @property
    def disk(self) -> Path:
        """Its disk as seen from here: /home, /root, /opt, /srv; not /usr, /etc and /var."""
        return self._inside / "disk"

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command on it as root, as from its console, for at most a minute."""
        at = ("nsenter", "--target", str(self._system()), *SPACES, *ENVIRONMENT)
        return subprocess.run(
            (*at, *argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def host_key(self) -> str:
        """Return its public host key, as `known_hosts` wants it."""
        line = self.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout
        return " ".join(line.split()[:2])

    def move(self, address: str) -> None:
        """Give it another address; connections to the old one hang."""
        with self._lock:
            card = ("nsenter", "--net", "--target", str(self.pid), "ip", "addr")
            run(*card, "flush", "dev", "eth0")
            run(*card, "add", f"{address}/24", "dev", "eth0")
            self.address = address

    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on the machine's own 127.0.0.1, served from here."""
        found: list[socket.socket | OSError] = []
        thread = threading.Thread(target=_listen, args=(self.pid, port, found))
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def destroy(self) -> None:
        """Take it away with its disk, its processes and its card. Idempotent."""
        with self._lock:
            port, self._port = self._port, ""
            if port:
                self._network.unplug(port)
            self._chassis.close()

    def _install(self) -> None:
        seed, image = self._inside / "seed", self.image
        todo = scripts(image.user_data, user=image.user)
        settings = {
            "HOSTNAME": image.hostname,
            "USER_NAME": image.user,
            "SSH": image.ssh.value,
            "SSH_SECONDS": str(image.ssh_seconds),
        }
        texts = {
            "settings": "".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()),
            "authorized_keys": "".join(f"{key}\n" for key in image.authorized),
            "user-data.txt": image.user_data,
            "first-boot.sh": todo.first,
            "every-boot.sh": todo.every,
            "final.sh": todo.final,
            "systemctl.sh": (HERE / "systemctl.sh").read_text(),
        }
        for name, text in texts.items():
            (seed / name).touch(mode=0o600)
            (seed / name).write_text(text)
        (seed / "systemctl.sh").chmod(0o755)

    def _system(self) -> int:
        """Return the pid, as seen from here, of its pid 1."""
        seen = [self.pid]
        for pid in seen:
            status = Path(f"/proc/{pid}/status").read_text()
            if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                return pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            seen.extend(int(child) for child in children.split())
        raise OSError(f"{self.address} is off")


@functools.cache
def possible() -> str:
    """Return why machines cannot be had here, "" if they can."""
    if os.geteuid():
        return "machines need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"machines need {', '.join(missing)}"
    try:
        with Network() as network, Machine(network):
            return ""
    except OSError as error:
        return f"machines need namespaces: {error}"


def _listen(pid: int, port: int, found: list[socket.socket | OSError]) -> None:
    """Enter the network of `pid` with this thread, which ends right after."""
    try:
        with Path(f"/proc/{pid}/ns/net").open("rb") as space:
            failed = ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0)
        reason = OSError(ctypes.get_errno(), "setns")
        found.append(reason if failed else socket.create_server(("127.0.0.1", port)))
    except OSError as error:
        found.append(error)


def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(otherwise)
        time.sleep(0.005)
