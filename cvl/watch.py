"""The guardian: watches over one run, and brings it to its end when nobody else does.

While its client lives it only waits, and has loaded next to nothing. It hears the client's
words and the end of the pipe between them, the death of the client, SIGTERM, and the limit.
Then it drives the run, and tries again until nothing of it is open.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from cvl.guardian import DONE, FOLLOW, KEEP, LIMIT
from cvl.hidden import leave_no_core
from cvl.spec import Cause
from cvl.terminal import say

if TYPE_CHECKING:
    from cvl.ledger import Ledger, Run
    from cvl.provider import Provider

LOOK = 1.0
"""Seconds between two looks at what cannot wake us."""
LONG = 300.0
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between two attempts to bring a run to its end; the last one repeats."""
RELEASE_LIMIT = 3600.0
"""Seconds that one attempt to see everything gone may take; then the next begins."""
GONE, RELEASE, LATE = "gone", "release", "late"
"""What it hears beside the client's words: its end, SIGTERM, the limit."""
CAUSES = {FOLLOW: None, GONE: Cause.STOPPED, RELEASE: Cause.STOPPED, LATE: Cause.TIMEOUT}
"""What the job is told when it is stopped for that reason; None: it is not stopped."""


class Ears:
    """Everything that a guardian may hear; listens from the moment that it is made."""

    def __init__(self, client: int) -> None:
        """`client` is the process that we watch over."""
        self._wake, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._hasten())
        self._client, self._exit = client, _exit_of(client)
        self._heard = b""
        self._ends: float | None = None
        self.hurried = False
        self.rush: Callable[[], None] | None = None
        """What makes the work under way give up everything but the release."""

    def word(self) -> str:
        """Return the client's word, or why there is none."""
        while True:
            if self.hurried:
                return RELEASE
            if self.left() == 0:
                return LATE
            if word := self._said():
                return word
            self._wait([0, *self._exit], LONG if self._exit else LOOK)
            if self._is_gone() and not select.select([0], [], [], 0)[0]:
                return GONE  # though the pipe is still open, in some child of its

    def pause(self, seconds: float) -> None:
        """Wait, but not past the limit or SIGTERM."""
        if not self.hurried:
            self._wait([], seconds)

    def left(self) -> float | None:
        """Return the seconds to the limit, None while there is none."""
        return None if self._ends is None else max(self._ends - _now(), 0.0)

    def _wait(self, sources: list[int], seconds: float) -> None:
        left = self.left()
        limit = seconds if left is None else min(seconds, left)
        ready, _, _ = select.select([self._wake, *sources], [], [], limit)
        if self._wake in ready:
            os.read(self._wake, 64)

    def _said(self) -> str:
        """Return the next word that is more than a limit; `GONE` at the end; "" for none yet."""
        while select.select([0], [], [], 0)[0]:
            data = os.read(0, 4096)
            self._heard += data
            *lines, self._heard = self._heard.split(b"\n")
            for line in lines:
                word, _, value = line.decode().partition(" ")
                if word != LIMIT:
                    return word
                self._ends = _now() + float(value)
            if not data:
                return GONE
        return ""

    def _is_gone(self) -> bool:
        if self._exit:
            return bool(select.select(self._exit, [], [], 0)[0])
        return os.getppid() != self._client

    def _hasten(self) -> None:
        self.hurried = True
        if self.rush:
            self.rush()


def main(run_id: str) -> int:
    """Guard one run; return 0 once nothing of it is open."""
    from cvl.ledger import Ledger
    from cvl.paths import ledger_file
    from cvl.process import me

    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    leave_no_core()
    ears = Ears(os.getppid())
    secrets = json.loads(_line() or b"{}")
    ledger = Ledger(ledger_file())
    ledger.note(run_id, guardian=me())
    record = ledger.run(run_id)
    with suppress(BrokenPipeError):  # it has died by now, which is what we are for
        os.write(1, b"ready\n")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    word = ears.word()
    if word == KEEP:
        word = kept(ears, ledger, run_id)
    return 0 if word == DONE else drive(record, word, secrets, ears)


def kept(ears: Ears, ledger: Ledger, run_id: str) -> str:
    """Wait until the limit, until told to release, or until somebody else has ended the run."""
    from cvl.errors import LedgerError

    while not ears.hurried and ears.left() != 0:
        with suppress(LedgerError):
            if ledger.run(run_id).state == "ended":
                return DONE
        ears.pause(LOOK)
    return RELEASE if ears.hurried else LATE


