"""What all measurements share: folders, sizes, limits, hosts, examples, kept connections."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import commands
from bench.cvls import Cvl
from bench.machine import MEMORY
from bench.values import Failed
from cvl.testing.sshd import Sshd


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much work is measured: what the page shows, or the little that a test does."""

    rounds: int = 15
    examples: int = 236
    past_runs: int = 10_000
    many_runs: int = 100_000
    megabytes: int = 500
    lines: int = 5_000_000
    paced_lines: int = 1000
    files: int = 10_000
    big_megabytes: int = 1000
    hosts: tuple[int, ...] = (1, 10, 50)
    rents: tuple[int, ...] = (1, 10, 100)
    job_seconds: int = 10


SCP = ("Subsystem sftp internal-sftp",)
"""What scp needs of an sshd."""
SMOKE = Sizes(
    rounds=1,
    examples=3,
    past_runs=20,
    many_runs=50,
    megabytes=1,
    lines=1000,
    paced_lines=20,
    files=20,
    big_megabytes=1,
    hosts=(1, 2),
    rents=(1,),
    job_seconds=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Where and how one topic is measured: `seconds` is what it may take, about.

    `folder` lies in memory if it can, `disk` on a disk.
    """

    folder: Path
    disk: Path
    sizes: Sizes
    seconds: float
    cvls: Sequence[Cvl]
    rivals: bool = True

    @property
    def in_memory(self) -> bool:
        """Whether what lies in `folder` can be removed without making the disk slow for others."""
        return self.folder.is_relative_to(MEMORY)


@dataclass(slots=True, kw_only=True)
class Host:
    """A throw-away sshd, and for each cvl a state folder and sockets of its own."""

    sshd: Sshd
    folder: Path
    repo: Path
    envs: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What ssh knows it by."""
        return self.sshd.name

    def env(self, cvl: Cvl) -> dict[str, str]:
        """Return the environment for one cvl."""
        if cvl.name not in self.envs:
            runtime = Path(self.sshd.env["XDG_RUNTIME_DIR"], f"{len(self.envs)}")
            runtime.mkdir(mode=0o700)
            state = self.folder / f"state-{len(self.envs)}"
            self.envs[cvl.name] = cvl.environment(
                **{**self.sshd.env, "XDG_RUNTIME_DIR": str(runtime)},
                CVL_STATE_DIR=str(state),
                CVL_ROOT=str(self.repo),
            )
        return self.envs[cvl.name]

    def socket(self, cvl: Cvl) -> Path | None:
        """Return where that cvl's kept connection listens."""
        below = Path(self.env(cvl)["XDG_RUNTIME_DIR"]).rglob("*")
        return next((path for path in below if path.is_socket()), None)

    def warm(self, cvl: Cvl) -> Path:
        """Return where that cvl's kept connection listens, made if there is none."""
        if self.socket(cvl) is None:
            hello = self.repo / "examples/bench/hello"
            name = "hello" if hello.exists() else example(self.repo, "hello", "echo hello\n")
            commands.timed(self.run(cvl, name), self.env(cvl))
        kept = self.socket(cvl)
        if kept is None:
            raise Failed("no connection was kept")
        return kept

    def kept_cpu(self, cvl: Cvl) -> float:
        """Return the processor seconds of what keeps that cvl's connection, so far."""
        sockets = self.env(cvl)["XDG_RUNTIME_DIR"].encode()
        return sum(_cpu(pid) for pid in _pids() if keeps(pid, sockets))

    def forget(self, cvl: Cvl) -> None:
        """Remove what that cvl's runs have left, here and over there: outputs may be large."""
        there = self.sshd.home / ".cvl"
        state = Path(self.env(cvl)["CVL_STATE_DIR"])
        for folder in (state / "runs", there / "runs", there / "jobs"):
            shutil.rmtree(folder, ignore_errors=True)

    def cool(self, cvl: Cvl) -> None:
        """End that cvl's kept connections."""
        while path := self.socket(cvl):
            words = ["ssh", "-S", str(path), "-O", "exit", "any"]
            subprocess.run(words, capture_output=True, check=False)
            path.unlink(missing_ok=True)

    def run(self, cvl: Cvl, name: str, *options: str, flag: str = "--docker") -> list[str]:
        """Return the command line that runs an example and leaves its results there."""
        words = ["run", "--no-fetch", "-q", *options, flag, self.name, name, "train"]
        return [cvl.program, *words]

    def ssh(self, *words: str, kept: Path | None = None) -> list[str]:
        """Return an ssh command line: alone, or over a kept connection."""
        over = ["-S", str(kept) if kept else "none", "-o", "ControlMaster=no"]
        return ["ssh", "-F", str(self.sshd.ssh_config), *over, self.name, *words]


@contextmanager
def host(work: Work) -> Iterator[Host]:
    """Start a host with an empty repository; nothing of it is left afterwards."""
    with ExitStack() as stack:
        sshd = stack.enter_context(Sshd(work.folder / "sshd", options=SCP))
        found = Host(sshd=sshd, folder=work.folder, repo=work.folder / "repo")
        yield found
        for cvl in work.cvls:
            found.cool(cvl)


def example(repo: Path, name: str, script: str) -> str:
    """Make an example whose preset `train` is a shell script; return its name."""
    folder = repo / "examples" / "bench" / name
    folder.mkdir(parents=True)
    (folder / "example.yaml").write_text(
        f"name: {name}\ncapability: bench\ndescription: for measuring\n"
        "docker: false\npresets: [train]\n"
    )
    (folder / "train.sh").write_text(script)
    return name


def random_file(path: Path, megabytes: int) -> Path:
    """Write a file of random bytes; return it."""
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    return path


def quiet(base: Path) -> None:
    """Wait until no process that was started with this folder's name runs any more."""
    name = os.fsencode(base)
    commands.wait_for(lambda: not any(name in _read(pid, "cmdline") for pid in _pids()))


def keeps(pid: str, sockets: bytes) -> bool:
    """Return whether a process is an ssh that keeps a connection at a socket in that folder.

    Its title says so: `ssh: SOCKET [mux]`. It stands where the environment was.
    """
    return _read(pid, "cmdline").startswith(b"ssh: " + sockets)


def _pids() -> Iterator[str]:
    return (entry.name for entry in os.scandir("/proc") if entry.name.isdigit())


def _cpu(pid: str) -> float:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _read(pid: str, what: str) -> bytes:
    try:
        return Path("/proc", pid, what).read_bytes()
    except OSError:
        return b""
