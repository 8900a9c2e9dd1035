"""One request to a machine while it is under way: bytes one way, answers and bytes the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from select import POLLIN, poll

from cvl.errors import Unreachable
from cvl.provider import Process, Transport
from cvl.scope import Scope

CHUNK = 1 << 18
KILL_LIMIT = 5.0
LOOK = 0.2
"""Seconds between two looks at whether somebody has asked to stop."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line that the far side said: a word and the rest."""

    word: str
    rest: str


class Stream:
    """One request under way: its payload out as bytes, its answers as they come."""

    def __init__(self, process: Process, nonce: str, transport: Transport) -> None:
        self._process = process
        self._mark = f"cvl:{nonce}".encode()
        self._transport = transport
        self._answers: list[Answer] = []
        self._noise: list[bytes] = []
        self._news = threading.Condition()
        self._done = False
        self._payload_read = self._closed = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def payload(self) -> Iterator[bytes]:
        """Yield what follows the marker line on stdout, as it comes, to its end."""
        self._payload_read = True
        with self._process.stdout as stdout:
            read = stdout.fileno()
            head = b""
            mark = self._mark + b"\n"
            while data := self._some(read):
                head += data
                at = head.find(mark)
                if at >= 0:
                    if rest := head[at + len(mark) :]:
                        yield rest
                    break
            while data := self._some(read):
                yield data

    def answer(self, *words: str, scope: Scope) -> Answer | None:
        """Wait for the first answer with one of `words`, or None when the stream has ended.

        Raises as `scope.checkpoint`.
        """
        with self._news:
            while True:
                for answer in self._answers:
                    if answer.word in words:
                        return answer
                if self._done:
                    return None
                scope.checkpoint()
                self._news.wait(LOOK)

    def answers(self) -> list[Answer]:
        """Return what has been answered so far."""
        with self._news:
            return list(self._answers)

    def warnings(self) -> list[str]:
        """Return what the far side thinks that the user should know."""
        return [answer.rest for answer in self.answers() if answer.word == "warn"]

    def finish(self, limit: float) -> Exception | None:
        """Wait for the end; return what broke the connection, or None if nothing did."""
        self._listener.join(limit)
        code = self._waited(limit)
        if code is None:
            return Unreachable(f"{self._transport.where} does not answer")
        self._let_go()
        return self._transport.failure(code, b"".join(self._noise)) if code else None

    @property
    def failed(self) -> bool:
        """Whether the command over there ended with an error."""
        return self._process.poll() not in {None, 0}

    def words(self) -> str:
        """Return the host's own words: the last line that was not an answer of ours."""
        lines = b"".join(self._noise).decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def close(self) -> None:
        """End the request on our side. What it started on the far side is not touched."""
        self._closed = True
        self._process.kill()
        self._waited(KILL_LIMIT)
        self._let_go()

    def _some(self, descriptor: int) -> bytes:
        """Read; b"" at the end, or once closed: on this machine others may hold the pipe open."""
        ready = poll()
        ready.register(descriptor, POLLIN)
        while not ready.poll(LOOK * 1000):
            if self._closed:
                return b""
        return _read(descriptor)

    def _waited(self, limit: float) -> int | None:
        """Return the exit code, None if there is none within `limit` seconds."""
        try:
            return self._process.wait(limit)
        except Exception as error:
            from subprocess import TimeoutExpired  # costs 10 ms, which only this case needs

            if isinstance(error, TimeoutExpired):
                return None
            raise

    def _let_go(self) -> None:
        """Close the pipes that nobody reads; who reads one closes it himself."""
        if not self._payload_read:
            self._process.stdout.close()
        if not self._process.stdin.closed:
            with suppress(OSError):
                self._process.stdin.close()

    def _listen(self) -> None:
        with self._process.stderr as stderr:
            for line in stderr:
                self._heard(line)
        with self._news:
            self._done = True
            self._news.notify_all()

    def _heard(self, line: bytes) -> None:
        if not line.startswith(self._mark):
            self._noise.append(line)
            return
        word, _, rest = line[len(self._mark) :].decode(errors="replace").strip().partition(" ")
        with self._news:
            self._answers.append(Answer(word, rest))
            self._news.notify_all()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""
