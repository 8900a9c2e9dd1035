"""The client's end of the small process that outlives us and finishes the clean-up.

It is started before the first create call, in a session of its own (and a systemd scope of its
own where the user has a manager: logout and the OOM killer take whole groups), with none of our
stdio. A pipe ties it to us: what we say there, or the pipe's end, tells it what to do.
The other end is `cvl.operations.guardian_main`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen

from cvl.cleanup.guardian_keeper import TAIL, tail
from cvl.core.errors import CvlError
from cvl.core.paths import anchored, private, private_file, state_dir
from cvl.core.process import owner_of
from cvl.core.secrets import OURS

READY_LIMIT = 20.0
"""Seconds that a guardian may take to be on duty."""
MARGIN = 60.0
"""Seconds beyond the limit that it leaves to us, to end the run; of a short room, less."""
GONE, RELEASE, LATE = "gone", "release", "late"
"""What it hears beside our words: our end, SIGTERM, the limit."""
LIMIT = "limit"
"""What we say to it before our last word, with the seconds to two moments: when it takes over from
us, and when nothing but the release counts any more."""


class Guardian:
    """One guardian for one run."""

    def __init__(self, run_id: str, secrets: Mapping[str, str], folder: Path) -> None:
        """Start it and wait until it is on duty. Raises `CvlError`.

        Secrets travel through the pipe: they are in no argv, no environment and no file.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        log = private_file(private(folder) / "guardian.log", flags)
        try:
            scope = own_scope()
            process = start(scope, run_id, secrets, log)
            if process is None and scope:
                process = start([], run_id, secrets, log)
        finally:
            os.close(log)
        if process is None:
            raise CvlError(
                "the guardian process did not start",
                f"{folder / 'guardian.log'} may tell why",
            )
        self._process = process
        self.owner = owner_of(self._process.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Return whether it is on duty."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Return once it has ended."""
        self._process.wait()

    def limit(self, seconds: float, room: float) -> None:
        """Bring the run to its end so many seconds from now, if we have not.

        `room` seconds later nothing may be there, whatever its host does.
        """
        takes_over = seconds + min(MARGIN, room / 4)
        say(self._process, f"{LIMIT} {takes_over:.3f} {seconds + room - tail(room, TAIL):.3f}")

    def hang_up(self, last_word: str = "") -> None:
        """Close the pipe, behind a last word if there is one."""
        if last_word:
            say(self._process, last_word)
        close(self._process)
        # a caller that lives on must not keep a zombie of it
        threading.Thread(target=self._process.wait, daemon=True).start()


def start(
    scope: list[str], run_id: str, secrets: Mapping[str, str], log: int
) -> Popen[bytes] | None:
    """Return a guardian that is on duty, or None."""
    python = (sys.executable, "-X", "utf8", "-P")
    process = Popen(
        [*scope, *python, "-m", "cvl.operations.guardian_main", run_id],
        stdin=PIPE,
        stdout=PIPE,
        stderr=log,
        start_new_session=True,
        cwd="/",
        env=environment(secrets),
    )
    say(process, json.dumps(dict(secrets)))
    if is_ready(process):
        return process
    process.kill()
    process.wait()
    close(process)
    return None


def environment(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return ours, without secrets and without anything relative to the current folder.

    The same Python finds the same cvl by `PYTHONPATH`, wherever it came from: a checkout, a
    wheel, a zipapp. A folder with a colon in its name cannot be said there.
    """
    hidden = set(secrets.values()) - {""}
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in OURS and value not in hidden
    }
    here = Path.cwd() if "" in sys.path else None
    folders = [str(here) if path == "" else os.path.abspath(path) for path in sys.path]  # noqa: PTH100
    return {
        **anchored(variables),
        "PYTHONPATH": os.pathsep.join(each for each in folders if os.pathsep not in each),
        "CVL_STATE_DIR": str(state_dir()),
    }


def own_scope() -> list[str]:
    """Return the words that put a command into a systemd scope of its own, where there is one."""
    from shutil import which

    if not has_systemd(os.environ) or which("systemd-run") is None:
        return []
    return ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]


def has_systemd(environ: Mapping[str, str]) -> bool:
    """Return whether the user has a systemd manager that runs."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return bool(runtime) and Path(runtime, "systemd/private").exists()


def say(process: Popen[bytes], line: str) -> None:
    """Write one line to it. If it has ended, whoever asks `ps` or `reap` sees what is open."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


def is_ready(process: Popen[bytes]) -> bool:
    """Wait until it reports for duty; return whether it did."""
    assert process.stdout is not None
    answered, _, _ = select.select([process.stdout], [], [], READY_LIMIT)
    return bool(answered) and process.stdout.readline() == b"ready\n"


def close(process: Popen[bytes]) -> None:
    """Close both ends of ours."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
