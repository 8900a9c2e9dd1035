"""The small process that outlives us and finishes the clean-up.

Started before the first create call, in a session of its own (and a systemd scope of its own
where the user has a manager: logout and the OOM killer take whole groups), with none of our
stdio. A pipe ties it to the client: `done` ends it, `follow` (for `-d`) or the pipe's end makes
it drive the run to its end: stop the job, fetch, release, see it gone, close the ledger.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

from cvl.errors import CvlError
from cvl.spec import Cause

if TYPE_CHECKING:
    from cvl.ledger import Ledger

READY_LIMIT = 20.0
"""Seconds that a guardian may take to be on duty."""
LOOK = 30.0
"""Seconds between two looks at the ledger."""
AGAIN = 2.0
"""Seconds between two attempts to bring a run to its end."""
RELEASE_LIMIT = 3600.0
"""Seconds that one attempt to see everything gone may take; then the next begins."""
DONE, FOLLOW, KEEP, GONE, RELEASE, LATE = "done", "follow", "keep", "gone", "release", "late"
"""What a guardian may hear: from the client, by the pipe's end, by SIGTERM, by the deadline."""
CAUSES = {FOLLOW: None, GONE: Cause.STOPPED, RELEASE: Cause.STOPPED, LATE: Cause.TIMEOUT}
"""What the job is told when it is stopped for that reason; None: it is not stopped."""


class Guardian:
    """The client's end: one guardian for one run."""

    def __init__(self, run_id: str, secrets: Mapping[str, str], folder: Path) -> None:
        """Start it and wait until it is on duty. Raises `CvlError`.

        Secrets travel through the pipe: they are in no argv, no environment and no file.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = os.open(folder / "guardian.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = Popen(
                [*own_scope(), sys.executable, "-m", "cvl.guardian", run_id],
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        finally:
            os.close(log)
        self._say(json.dumps(dict(secrets)))
        self._await_ready()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def done(self) -> None:
        """Nothing is open any more: let it go."""
        self._say(DONE)
        self._hang_up()

    def follow(self) -> None:
        """Leave the run to it: it follows to the end."""
        self._say(FOLLOW)
        self._hang_up()

    def keep(self) -> None:
        """Let everything be until the deadline."""
        self._say(KEEP)
        self._hang_up()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; whoever asks `ps` or `reap` sees what is open

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def _await_ready(self) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], READY_LIMIT)
        if not ready or self._process.stdout.readline() != b"ready\n":
            self._process.kill()
            self._process.wait()
            raise CvlError(
                "the guardian process did not start; nothing was rented",
                "its log lies beside the run's in the state folder",
            )


def own_scope() -> list[str]:
    """Return the words that put a command into a systemd scope of its own, where there is one."""
    from shutil import which

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    manager = runtime and Path(runtime, "systemd/private").exists()
    if not manager or which("systemd-run") is None:
        return []
    return ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]


class Watch:
    """Waits for what a guardian may hear; made before it reports for duty."""

    def __init__(self, ledger: Ledger, run_id: str) -> None:
        self._ledger, self._run_id = ledger, run_id
        self._wake, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)

    def word(self, *, deaf: bool = False) -> str:
        """Return the client's word, or why there is none; `deaf`: the pipe has been read."""
        sources = [self._wake] if deaf else [self._wake, sys.stdin.fileno()]
        while True:
            ready, _, _ = select.select(sources, [], [], min(self._left(), LOOK))
            if self._wake in ready:
                return RELEASE
            if ready:
                return os.read(sys.stdin.fileno(), 64).decode().strip() or GONE
            if self._left() <= 0:
                return LATE
            if deaf and self._ledger.run(self._run_id).state == "ended":
                return DONE

    def _left(self) -> float:
        """Return the seconds to the deadline: the ledger has it since the machine was rented."""
        from time import time

        deadline = self._ledger.run(self._run_id).deadline
        return LOOK if deadline is None else max(deadline - time(), 0.0)


def main(run_id: str) -> int:
    """Guard one run; return 0 once nothing of it is open."""
    from cvl.ledger import Ledger
    from cvl.paths import ledger_file
    from cvl.process import me

    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    secrets = json.loads(_line())
    ledger = Ledger(ledger_file())
    watch = Watch(ledger, run_id)
    ledger.note(run_id, guardian=me())
    os.write(1, b"ready\n")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    word = watch.word()
    if word == KEEP:
        word = watch.word(deaf=True)
    return 0 if word == DONE else drive(run_id, word, secrets)


def drive(run_id: str, word: str, secrets: Mapping[str, str]) -> int:
    """Bring the run to its end, as `word` asks for; try again until nothing is open."""
    from cvl import engine
    from cvl.ledger import Ledger, RunState
    from cvl.paths import ledger_file
    from cvl.process import me
    from cvl.runners import reopen
    from cvl.scope import Bell, SystemClock

    ledger, clock = Ledger(ledger_file()), SystemClock()
    while (record := ledger.run(run_id)).state is not RunState.ENDED:
        if word in {RELEASE, LATE}:
            ledger.take(run_id, me(), record.owner)
        if engine.adopt(record := ledger.run(run_id), ledger):
            options = engine.Options(
                observer=Log(),
                results=Path(record.results),
                fetch=word != RELEASE,
                release_limit=RELEASE_LIMIT,
                guarded=False,
            )
            try:
                provider = reopen(record.runner, record.handle, secrets)
                engine.recover(
                    record, provider, ledger, options, cause=CAUSES[word], at_once=word == RELEASE
                )
            except CvlError as error:
                Log().warn(f"{error}; trying again")
        clock.wait(Bell(), AGAIN)
    return 0


class Log:
    """The `Observer` of a process without a terminal: lines in its log."""

    def phase(self, name: str, text: str) -> None:
        self.warn(f"{name} {text}")

    def output(self, chunk: object) -> None:
        del chunk  # the run's own log has it

    def warn(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _line() -> bytes:
    """Read one line from the pipe and not a byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line or b"{}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
