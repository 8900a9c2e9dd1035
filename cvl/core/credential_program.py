"""A program that gives credentials: asked, listened to, and bounded in time and in bytes.

What it says on stderr is for whoever sits here (a code to type into a browser), so it is passed on
at once. On a terminal that it may use it stays in our process group, for it may ask somebody there;
elsewhere nobody can answer it, and it leads a session of its own, which ends as a whole, also when
we do.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from signal import SIGKILL
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from cvl.core.child_process import Leashed
from cvl.core.errors import AuthError
from cvl.core.frozen import dataclass
from cvl.core.scope import SystemClock

MOST = 1 << 20
"""Bytes that it may print and say."""
PARTIAL = 0.3
"""Seconds after which words without a line's end are passed on: a question has none."""
LAST = 300
"""Characters of its last words that are shown."""
BLOCK, LOOK = 1 << 16, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is run. `failure` and `hint` are for a person, who reads them after its name.

    `silence` are the seconds that it may take without a word, `asking` those that it may take once
    it has said something: somebody may have to log in elsewhere. `env` None is our own.
    """

    argv: Sequence[str]
    failure: str
    hint: str
    silence: float
    asking: float
    terminal: bool
    env: Mapping[str, str] | None = None

    def failed(self, why: str) -> AuthError:
        """Return what it means that it gave none; never its arguments, which may hold a key."""
        return AuthError(f"{self.argv[0]}{self.failure}: {why}", self.hint)


def answer(program: Program, hear: Callable[[str], None]) -> bytes:
    """Return what it prints; `hear` gets its words, line by line. Raises `AuthError`.

    It is ended with all that it started, also where it hangs.
    """
    try:
        process = _started(program)
    except (OSError, ValueError) as error:  # a word may hold what none can
        raise program.failed(getattr(error, "strerror", None) or str(error)) from error
    words = _Words(hear)
    try:
        out = _output(process, program, words)
    finally:
        _dismiss(process)
        words.end()
    if process.returncode:
        raise program.failed(words.last or f"it ended with {process.returncode}")
    return out


def _started(program: Program) -> Popen[bytes]:
    if not program.terminal:
        return Leashed(program.argv, stdin=DEVNULL, env=program.env)
    process = Popen(program.argv, stdout=PIPE, stderr=PIPE, env=program.env)
    atexit.register(process.kill)
    return process


def _output(process: Popen[bytes], program: Program, words: _Words) -> bytes:
    """Return what it prints until it has ended: a child of its may keep the pipes for itself."""
    out, count, began = bytearray(), 0, words.clock.monotonic()
    assert process.stdout is not None
    assert process.stderr is not None
    with DefaultSelector() as pipes:
        pipes.register(process.stdout, EVENT_READ, out.extend)
        pipes.register(process.stderr, EVENT_READ, words.take)
        while True:
            ended = process.poll() is not None
            ready = pipes.select(0 if ended else LOOK) if pipes.get_map() else []
            for key, _ in ready:
                data = os.read(key.fd, BLOCK)
                key.data(data)
                count += len(data)
                if not data:
                    pipes.unregister(key.fileobj)
            words.rest()
            if count > MOST:
                raise program.failed(f"it printed more than {MOST >> 20} MB")
            if ended and not ready:
                return bytes(out)
            limit = program.asking if words.any else program.silence
            if words.clock.monotonic() - began > limit:
                raise program.failed(f"no answer within {limit:g} s")
            if not pipes.get_map():
                with suppress(TimeoutExpired):
                    process.wait(LOOK)


class _Words:
    """What it says on stderr: passed on as lines, and the last one kept."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear, self._rest, self._since = hear, b"", 0.0
        self.clock = SystemClock()
        self.any, self.last = False, ""

    def take(self, data: bytes) -> None:
        self.any = self.any or bool(data)
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._since = self.clock.monotonic()
        for line in lines:
            self._say(line)

    def rest(self) -> None:
        """Pass on half a line that nothing has followed for a while."""
        if self._rest and self.clock.monotonic() - self._since > PARTIAL:
            self.end()

    def end(self) -> None:
        rest, self._rest = self._rest, b""
        self._say(rest)

    def _say(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self.last = text[:LAST]
            self._hear(text)


def _dismiss(process: Popen[bytes]) -> None:
    """Leave nothing behind of it, also where it hangs or has children."""
    with suppress(OSError):
        if isinstance(process, Leashed):
            os.killpg(process.pid, SIGKILL)
        elif process.poll() is None:
            process.kill()
    process.wait()
    atexit.unregister(process.kill)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
