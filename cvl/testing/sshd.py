"""A real, private, throw-away sshd on loopback: somebody else's machine, for tests and the demo.

It runs as the current user and lets only that user in. Its sessions see a home folder of their
own, so nothing is written to the real one. Whatever a session starts carries a mark in its
environment, by which it is found and ended together with the server (Linux: `/proc`).
"""

from __future__ import annotations

import getpass
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cvl.core.errors import MissingTool

MARK = "CVL_TEST_HOST"
START_LIMIT = 10.0
"""Seconds that sshd may take to listen, or everything it started to be gone."""


class Sshd:
    """One sshd in `folder`, from `with` to its end. Not to be entered twice.

    `shell` is the login shell of its sessions, `noise` what that prints before each command,
    `path` their PATH, `env` more of their environment, `options` further lines of sshd_config.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "testhost",
        address: str = "127.0.0.1",
        home: Path | None = None,
        path: str = "",
        shell: str = "",
        noise: str = "",
        max_sessions: int = 100,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder, self.name, self.address, self.port = folder, name, address, 0
        self.home = home or folder / "home"
        self.user = getpass.getuser()
        self.key, self.known_hosts = folder / "user_key", folder / "known_hosts"
        self.ssh_config, self.log = folder / "ssh_config", folder / "sshd.log"
        self.mark = secrets.token_hex(8)
        self._session = {"HOME": str(self.home), "PATH": path, **(env or {}), MARK: self.mark}
        self._shell, self._noise = shell, noise
        self._lines = (f"MaxSessions {max_sessions}", *options)
        self._runtime: tempfile.TemporaryDirectory[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What a client needs in its environment: `ssh -F`, and a short path for its sockets."""
        assert self._runtime is not None, "enter it first"
        return {"CVL_SSH_CONFIG": str(self.ssh_config), "XDG_RUNTIME_DIR": self._runtime.name}

    def __enter__(self) -> Self:
        """Make keys, listen on a free port, write the client's files. About 50 ms.

        Raises `MissingTool` without sshd.
        """
        for folder in (self.folder, self.home):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runtime = tempfile.TemporaryDirectory(prefix="cvl-")
        try:
            _make_keys(self.folder / "host_key", self.key)
            shutil.copyfile(self.key.with_suffix(".pub"), self.folder / "authorized_keys")
            self.start()
        except BaseException:
            self._runtime.cleanup()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server and everything that its sessions started."""
        self.crash()
        if self._runtime is not None:
            self._runtime.cleanup()

    def start(self) -> None:
        """Listen: on a free port the first time, later on the same one again."""
        sshd = _find_sshd()
        for _ in range(1 if self.port else 10):
            self._server = self._try(sshd, self.port or _free_port(self.address))
            if self._server is not None:
                return
        raise RuntimeError(f"sshd did not start: {self.log.read_text()}")

    def stop(self) -> None:
        """End the listener only: new connections are refused, live sessions go on."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(START_LIMIT)
        self._server = None

    def cut(self) -> None:
        """Break every connection. What the sessions run goes on without them."""
        for pid in self._connections():
            _kill(pid)

    def crash(self) -> None:
        """End the server, its connections and all that its sessions started, at once."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)
            self.cut()
            self.stop()
        deadline = time.monotonic() + START_LIMIT
        while (pids := self.processes()) and time.monotonic() < deadline:
            for pid in pids:
                _kill(pid)
            time.sleep(0.002)

    def processes(self) -> list[int]:
        """Return the pids of what sessions have started here and is still running."""
        mark = f"{MARK}={self.mark}".encode()
        return [pid for pid in _pids() if mark in _read(pid, "environ").split(b"\0")]

    def freeze(self, frozen: bool = True) -> None:  # noqa: FBT001, FBT002 - a switch
        """Stop, or let go on, the listener: a machine that takes connections but never speaks."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _connections(self) -> list[int]:
        """Return the pids of sshd's own processes, one or two a connection."""
        if self._server is None:
            return []
        parents = {pid: _parent(pid) for pid in _pids()}
        found = {self._server.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        found.remove(self._server.pid)
        return [pid for pid in found if _read(pid, "comm").startswith(b"sshd")]

    def _try(self, sshd: str, port: int) -> subprocess.Popen[bytes] | None:
        """Start sshd and wait until it listens; None when another took the port meanwhile."""
        self._configure(port)
        self.log.write_bytes(b"")
        server = subprocess.Popen(
            [sshd, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_LIMIT
        while server.poll() is None and time.monotonic() < deadline:
            if b"Server listening on" in self.log.read_bytes():
                self.port = port
                return server
            time.sleep(0.002)
        server.kill()
        server.wait()
        return None

    def _configure(self, port: int) -> None:
        files = {
            "sshd_config": self._sshd_config(port),
            "ssh_config": self._ssh_config(port),
            "known_hosts": self.host_line(port),
            "login": self._login(),
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def host_line(self, port: int | None = None) -> str:
        """Return the server's line for a known_hosts file."""
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[{self.address}]:{self.port if port is None else port} {kind} {key}\n"

    def _sshd_config(self, port: int) -> str:
        session = " ".join(f'"{name}={value}"' for name, value in self._session.items() if value)
        lines = [
            f"ListenAddress {self.address}",
            f"Port {port}",
            f'HostKey "{self.folder}/host_key"',
            f'AuthorizedKeysFile "{self.folder}/authorized_keys"',
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "UseDNS no",
            "PrintMotd no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 100:30:200",
            "AcceptEnv LANG LC_*",
            f"SetEnv {session}",
            *self._lines,
        ]
        if self._shell or self._noise:
            lines.append(f"ForceCommand exec sh {shlex.quote(str(self.folder / 'login'))}")
        return "\n".join(lines) + "\n"

    def _ssh_config(self, port: int) -> str:
        return f"""\
Host {self.name}
    HostName {self.address}
    Port {port}
    User {self.user}
    IdentityFile "{self.key}"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{self.known_hosts}"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""

    def _login(self) -> str:
        """What stands in for another login shell: sshd itself can only take the account's."""
        shell = self._shell or "/bin/sh"
        return f'printf %s {shlex.quote(self._noise)}\nexec {shell} -c "$SSH_ORIGINAL_COMMAND"\n'


def _find_sshd() -> str:
    """Return sshd's absolute path, which it insists on; it is on nobody's PATH but root's."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("sshd", path=path)
    if found is None or shutil.which("ssh-keygen") is None:
        raise MissingTool("sshd is not installed here", "apt install openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd locks itself in
    return found


def _make_keys(*paths: Path) -> None:
    _find_sshd()
    making = [
        subprocess.Popen(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)])
        for path in paths
    ]
    for process in making:
        if process.wait(START_LIMIT):
            raise RuntimeError("ssh-keygen could not make a key")


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _parent(pid: int) -> int:
    stat = _read(pid, "stat").rpartition(b")")[2].split()
    return int(stat[1]) if stat else 0


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
