"""What a person sees where our two streams lead: the job's bytes, our lines, and one below them.

The one place that writes to stdout and stderr. Where both lead to the same terminal, file or pipe,
a line of ours never goes on an unfinished one of the job's. On a terminal one more line, the bottom
line, stands below all that. It goes and comes back in the same write as what comes above it, so it
does not blink; and the cursor rests at its start, so that none has to be hidden and shown again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from typing import TextIO

from cvl.cli.terminal_modes import BROKEN_OFF, ENDED, TerminalModes

OUT, ERR = 1, 2
PATIENCE = 1.0
"""Seconds that a line of ours waits for whoever writes: what holds that up may be for ever."""
PLAIN, GONE = "\x1b[0m", "\r\x1b[J\x1b[2K"
"""No colours; and no bottom line, however many lines a narrower window has made of it."""
LOOK = 0.2
"""Seconds between two looks at whether an answer is there."""
COLUMNS = 80
"""Of a terminal that does not say how many it has."""


class Screen:
    """Where our streams lead, and what stands there. One for the process: `SCREEN`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._modes = TerminalModes()
        self._unfinished = {OUT: False, ERR: False}
        self._bottom, self._cells, self._drawn = "", 0, False
        self._held: list[tuple[TextIO, str]] | None = None

    def job(self, data: bytes) -> None:
        """Write output of the job to stdout as it is. Raises `OSError`."""
        if not (os.isatty(OUT) or self._together()):  # who reads there may take for ever
            self._unfinished[OUT] = False
            _write_all(OUT, data)
            return
        with self._lock:
            before = self._gone(OUT)
            if os.isatty(OUT):
                self._modes.follow(data)
            if data:
                self._unfinished[OUT] = not ENDED.search(data)
            _write_all(OUT, before.encode() + data + _bytes(self._back(OUT)))

    def line(self, stream: TextIO | None, text: str) -> None:
        """Write a line of ours; while a question stands it waits. Raises `OSError`."""
        if stream is None:  # it was closed when we began
            return
        with self._turn():
            if self._held is not None:
                self._held.append((stream, text))
                return
            number = OUT if stream is sys.stdout else ERR
            before = self._before(number)
            goes_on = self._colours(number) + self._begun(number)
            _put(stream, f"{before}{text}\n{goes_on}{self._back(number)}")

    def bottom(self, text: str, cells: int) -> None:
        """Let a line of so many columns stand below all else on the terminal; "" is none."""
        with self._turn(), suppress(OSError):
            if self._bottom or text:
                before = self._gone(ERR)
                self._bottom, self._cells = text, cells
                _put(sys.stderr, before + self._back(ERR))

    def job_over(self) -> None:
        """End a line that the job left unfinished, and undo its colours, modes and screens."""
        with self._turn(), suppress(OSError):
            if not os.isatty(OUT):
                return
            before, undone = self._gone(OUT), self._modes.undo()
            ends = self._unfinished[OUT] and self._together()
            self._unfinished[OUT] = self._unfinished[OUT] and not ends
            _write_all(OUT, before.encode() + undone + b"\n" * ends + _bytes(self._back(OUT)))

    def ask(self, question: str) -> str:
        """Return the line that is typed in answer, "" at the end of the input.

        All else that we have to say waits for it. Ctrl-C raises `KeyboardInterrupt`.
        """
        with self._alone(f"{question} "):
            try:
                answer = _typed()
            except UnicodeDecodeError:
                answer = "\n"
            self._unfinished[ERR] = not answer.endswith("\n")
            return answer.strip()

    def give_way(self) -> None:
        """Take the bottom line away whenever Ctrl-Z is to stop us, and only then stop."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._stop)

    def _stop(self, number: int, _frame: object) -> None:
        with self._turn():
            with suppress(OSError):
                _put(sys.stderr, self._gone(ERR))
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # here we stand until SIGCONT
            signal.signal(number, self._stop)

    @contextmanager
    def _alone(self, question: str) -> Iterator[None]:
        in_main = threading.current_thread() is threading.main_thread()
        again = signal.getsignal(signal.SIGCONT)
        try:
            with self._turn():
                before = self._before(ERR)
                self._unfinished[ERR], self._held = True, []
                _put(sys.stderr, before + question)
            if in_main:  # a shell has written below it meanwhile
                signal.signal(signal.SIGCONT, lambda *_: _put(sys.stderr, question))
            yield
        finally:
            if in_main:
                signal.signal(signal.SIGCONT, again)
            held, self._held = self._held, None
            for stream, text in held or ():
                with suppress(OSError):
                    self.line(stream, text)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one write after the other, so far as the one before comes to its end."""
        ours = self._lock.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            if ours:
                self._lock.release()

    def _before(self, number: int) -> str:
        """Return what a line of ours begins with: it has a line of its own, and its own colours."""
        ends = self._unfinished[number] or (self._together() and any(self._unfinished.values()))
        for each in (OUT, ERR) if self._together() else (number,):
            self._unfinished[each] = False
        broken_off = BROKEN_OFF.decode() if self._begun(number) else ""
        gone = broken_off + self._gone(number)
        return gone + ("\n" if ends else "") + (PLAIN if self._colours(number) else "")

    def _gone(self, number: int) -> str:
        """Return what takes the bottom line away, if it stands where this stream leads."""
        if not self._drawn or not self._stands_at(number):
            return ""
        self._drawn = False
        colours = self._colours(number)
        return f"{PLAIN if colours else ''}{GONE}{colours}"

    def _back(self, number: int) -> str:
        """Return what puts the bottom line back, if it may stand there now."""
        if not (self._bottom and self._stands_at(number) and self._may_stand()):
            return ""
        self._drawn = True
        colours = self._colours(number)
        return f"{PLAIN if colours else ''}{self._bottom}\r{colours}"

    def _may_stand(self) -> bool:
        free = self._held is None and not any(self._unfinished.values())
        its_own = self._modes.moves or self._modes.begun != b""
        return free and not its_own and self._cells < columns() and _in_front()

    def _stands_at(self, number: int) -> bool:
        return number == ERR or self._together()

    def _together(self) -> bool:
        """Return whether both streams lead to the same place."""
        try:
            out, err = os.fstat(OUT), os.fstat(ERR)
        except OSError:
            return False
        return (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)

    def _colours(self, number: int) -> str:
        """Return the job's colours, if they reach where this stream leads."""
        colours = self._modes.colours
        return colours.decode("ascii", "replace") if colours and self._reaches(number) else ""

    def _begun(self, number: int) -> str:
        """Return the sequence that the job is in, if it reaches where this stream leads."""
        return self._modes.begun.decode("ascii", "replace") if self._reaches(number) else ""

    def _reaches(self, number: int) -> bool:
        return number == OUT or self._together()


