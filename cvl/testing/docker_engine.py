"""A private Docker engine for tests: own socket, own data, own bridge, gone without a trace.

Needs root, `dockerd`, `docker`, `ip` and `busybox`; `missing()` says which of them is not there.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvl.testing.lifeline import Lifeline

IMAGE = "cvl-test/busybox"
SCRIPT = Path(__file__).with_suffix(".sh")
LIFE_LIMIT, CALL_LIMIT = 90.0, 120.0
"""Seconds: to start or to end; for a docker command."""


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

    def containers(self, *, pods: bool = False) -> list[str]:
        """Return the names of all containers, ended ones too.

        Those of a cluster that shares the engine, and ends them when it likes, only with `pods`.
        """
        names = self.docker("ps", "-a", "--format", "{{.Names}}").split()
        return [name for name in names if pods or not name.startswith("k8s_")]

    def clear(self) -> None:
        """Remove all containers."""
        if names := self.containers(pods=True):
            self.docker("rm", "-f", *names)


@contextmanager
def engine() -> Iterator[Engine]:
    """Start an engine, with the image in it; end it and all its containers, however we end.

    Its folder is made below the system's temporary one: a socket's path has to be short. It has a
    bridge of its own, so that no other engine's is touched. Raises `OSError`.
    """
    folder = Path(tempfile.mkdtemp(prefix="cvl-docker-"))
    bridge = f"cvl{os.getpid():x}"
    address = f"198.18.{os.getpid() % 254 + 1}.1/24"
    argv = ("sh", str(SCRIPT), str(folder), bridge, address)
    with closing(Lifeline(argv, deadline=LIFE_LIMIT)):
        made = Engine(folder=folder)
        made.docker("import", "--change", 'CMD ["sh"]', "-", IMAGE, data=busybox())
        yield made


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
