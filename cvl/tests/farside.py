"""Speaks to the shell files directly, as docs/far-side.md says, with this machine as the host."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LIB = Path(__file__).parents[1] / "remote"
NONCE = "0123abcd"
COMMAND = (
    "read -r _lib _base; _base=${_base:-$HOME/.cvl}; _f=$_base/lib/$_lib/supervisor.sh; "
    'test -r "$_f" && exec sh "$_f" "$_base" "$_lib"; read -r _key _nonce; '
    'echo "cvl:$_nonce need lib $_lib" >&2; exit 1'
)
LIMIT = 30.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def wait_for(what: Callable[[], T], limit: float = LIMIT) -> T:
    """Return the first true value of `what`, or fail."""
    until = time.monotonic() + limit
    while not (value := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
    return value


def payload(files: Mapping[str | bytes, bytes | tarfile.TarInfo], *, end: bool = True) -> bytes:
    """Return the tar of a start request: name -> content, or a ready member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for key, content in [*files.items(), *([("end", b"")] if end else [])]:
            name = os.fsdecode(key)
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o600 if name.startswith("run/") else 0o644
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """All that a request has answered."""

    code: int
    body: bytes
    answers: list[str]
    noise: bytes

    @property
    def last(self) -> str:
        return self.answers[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A base folder with the shell files in it, and the environment of its connections."""

    base: Path
    env: Mapping[str, str] = field(default_factory=dict)
    sh: str = "sh"

    def open(
        self, verb: str, headers: Mapping[str, object], data: bytes = b"", lib: str = "test"
    ) -> subprocess.Popen[bytes]:
        """Send a request; the caller reads its pipes."""
        process = subprocess.Popen(
            [self.sh, "-c", COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(self.env),
            start_new_session=True,
        )
        lines = [f"{lib} {self.base}", f"nonce {NONCE}", f"verb {verb}"]
        lines += [f"{key.rstrip('_')} {value}" for key, value in headers.items()]
        assert process.stdin
        try:
            process.stdin.write(os.fsencode("\n".join([*lines, "", ""])) + data)
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdin = None
        return process

    def ask(self, verb: str, data: bytes = b"", **headers: object) -> Reply:
        """Send a request and wait for all of its answer."""
        return finish(self.open(verb, headers, data))

    def start(
        self,
        run: str,
        job: str | bytes,
        files: Mapping[str | bytes, bytes | tarfile.TarInfo] | None = None,
        **headers: object,
    ) -> Reply:
        """Start a job; with `follow=1` also wait for its end."""
        return self.ask("start", script(job, files), id=run, **headers)

    def run(self, run: str) -> Path:
        return self.base / "runs" / run

    def result(self, run: str, limit: float = LIMIT) -> list[str]:
        """Wait for the result line."""
        file = self.run(run) / "result"
        wait_for(file.exists, limit)
        return file.read_text().split()

    def output(self, run: str) -> bytes:
        return (self.run(run) / "output").read_bytes()


def script(
    job: str | bytes, files: Mapping[str | bytes, bytes | tarfile.TarInfo] | None = None
) -> bytes:
    """Return a start request's payload for this job.sh."""
    body = job if isinstance(job, bytes) else job.encode()
    return payload({"run/job.sh": body, "run/env.sh": b"", "run/place": b"", **(files or {})})


def finish(process: subprocess.Popen[bytes]) -> Reply:
    """Read all that a request answers."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end of it: {out!r} {err!r}") from None
    mark = f"cvl:{NONCE}".encode()
    _, _, body = out.partition(mark + b"\n")
    lines = err.splitlines(keepends=True)
    answers = [line[len(mark) + 1 :].decode().strip() for line in lines if line.startswith(mark)]
    noise = b"".join(line for line in lines if not line.startswith(mark))
    return Reply(code=process.returncode, body=body, answers=answers, noise=noise)


def read_until(process: subprocess.Popen[bytes], what: bytes, limit: float = LIMIT) -> bytes:
    """Read stdout until it holds `what`."""
    assert process.stdout
    seen, until = b"", time.monotonic() + limit
    while what not in seen:
        left = until - time.monotonic()
        assert left > 0, seen
        assert select.select([process.stdout], [], [], left)[0], seen
        data = os.read(process.stdout.fileno(), 1 << 16)
        assert data, seen
        seen += data
    return seen


def processes(run: str) -> list[int]:
    """Return every living process with this run's id in its environment or command line."""
    found = []
    marks = (f"CVL_RUN_ID={run}".encode(), run.encode())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            stat = (entry / "stat").read_text()
            words = (entry / "environ").read_bytes().split(b"\0")
            words += (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z" and any(mark in words for mark in marks):
            found.append(int(entry.name))
    return found


def supervisor(host: Host, run: str) -> int:
    return int((host.run(run) / "supervisor").read_text().split()[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def install(base: Path) -> None:
    """Put the shell files where a request expects them."""
    lib = base / "lib" / "test"
    lib.mkdir(parents=True, exist_ok=True)
    for file in LIB.glob("*.sh"):
        shutil.copy(file, lib)
        (lib / file.name).chmod(0o700)


def applets(folder: Path) -> str:
    """Fill `folder` with links to busybox, one an applet; return it as a PATH."""
    folder.mkdir()
    names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    for name in names.stdout.split():
        (folder / name).symlink_to(shutil.which("busybox") or "")
    return str(folder)


def shell_path(folder: Path, shell: str) -> str:
    """Return a PATH on which `sh` is that shell."""
    if shell == "busybox":
        return applets(folder)
    folder.mkdir()
    (folder / "sh").symlink_to(shutil.which(shell) or "")
    return f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_host(tmp_path: Path, shell: str = "dash", base: str = "base") -> Host:
    """Return a host whose `sh` is `shell`; with busybox nothing else is on its PATH."""
    folder = tmp_path / f"{shell}-bin"
    path = f"{folder}" if folder.exists() else shell_path(folder, shell)
    if folder.exists() and shell != "busybox" and ":" not in path:
        path = f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    install(tmp_path / base)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return Host(
        base=tmp_path / base,
        env={"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"},
        sh=str(folder / "sh"),
    )
