"""A private Docker engine for tests: own socket, own data, own bridge, gone without a trace.

Needs root, `dockerd`, `docker`, `ip` and `busybox`; `missing()` says which of them is not there.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

IMAGE = "cvl-test/busybox"
START_LIMIT, STOP_LIMIT, CALL_LIMIT = 60.0, 30.0, 120.0
"""Seconds."""


def missing() -> str:
    """Return why no engine can be had here, "" if one can."""
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    for program in ("dockerd", "docker", "ip", "busybox"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A running engine. `image` is the one image it has: busybox."""

    folder: Path
    image: str = IMAGE

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def env(self) -> Mapping[str, str]:
        """What a `docker` needs in its environment to reach this engine, and no other config."""
        return {"DOCKER_HOST": self.url, "DOCKER_CONFIG": f"{self.folder}/config"}

    def docker(self, *words: str, data: bytes = b"") -> str:
        """Run a docker command; return what it prints. Raises `CalledProcessError`."""
        done = subprocess.run(
            ["docker", *words],
            input=data,
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            check=True,
            timeout=CALL_LIMIT,
        )
        return done.stdout.decode().strip()

    def containers(self) -> list[str]:
        """Return the names of all containers, ended ones too."""
        return self.docker("ps", "-a", "--format", "{{.Names}}").split()

    def clear(self) -> None:
        """Remove all containers."""
        if names := self.containers():
            self.docker("rm", "-f", *names)


@contextmanager
def engine() -> Iterator[Engine]:
    """Start an engine, with the image in it; end it and all its containers.

    Its folder is made below the system's temporary one: a socket's path has to be short.
    """
    folder = Path(tempfile.mkdtemp(prefix="cvl-docker-"))
    try:
        with _bridge() as bridge, _daemon(folder, bridge):
            made = Engine(folder=folder)
            made.docker("import", "--change", 'CMD ["sh"]', "-", IMAGE, data=busybox())
            try:
                yield made
            finally:
                made.clear()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _bridge() -> Iterator[str]:
    """Make a bridge of our own, so that no other engine's is touched."""
    name = f"cvl{os.getpid():x}"
    address = f"198.18.{os.getpid() % 254 + 1}.1/24"
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("addr", "add", address, "dev", name)
        _ip("link", "set", name, "up")
        yield name
    finally:
        _ip("link", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=CALL_LIMIT)


@contextmanager
def _daemon(folder: Path, bridge: str) -> Iterator[None]:
    command = [
        "dockerd",
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        f"--bridge={bridge}",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
        "--storage-driver=vfs",
        "--log-level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, folder)
        yield
    finally:
        _end(process)


def _wait_until_up(process: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + START_LIMIT
    env = {**os.environ, **Engine(folder=folder).env}
    while subprocess.run(
        ["docker", "version"], env=env, capture_output=True, check=False, timeout=CALL_LIMIT
    ).returncode:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"dockerd does not start: {(folder / 'log').read_text()}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """TERM, so that the engine ends its own containerd; KILL for the whole session if it hangs."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_LIMIT)


def busybox() -> bytes:
    """Return a root file system: busybox, what it is linked with, a link for each applet."""
    program = shutil.which("busybox") or "busybox"
    names = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for place, file in [("bin/busybox", program), *_libraries(program)]:
            content = Path(file).read_bytes()
            member = tarfile.TarInfo(place)
            member.mode, member.size = 0o755, len(content)
            archive.addfile(member, io.BytesIO(content))
        for name in names.stdout.split():
            if name != "busybox":
                applet = tarfile.TarInfo(f"bin/{name}")
                applet.type, applet.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(applet)
    return out.getvalue()


def _libraries(program: str) -> list[tuple[str, str]]:
    """Return the shared libraries of a program: place in the image, file here."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    files = [word for line in told.splitlines() for word in line.split() if word.startswith("/")]
    return [(file.lstrip("/"), file) for file in files]
