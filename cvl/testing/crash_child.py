"""cvl, forked from a warm parent and killed at a given point: what `crashes` starts.

The parent has everything imported, has no threads, and inherits whatever its children leave
behind. It reads one request a line and answers with one. Only in the children is anything
replaced: the machine (a folder here), pauses, and the one call at which the child dies.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import urllib3.connection
import yaml  # noqa: F401 - warm

from cvl.cleanup import guardian_client, release, until_gone
from cvl.cli import main as command_line
from cvl.cli import reap as _reap  # noqa: F401 - warm
from cvl.core.errors import CvlError
from cvl.core.http import pool as _pool  # noqa: F401 - warm
from cvl.core.interfaces import Observer, Process
from cvl.core.paths import ledger_file
from cvl.core.spec import JobSpec, Limits, LogChunk, Source
from cvl.host.rpc import FarSide
from cvl.host.shell_files import library
from cvl.ledger import Ledger
from cvl.ledger.store import Store
from cvl.operations import guardian_main, takeover
from cvl.providers.lambda_cloud import api as lambda_api
from cvl.providers.lambda_cloud.cloud import LambdaCloud, api
from cvl.rental import job, keys
from cvl.rental import provider as machines
from cvl.run import context, follow, lifecycle, teardown
from cvl.testing import hostile
from cvl.transports.local import Local
from cvl.transports.ssh.address import command

Json = Mapping[str, object]
SUBREAPER = 36
"""prctl(2): what our descendants leave behind becomes our child."""
LIMIT = 40.0
"""Seconds in which client and guardian have to end; after that they are stuck."""
BOOT_LIMIT = 3.0
TIMEOUT, GRACE, FETCH = 1.0, 0.2, 2.0
"""Seconds of a run whose machine or ledger goes bad."""
LIFE = BOOT_LIMIT + TIMEOUT + GRACE + FETCH
"""Seconds from such a machine's creation to the deadline in its tag."""
FLIPS = 40
"""Bits of a ledger that flip at once."""
STUCK = 6.0
"""Seconds after which a client says where it stands."""
LEDGER = threading.RLock()
"""Held by whoever has the ledger open, and by whoever forks."""
CONNECTED = vars(Store)["_connected"]
SEND, WRITING = vars(lambda_api.LambdaAPI)["_send"], vars(Store)["writing"]
REPLY = urllib3.connection.HTTPConnection.getresponse
KEY_PAIR: dict[str, str] = {}


class Killer:
    """Kills this very process at one point of its life, and counts the points on the way."""

    def __init__(self, plan: Json, counts: Path) -> None:
        """`plan`: `at` (request, write, time, or nothing), `n` from 1 on, `when`."""
        self._at, self._when = plan.get("at", ""), plan.get("when", "")
        self._n = float(cast("float", plan.get("n", 0)))
        self._counts = counts
        self._seen = {"request": 0, "write": 0}
        self._now = ""

    def install(self) -> None:
        """Put it into this process, in place of the one that a parent had."""
        put(lambda_api.LambdaAPI, "_send", self._around_send(SEND))
        put(Store, "writing", self._around_writing(WRITING))
        put(Store, "_connected", _held)
        self._around_reply()
        if self._at == "time":
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(self._n, 0.001))

    def point(self, at: str, when: str) -> None:
        """Die here if this is the point."""
        if when == "before":
            self._seen[at] += 1
            self._counts.write_text(json.dumps(self._seen))
        if (self._at, self._when) == (at, when) and self._n == self._seen[at]:
            os.kill(os.getpid(), signal.SIGKILL)

    def _around_send(self, send: Callable[..., object]) -> Callable[..., object]:
        def wrapped(api: object, method: str, path: str, body: object, **more: object) -> object:
            self.point("request", "before")
            try:
                return send(api, method, path, body, **more)
            finally:
                self.point("request", "after")

        return wrapped

    def _around_reply(self) -> None:
        """Between a request that was sent and its reply."""

        def wrapped(connection: urllib3.connection.HTTPConnection) -> urllib3.HTTPResponse:
            self.point("request", "sent")
            return REPLY(connection)

        put(urllib3.connection.HTTPConnection, "getresponse", wrapped)

    def _around_writing(self, writing: Callable[..., object]) -> Callable[..., object]:
        @contextmanager
        def wrapped(store: object) -> Iterator[object]:
            self.point("write", "before")
            with writing(store) as db:  # type: ignore[attr-defined]
                yield db
                self.point("write", "inside")
            self.point("write", "after")

        return wrapped


@contextmanager
def _held(store: object) -> Iterator[object]:
    with LEDGER, CONNECTED(store) as db:
        yield db


