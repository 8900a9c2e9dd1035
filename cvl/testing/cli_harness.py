"""Somebody at a desk: calls `cvl` as a person does, and looks at what it says and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from cvl.ledger import Ledger

T = TypeVar("T")
LIMIT = 120.0
"""Seconds that anything may take before a check gives up on it."""
LOOK = 0.01
FOLDER = "examples/conformance/one"
EXAMPLE = """\
name: one
capability: conformance/one
description: does what it is told
docker: false
presets:
  sh: {script: sh.sh}
  args: {script: args.sh}
  gone: {script: gone.sh}
"""
SCRIPTS = {
    "sh.sh": '#!/bin/sh\neval "$1"\n',
    "args.sh": "#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\n",
}


def wait_for(what: Callable[[], T], limit: float = LIMIT) -> T:
    """Return the first true value of `what`, or fail after `limit` seconds."""
    until = time.monotonic() + limit
    while not (value := what()):
        assert time.monotonic() < until, f"it did not happen within {limit:g} s"
        time.sleep(LOOK)
    return value


def processes_of(run_id: str) -> list[str]:
    """Return the living processes of this machine that a run has started, for a person."""
    mark, found = f"CVL_RUN_ID={run_id}".encode(), []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and mark in _read(entry.path, "environ").split(b"\0"):
            state = _read(entry.path, "stat").rpartition(b")")[2].split()
            if state and state[0] != b"Z":
                command = _read(entry.path, "cmdline").replace(b"\0", b" ")
                found.append(f"{entry.name} {command.decode(errors='replace')}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended: its exit code and all that it wrote."""

    code: int
    out: bytes
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where cvl is called, and how a runner is chosen.

    `folder` is the caller's own; `options` choose the runner (`--ssh`, `testhost`); `env` is
    added to the environment; `left(run id)` lists what a run has left running over there.
    """

    folder: Path
    options: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    left: Callable[[str], Sequence[str]] = processes_of

    def __post_init__(self) -> None:
        example = self.repo / FOLDER
        example.mkdir(parents=True, exist_ok=True)
        for name in ("home", "clients"):
            (self.folder / name).mkdir(exist_ok=True)
        (example / "example.yaml").write_text(EXAMPLE)
        for name, text in SCRIPTS.items():
            (example / name).write_text(text)
            (example / name).chmod(0o755)

    @property
    def repo(self) -> Path:
        """The repository with the example, which is also where every command is called."""
        return self.folder / "repo"

    @property
    def state(self) -> Path:
        """Where this desk's cvl keeps what it knows."""
        return self.folder / "state"

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this desk sees."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("CVL_")}
        ours |= {"HOME": str(self.folder / "home"), "CVL_STATE_DIR": str(self.state)}
        return {**ours, "PYTHONWARNINGS": "always", **self.env}

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Client:
        """Start `cvl WORDS` in a session of its own."""
        return Client(self, words, {**self.environment, **(env or {})})

    def cvl(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        """Run `cvl WORDS` to its end."""
        with self.start(*words, env=env) as client:
            return client.ended()

    @contextmanager
    def running(self, script: str, *options: str) -> Iterator[Client]:
        """Run a script, and see that in the end neither client nor job is left."""
        with self.start("run", *self.options, *options, "one", "sh", script) as client:
            try:
                yield client
            finally:
                for run in self.runs():
                    if self.left(run):
                        self.cvl("stop", "--grace", "0s", run)

    def sh(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> Done:
        """Run a script of ours through the runner, to its end."""
        return self.cvl("run", *self.options, *options, "one", "sh", script, env=env)

    def ps(self) -> list[dict[str, object]]:
        """Return what `cvl ps --json` says: the newest run first."""
        found: list[dict[str, object]] = json.loads(self.cvl("ps", "-a", "--json").out)
        return found

    def runs(self) -> list[str]:
        """Return the ids of all runs, the newest first, as the ledger has them."""
        return [run.id for run in Ledger(self.state / "ledger.db").runs()]

    def result(self, name: str, run_id: str = "") -> bytes:
        """Return a file that a run left in its example's folder or its work folder."""
        there = self.repo / "cvl-runs" / (run_id or self.runs()[0])
        return next(there.rglob(name)).read_bytes()


class Client:
    """One `cvl` under way. Its output goes to files, so nothing ever waits for us to read."""

    def __init__(self, desk: Desk, words: Sequence[str], env: Mapping[str, str]) -> None:
        self._desk = desk
        stem = desk.folder / "clients" / str(time.monotonic_ns())
        self._out, self._err = stem.with_suffix(".out"), stem.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cvl", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(env),
                cwd=desk.repo,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(LIMIT)

    @property
    def out(self) -> bytes:
        """What it has written to stdout so far."""
        return self._out.read_bytes()

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return self._err.read_text("utf-8", "replace")

    def shows(self, words: bytes) -> bytes:
        """Wait until stdout holds `words`; return all of it."""
        wait_for(lambda: words in self.out or self.process.poll() is not None)
        assert words in self.out, (self.out[-500:], self.err)
        return self.out

    def says(self, words: str) -> str:
        """Wait until stderr holds `words`; return all of it."""
        wait_for(lambda: words in self.err or self.process.poll() is not None)
        assert words in self.err, self.err
        return self.err

    def signal(self, number: int) -> None:
        """Send a signal to the client alone."""
        self.process.send_signal(number)

    def ended(self, limit: float = LIMIT) -> Done:
        """Wait for its end. No traceback and no warning of Python's ever reaches a user."""
        code = self.process.wait(limit)
        assert "Traceback" not in self.err, self.err
        assert "Warning: " not in self.err, self.err
        return Done(code=code, out=self.out, err=self.err)


def _read(folder: str, what: str) -> bytes:
    try:
        return Path(folder, what).read_bytes()
    except OSError:
        return b""
