"""Times commands: wall clock, processor time of all that they waited for, memory, first byte."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from bench.values import Failed, Sample

LIMIT = 300.0
"""Seconds after which a command is ended and counts as failed."""
KIB = 1024


def timed(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    out: Path | None = None,
    stdin: Path | None = None,
    cwd: Path | None = None,
    first: bool = False,
) -> Sample:
    """Run a command to its end: `s`, `cpu_s`, `mb` (largest process), with `first` `first_s`.

    Its output goes to `out` or nowhere. Raises `Failed` with its last words.
    """
    with Run(argv, env, out=out, stdin=stdin, cwd=cwd, piped=first) as run:
        sample = dict(run.first_byte()) if first else {}
        return {**sample, **run.ended()}


class Run:
    """A command under way."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        out: Path | None = None,
        stdin: Path | None = None,
        cwd: Path | None = None,
        piped: bool = False,
    ) -> None:
        self._argv = argv
        self._errors = os.memfd_create("stderr")
        self._began = time.perf_counter()
        with (
            Path(stdin or os.devnull).open("rb") as source,
            Path(out or os.devnull).open("wb") as sink,
        ):
            try:
                self.process = subprocess.Popen(
                    argv,
                    stdin=source,
                    stdout=subprocess.PIPE if piped else sink,
                    stderr=self._errors,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                )
            except OSError as error:
                os.close(self._errors)
                raise Failed(f"{argv[0]}: {error.strerror}") from error
        self._watchdog = threading.Timer(LIMIT, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        os.close(self._errors)

    @property
    def stdout(self) -> IO[bytes]:
        """What it writes, where that was asked for."""
        assert self.process.stdout is not None
        return self.process.stdout

    def first_byte(self) -> Sample:
        """Wait for the first byte of its output, then read the rest."""
        if not self.stdout.read(1):
            self.ended()
            raise Failed(f"{self._named()}: no output")
        seconds = time.perf_counter() - self._began
        while self.stdout.read(1 << 20):
            pass
        return {"first_s": seconds}

    def ended(self) -> Sample:
        """Wait for its end. Raises `Failed` unless it succeeds."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - self._began
        if self.process.returncode:
            raise Failed(f"{self._named()}: exit code {self.process.returncode}: {self._words()}")
        return {
            "s": seconds,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "mb": usage.ru_maxrss * KIB / 1e6,
        }

    def _named(self) -> str:
        return f"`{Path(self._argv[0]).name} {' '.join(self._argv[1:4])}`"

    def _words(self) -> str:
        size = os.fstat(self._errors).st_size
        text = os.pread(self._errors, 2000, max(0, size - 2000)).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it said nothing"


def wait_for(what: Callable[[], object], limit: float = LIMIT) -> float:
    """Wait until `what()` is true; return the seconds that took. Raises `Failed`."""
    began = time.perf_counter()
    while not what():
        if time.perf_counter() - began > limit:
            raise Failed(f"it did not happen within {limit:g} s")
        time.sleep(0.002)
    return time.perf_counter() - began


def started_with(mark: str) -> list[int]:
    """Return the processes that have `NAME=VALUE` in their environment."""
    found = []
    for entry in os.scandir("/proc"):
        with suppress(OSError):
            if entry.name.isdigit() and mark.encode() in Path(
                entry.path, "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