SCREEN = Screen()


def columns() -> int:
    """Return how many columns the terminal has at the moment."""
    try:
        found = os.get_terminal_size(ERR).columns
    except OSError:
        found = 0
    return found if found > 0 else COLUMNS


def _typed() -> str:
    """Return a line of stdin, read only once it is there.

    Whoever stands in `read` may sleep over a SIGCONT that another thread was given, and with it
    over the question that is to be asked again. Behind a shell we stop as a reader does.
    """
    while not select([sys.stdin], [], [], LOOK)[0]:
        if not _in_front():
            signal.raise_signal(signal.SIGTTIN)
    return sys.stdin.readline()


def _in_front() -> bool:
    """Return whether the terminal is ours now, and not a shell's that we run behind."""
    try:
        return os.tcgetpgrp(ERR) == os.getpgrp()
    except OSError:
        return True  # it is nobody's


def _bytes(text: str) -> bytes:
    return text.encode(getattr(sys.stderr, "encoding", None) or "utf-8", "replace")


def _put(stream: TextIO | None, text: str) -> None:
    if stream is None or not text:  # it was closed when we began
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _write_all(number: int, data: bytes) -> None:
    left = memoryview(data)
    while len(left) > 0:
        try:
            left = left[os.write(number, left) :]
        except BlockingIOError:  # somebody else has made it so
            select([], [number], [])