def drive(record: Run, word: str, secrets: Mapping[str, str], ears: Ears) -> int:
    """Bring the run to its end, as `word` asks for; try again until nothing is open."""
    from cvl.ledger import Ledger
    from cvl.paths import ledger_file

    ledger, attempt = Ledger(ledger_file()), 0
    while True:
        if ears.hurried:
            word = RELEASE
        elif ears.left() == 0 and word != RELEASE:
            word = LATE
        try:
            if _attempted(record, ledger, word, secrets, ears):
                return 0
        except Exception as error:  # noqa: BLE001 - nothing may keep it from trying again
            Log().warn(f"{type(error).__name__}: {error}; trying again")
        ears.pause(PAUSES[min(attempt, len(PAUSES) - 1)])
        attempt += 1


def _attempted(
    record: Run, ledger: Ledger, word: str, secrets: Mapping[str, str], ears: Ears
) -> bool:
    """Try once; return whether it is all over."""
    from cvl.errors import LedgerError
    from cvl.ledger import RunState
    from cvl.process import me
    from cvl.runners import reopen

    run_id = record.id
    try:
        record = ledger.run(run_id)
        if record.state is RunState.ENDED:
            return True
        if word in {RELEASE, LATE}:
            ledger.take(run_id, me(), record.owner)
        if not _ours(ledger, run_id):
            return False
        record = ledger.run(run_id)
    except LedgerError as error:
        Log().warn(f"{error}; going on without it")
        _without(record, ledger, secrets, word, ears)
        return True
    provider = reopen(record.runner, record.handle, secrets)
    _recover(record, provider, ledger, meant(record, word), ears)
    return ledger.run(run_id).state is RunState.ENDED


def meant(record: Run, word: str) -> str:
    """Return what a word means for this run: a detached one outlives its client."""
    return FOLLOW if word == GONE and record.detached else word


def _without(
    record: Run, ledger: Ledger, secrets: Mapping[str, str], word: str, ears: Ears
) -> None:
    """Do the same without the ledger, as far as that goes."""
    from cvl import blind
    from cvl.runners import reopen
    from cvl.scope import Scope

    provider, work = reopen(record.runner, record.handle, secrets), Scope(seconds=ears.left())
    ears.rush = lambda: work.cancel(Cause.STOPPED)
    try:
        if word != RELEASE and not ears.hurried:
            blind.save(record, provider, Log(), work, CAUSES[meant(record, word)])
    finally:
        ears.rush = None
    blind.sweep(record, provider, ledger, Log(), RELEASE_LIMIT)


def _ours(ledger: Ledger, run_id: str) -> bool:
    from cvl import engine

    return engine.adopt(ledger.run(run_id), ledger)


def _recover(record: Run, provider: Provider, ledger: Ledger, word: str, ears: Ears) -> None:
    """Drive the run to its end; SIGTERM and the limit reach us there too."""
    from pathlib import Path

    from cvl.drive import Drive
    from cvl.options import Options

    options = Options(
        observer=Log(),
        results=Path(record.results),
        fetch=word != RELEASE,
        release_limit=RELEASE_LIMIT,
        guarded=False,
    )
    work = Drive(record, provider, ledger, options)
    if (left := ears.left()) is not None:
        work.leases.until(left)
    ears.rush = work.rush
    try:
        if ears.hurried:
            work.rush()
        work.recover(CAUSES[word], at_once=word == RELEASE)
    finally:
        ears.rush = None


class Log:
    """The `Observer` of a process without a terminal: lines in its log."""

    def phase(self, name: str, text: str) -> None:
        self.warn(f"{name} {text}")

    def output(self, chunk: object) -> None:
        del chunk  # the run's own log has it

    def warn(self, text: str) -> None:
        say(f"{time.strftime('%m-%d %H:%M:%S')} {text}")


def _line() -> bytes:
    """Read one line from the pipe and not a byte more."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _exit_of(pid: int) -> list[int]:
    """Return a descriptor that can be read once that process has ended; none where unknown."""
    try:
        return [os.pidfd_open(pid)]
    except (AttributeError, OSError):
        return []


def _now() -> float:
    """Return seconds that never jump, and that go on while the machine sleeps where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