class ForkedPopen:
    """What `guardian` sees of `Popen`: the same process, forked instead of executed."""

    def __init__(
        self, argv: Sequence[str], *, stderr: int, env: Mapping[str, str], **_: object
    ) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        with LEDGER:  # its state within a process does not survive a fork in the middle
            self.pid = os.fork()
        if not self.pid:
            _become_guardian(argv[-1], (theirs_in, theirs_out, stderr), env)
        PLAN["guardian"] = {}  # whatever takes its place lives
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin: IO[bytes] = os.fdopen(ours_out, "wb")
        self.stdout: IO[bytes] = os.fdopen(ours_in, "rb")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = status if pid else self.returncode
        return self.returncode

    def wait(self) -> int:
        with suppress(ChildProcessError):
            self.returncode = os.waitpid(self.pid, 0)[1]
        return 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


PLAN: dict[str, Json] = {}
STATE: dict[str, Path] = {}


def _become_guardian(run_id: str, stdio: tuple[int, int, int], env: Mapping[str, str]) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        for number, descriptor in enumerate(stdio):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(env)
        signal.set_wakeup_fd(-1)
        (STATE["folder"] / "guardian.pid").write_text(str(os.getpid()))
        Killer(PLAN.get("guardian", {}), STATE["folder"] / "guardian.counts").install()
        code = guardian_main.main(run_id)
    except BaseException:  # noqa: BLE001 - a forked child must never return to its parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


class Notes:
    """An `Observer` that writes down what it hears, and does what a phase asks for."""

    def __init__(
        self, path: Path, at_phase: Mapping[str, Sequence[int]], spoil: Callable[[str], None]
    ) -> None:
        self._path, self._at_phase, self._spoil = path, dict(at_phase), spoil

    def phase(self, name: str, text: str) -> None:
        self.warn(f"{name}: {text}")
        self._spoil(name)
        for number in self._at_phase.pop(name, ()):
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def output(self, chunk: LogChunk) -> None:
        self.warn(f"output: {chunk.data!r}")
        for number in self._at_phase.pop("output", ()):
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def warn(self, text: str) -> None:
        with self._path.open("a") as notes:
            notes.write(f"{time.monotonic():.3f} {text}\n")


def client(request: Json) -> int:
    """Be cvl for one run."""
    folder = Path(cast("str", request["folder"]))
    PLAN.update(cast("dict[str, Json]", request["plan"]))
    STATE["folder"] = folder
    tame = not (request["host"] or request["damage"])
    _replace(folder, real=bool(request["real"]), tame=tame)
    signals = cast("Mapping[str, Sequence[int]]", request.get("signals", {}))
    faulthandler.dump_traceback_later(STUCK, file=2)
    spoil = Spoil(request, folder)
    observer: Observer = Notes(folder / "client.notes", signals, spoil)
    Killer(PLAN.get("client", {}), folder / "client.counts").install()
    options = lifecycle.Options(
        observer=observer,
        results=folder / "results",
        agree=lambda _plan: observer.phase("planning", ""),
        grace=0.2,
        fetch_limit=5.0,
        release_limit=float(cast("float", request.get("release_limit", 20.0))),
        keep_on_fetch_failure=bool(request.get("keep")),
    )
    try:
        provider = machines.Machines(LambdaCloud(api()), kind="gpu_1x_a10")
        status = lifecycle.run(_spec(request, folder), provider, Ledger(ledger_file()), options)
    except CvlError as error:
        observer.warn(f"{type(error).__name__}: {error}")
        return 125
    observer.warn(f"end: {int(status)} {status.cause}: {status.detail}")
    return int(status)


def _spec(request: Json, folder: Path) -> JobSpec:
    return JobSpec(
        run_id=str(request["run"]),
        argv=("sh", "-c", str(request.get("job", "echo hello; echo a >out"))),
        example="examples/one",
        preset="sh",
        source=Source(root=folder / "repo", folder="examples/one"),
        limits=_limits(request),
        detach=bool(request.get("detach")),
    )


def _limits(request: Json) -> Limits:
    if request["host"] or request["damage"]:
        return Limits(timeout=TIMEOUT, grace=GRACE, fetch=FETCH)
    return Limits(timeout=cast("float | None", request.get("timeout", 30.0)), grace=GRACE)


class Spoil:
    """Turns the machine, and damages the ledger, once the run is in the phase that is named."""

    def __init__(self, request: Json, folder: Path) -> None:
        self._phase, self._host = request.get("phase"), str(request["host"])
        self._damage = int(cast("int", request["damage"]))
        self._login = hostile.login(folder / "hostile")

    def __call__(self, phase: str) -> None:
        if phase != self._phase:
            return
        if self._host:
            self._login.turn(self._host)
        if self._damage:
            damaged(ledger_file(), self._damage)
            self._damage = 0


def damaged(file: Path, seed: int) -> None:
    """Flip bits of a file, in place."""
    choice = random.Random(seed)
    with file.open("r+b") as ledger:
        size = file.stat().st_size
        for _ in range(FLIPS):
            at = choice.randrange(size)
            ledger.seek(at)
            byte = ledger.read(1)[0]
            ledger.seek(at)
            ledger.write(bytes([byte ^ 1 << choice.randrange(8)]))


