"""Speaks to the shell files directly, as docs/far-side.md says, with this machine as the host."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Content = bytes | tarfile.TarInfo
Files = Mapping[str, Content] | Mapping[bytes, Content]
LIB = Path(__file__).parents[1] / "host/shell"
NONCE = "0123abcd"
COMMAND = (
    "read -r _lib _base; _base=${_base:-$HOME/.cvl}; _f=$_base/lib/$_lib/supervisor.sh; "
    'test -r "$_f" && exec sh "$_f" "$_base" "$_lib"; read -r _key _nonce; '
    'echo "cvl:$_nonce need lib $_lib" >&2; exit 1'
)
LIMIT = 30.0
SPOILT = ("edited", "removed", "added", "all removed")
SHELLS = ("dash", "bash", "busybox")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def wait_for(what: Callable[[], T], limit: float = LIMIT) -> T:
    """Return the first true value of `what`, or fail."""
    until = time.monotonic() + limit
    while not (value := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
    return value


def payload(files: Files, *, end: bool = True) -> bytes:
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
            member.mode = 0o600 if name.startswith(("run/", "job/")) else 0o644
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
    """A base folder with the shell files in it, the environment and the seal of its connections."""

    base: Path
    env: Mapping[str, str] = field(default_factory=dict)
    sh: str = "sh"
    seal: str = "5ea1"

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
        lines += [f"seal {self.seal}"] if self.seal else []
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
        files: Files | None = None,
        **headers: object,
    ) -> Reply:
        """Start a job; with `follow=1` also wait for its end."""
        return self.ask("start", script(job, files), id=run, **headers)

    def run(self, run: str) -> Path:
        """The folder that is the supervisor's."""
        return self.base / "runs" / run

    def job(self, run: str) -> Path:
        """The folder that is the job's."""
        return self.base / "jobs" / run

    def result(self, run: str, limit: float = LIMIT) -> list[str]:
        """Wait for the result line."""
        file = self.run(run) / "result"
        wait_for(file.exists, limit)
        return file.read_text().partition("\n")[0].split()

    def output(self, run: str) -> bytes:
        return (self.run(run) / "output").read_bytes()


def spoil(tree: Path, what: str) -> None:
    """Change a tree that holds d/f behind cvl's back, in one of the ways of `SPOILT`."""
    folder, later = tree / "d", time.time() + 5  # one shell's find counts whole seconds
    match what:
        case "edited":
            (folder / "f").write_bytes(b"3")
            os.utime(folder / "f", (later, later))
        case "removed":
            (folder / "f").unlink()
            os.utime(folder, (later, later))
        case "added":
            (folder / "more").touch()
            os.utime(folder, (later, later))
        case _:
            shutil.rmtree(tree)


def script(job: str | bytes, files: Files | None = None) -> bytes:
    """Return a start request's payload for this job.sh."""
    body = job if isinstance(job, bytes) else job.encode()
    own = {"run/job.sh": body, "run/env.sh": b"", "run/place": b""}
    sent = {os.fsdecode(name): content for name, content in (files or {}).items()}
    return payload({**own, **sent})


def finish(process: subprocess.Popen[bytes]) -> Reply:
    """Read all that a request answers."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"no end of it: {out!r} {err!r}") from None
    mark = f"cvl:{NONCE}".encode()
    _, _, body = out.partition(mark + b"\n")
    body = body.removesuffix(b"\0" + mark + b" end\n")
    lines = err.splitlines(keepends=True)
    answers = [line[len(mark) + 1 :].decode().strip() for line in lines if line.startswith(mark)]
    answers = [answer for answer in answers if answer not in {"send", "end", "end payload"}]
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


def processes(host: Host, run: str = "") -> list[int]:
    """Return every living process that names this host's base, and the run if one is given."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            words = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        named = (
            not run
            or f"runs/{run}/" in (text := words.decode(errors="replace"))
            or f"jobs/{run}/" in text
            or (f"\0{run}\0" in text)
        )
        if state != "Z" and os.fsencode(host.base) in words and named:
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


def make_host(tmp_path: Path, shell: str = "dash") -> Host:
    """Return a host whose `sh` is `shell`; with busybox nothing else is on its PATH."""
    tmp_path.mkdir(exist_ok=True)
    bin_, home = tmp_path / "bin", tmp_path / "home"
    home.mkdir()
    bin_.mkdir()
    if shell == "busybox":
        names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
        for name in names.stdout.split():
            (bin_ / name).symlink_to(shutil.which("busybox") or "")
        path = str(bin_)
    else:
        (bin_ / "sh").symlink_to(shutil.which(shell) or "")
        path = f"{bin_}:{SYSTEM_PATH}"
    install(tmp_path / "base")
    env = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"}
    return Host(base=tmp_path / "base", env=env, sh=str(bin_ / "sh"))


def hosted(tmp_path: Path, shell: str) -> Iterator[Host]:
    """Yield a host; end what its runs have left behind, so that a failed test leaves nothing."""
    host = make_host(tmp_path, shell)
    yield host
    for pid in processes(host):
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