class Behind(Local):
    """Reaches this machine through a login that may turn hostile."""

    def __init__(self, login: hostile.Login) -> None:
        self._login = login

    def start(self, argv: Sequence[str]) -> Process:
        asked = f"SSH_ORIGINAL_COMMAND={command(argv)}"
        return super().start(("env", asked, *shlex.split(self._login.program), self._login.there))


def _replace(folder: Path, *, real: bool, tame: bool = True) -> None:
    """Make everything quick, and the machine a folder here unless it is a `real` one."""
    base = str(folder / "machine")
    transport = Local() if tame else Behind(hostile.login(folder / "hostile"))

    def here(_user: str, _run_id: str, _address: str) -> FarSide:
        if (folder / "no-ssh").exists():
            raise CvlError("no way in")
        return FarSide(transport, base)

    put(job, "reach", job.reach if real else here)
    put(machines, "LOOKS", (0.01, 0.02, 0.05))
    put(release, "LOOK", 0.05)
    put(until_gone, "PAUSES", (0.0, 0.02, 0.05, 0.1, 0.2))
    put(lambda_api, "PAUSES", (0.02, 0.04, 0.08))
    put(lambda_api, "THROTTLED_PAUSES", (0.02, 0.04, 0.08))
    put(LambdaCloud, "boot_limit", BOOT_LIMIT * 5 if real else BOOT_LIMIT)
    put(keys, "generate", _made)
    put(guardian_client, "Popen", ForkedPopen)
    if not tame:
        put(machines, "LOGIN_LIMIT", 1.0)
        put(machines.Machines, "stop_limit", 2.0)
        put(follow, "ASK_LIMIT", 1.0)
        put(takeover, "ANY_END", 10.0)
        put(context, "QUIET", 1.0)
        put(teardown, "DOUBT_LIMIT", 2.0)
        put(teardown, "DISCARD_LIMIT", 2.0)


def put(place: object, name: str, value: object) -> None:
    """Replace something in this process."""
    setattr(place, name, value)


def _made(path: Path) -> None:
    for suffix, text in KEY_PAIR.items():
        path.with_name(path.name + suffix).write_text(text)


def _warm() -> None:
    """Do once what every child would have to do."""
    import tempfile

    library().archive()
    with tempfile.TemporaryDirectory() as folder:
        keys.generate(Path(folder, "key"))
        KEY_PAIR[""] = Path(folder, "key").read_text()
        KEY_PAIR[".pub"] = Path(folder, "key.pub").read_text()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def serve() -> None:
    """Answer requests until there are none."""
    _warm()
    for line in sys.stdin:
        request = json.loads(line)
        os.environ.update(request["env"])
        answer = _reaped(request) if request.get("reap") else _followed(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _reaped(request: Json) -> Json:
    folder = Path(cast("str", request["folder"]))

    def work() -> int:
        _replace(folder, real=bool(request["real"]), tame=bool(request["tame"]))
        output = os.open(folder / "reap.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        return command_line(["reap", "-y"])

    pid = _forked(work, folder)
    ended = _waited({pid}, time.monotonic() + LIMIT)
    return {"status": ended.get(pid), "stuck": pid not in ended}


def _followed(request: Json) -> Json:
    """Run the client, wait for it and for its guardian, and end what they leave behind."""
    folder = Path(cast("str", request["folder"]))
    pid = _forked(lambda: client(request), folder)
    (folder / "client.pid").write_text(str(pid))
    until = time.monotonic() + LIMIT
    ended = _waited({pid}, until)
    died = time.monotonic()
    note = folder / "guardian.pid"
    guard = int(note.read_text()) if note.exists() and note.read_text() else 0
    if guard:
        ended |= _waited({guard}, until)
    over = time.monotonic()
    stuck = pid not in ended or bool(guard and guard not in ended)
    _sweep()
    return {"status": ended.get(pid), "died": died, "over": over, "stuck": stuck}


def _forked(work: Callable[[], int], folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        errors = os.open(folder / "client.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(errors, 2)
        code = work()
    except BaseException:  # noqa: BLE001 - a forked child must never return to its parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def _waited(pids: set[int], until: float) -> dict[int, int]:
    """Wait for these, and take in whoever else ends; return the exit code or minus the signal."""
    ended: dict[int, int] = {}
    while not pids <= ended.keys() and time.monotonic() < until:
        for pid in pids - ended.keys():
            if not Path("/proc", str(pid)).exists():
                ended[pid] = 0
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pid = 0
        if pid:
            ended[pid] = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.002)
    return {pid: code for pid, code in ended.items() if pid in pids}


def _sweep() -> None:
    """Kill everything that is left below us."""
    while children := _children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    me = os.getpid()
    return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]


if __name__ == "__main__":
    assert subprocess  # loaded before the first fork
    serve()
