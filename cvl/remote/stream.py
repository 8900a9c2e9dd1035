"""One request to a machine while it is under way: bytes one way, answers and bytes the other.

The other side may be slow, stuck, or mean: every wait here ends with a `Scope`, also one in the
midst of reading or writing, and of what comes no more is kept than `hearing` and `most` say.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import suppress
from select import POLLIN, POLLOUT, poll

from cvl.errors import Silent, Unreadable
from cvl.provider import Process, Transport
from cvl.remote.hearing import Answer, Hearing
from cvl.scope import DeadlineExceeded, Scope

__all__ = ["Answer", "Stream"]

CHUNK = 1 << 18
KILL_LIMIT = 5.0
LOOK = 0.2
"""Seconds between two looks at whether somebody has asked to stop."""
SLOW_LIMIT = 300.0
"""Seconds until the end, of a host that goes on answering, however slowly."""
MARK_LIMIT = 120.0
"""Seconds until the line that says where a payload begins."""
GREETING = 1 << 20
"""Bytes that a login shell may print before that line."""


class Stream:
    """One request under way: its payload out as bytes, its answers as they come."""

    def __init__(self, process: Process, nonce: str, transport: Transport) -> None:
        self._process = process
        self._mark = f"cvl:{nonce}".encode()
        self._transport = transport
        self._hearing = Hearing(self._mark)
        self._fault: Unreadable | None = None
        self._news = threading.Condition()
        self._done = False
        self._heard = 0
        self._payload_read = self._closed = self._marked = False
        self._pending = b""
        os.set_blocking(process.stdin.fileno(), False)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def hold(self, data: bytes) -> None:
        """Keep `data`: it goes out in one piece with what is sent next."""
        self._pending += data

    def send(self, data: bytes, scope: Scope) -> None:
        """Write to the far side. Raises as `scope.checkpoint`, and `BrokenPipeError`."""
        view = memoryview(self._pending + data if self._pending else data)
        self._pending = b""
        descriptor = self._process.stdin.fileno()
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                self._room(descriptor, scope)

    def end(self, scope: Scope) -> None:
        """Send what is held and close our end. Raises as `send`."""
        self.send(b"", scope)
        self._process.stdin.close()

    def payload(
        self, scope: Scope | None = None, *, marked: bool = True, most: int | None = None
    ) -> Generator[bytes]:
        """Yield what follows the marker line on stdout, as it comes, to its end.

        Not `marked`: all of it. Raises as `scope.checkpoint`, `Silent` when the line does not
        come, and `Unreadable` for more than `most` bytes.
        """
        self._payload_read = True
        scope, taken = scope or Scope(), 0
        with self._process.stdout as stdout:
            read = stdout.fileno()
            rest = self._greeted(read, scope) if marked else b""
            while data := rest or self._some(read, scope):
                rest, taken = b"", taken + len(data)
                if most is not None and taken > most:
                    raise self._refuse(f"answers with more than {most // 1000} kB")
                yield data

    def answer(self, *words: str, scope: Scope) -> Answer | None:
        """Wait for the first answer with one of `words`, or None when the stream has ended.

        Raises as `scope.checkpoint`.
        """
        with self._news:
            while True:
                for answer in self._hearing.answers:
                    if answer.word in words:
                        return answer
                if self._done:
                    return None
                scope.checkpoint()
                self._news.wait(LOOK)

    def answers(self) -> list[Answer]:
        """Return what has been answered so far."""
        with self._news:
            return list(self._hearing.answers)

    def said(self, word: str) -> bool:
        """Tell whether there is such an answer by now."""
        with self._news:
            return any(answer.word == word for answer in self._hearing.answers)

    def warnings(self) -> list[str]:
        """Return what the far side thinks that the user should know."""
        return [answer.rest for answer in self.answers() if answer.word == "warn"]

    def finish(self, limit: float, scope: Scope | None = None) -> Exception | None:
        """Wait for the end; return what broke the connection, or None if nothing did.

        At most `limit` seconds without a word, `SLOW_LIMIT` in all, and no longer than `scope`, as
        which it raises.
        """
        outer = scope or Scope()
        code = self._ended(outer, limit)
        outer.checkpoint()
        if code is None:
            return self._fault or Silent(f"{self._transport.where} does not answer")
        self._let_go()
        return self._fault or (self._transport.failure(code, self._noise()) if code else None)

    @property
    def code(self) -> int | None:
        """What the command over there ended with, None while it has not."""
        return self._process.poll()

    @property
    def mute(self) -> bool:
        """Whether nothing of ours has come, no answer and not the line before a payload."""
        return not self._marked and not self.answers()

    @property
    def failed(self) -> bool:
        """Whether the command over there ended with an error."""
        return self.code not in {None, 0}

    def words(self) -> str:
        """Return the host's own words: the last line that was not an answer of ours."""
        lines = self._noise().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:400] if lines else ""

    def close(self) -> None:
        """End the request on our side. What it started on the far side is not touched."""
        self._closed = True
        self._process.kill()
        self._waited(KILL_LIMIT)
        self._let_go()

    def _greeted(self, descriptor: int, scope: Scope) -> bytes:
        """Pass over what the login shell prints; return what came behind our mark."""
        limit, mark, seen, head = scope.within(MARK_LIMIT), self._mark + b"\n", 0, b""
        try:
            while data := self._some(descriptor, limit):
                head += data
                at = head.find(mark)
                if at >= 0:
                    self._marked = True
                    return head[at + len(mark) :] or self._some(descriptor, scope)
                head = head[-len(mark) :]
                seen += len(data)
                if seen > GREETING:
                    raise self._refuse("prints without end before it runs anything")
        except DeadlineExceeded:
            scope.checkpoint()
            raise Silent(f"{self._transport.where} does not answer") from None
        return b""

    def _some(self, descriptor: int, scope: Scope) -> bytes:
        """Read; b"" at the end, or once closed: on this machine others may hold the pipe open."""
        ready = poll()
        ready.register(descriptor, POLLIN)
        scope.checkpoint()
        while not ready.poll(LOOK * 1000) and not self._fault:
            if self._closed:
                return b""
            scope.checkpoint()
        data = b"" if self._fault else _read(descriptor)
        if self._fault:
            raise self._fault
        scope.heard()
        return data

    def _room(self, descriptor: int, scope: Scope) -> None:
        """Wait until more can be written."""
        ready = poll()
        ready.register(descriptor, POLLOUT)
        scope.checkpoint()
        while not ready.poll(LOOK * 1000):
            if self._closed:
                raise BrokenPipeError
            scope.checkpoint()
        scope.heard()

    def _ended(self, outer: Scope, limit: float) -> int | None:
        """Wait until all was heard and the command is over; return its exit code."""
        longest = outer.within(max(limit, SLOW_LIMIT))
        scope, heard = longest.within(limit), self._heard
        try:
            while self._listener.is_alive():
                self._listener.join(LOOK)
                if heard != self._heard:
                    scope, heard = longest.within(limit), self._heard
                    outer.heard()
                scope.checkpoint()
            while (code := self._waited(min(LOOK, scope.remaining() or 0.0))) is None:
                scope.checkpoint()
        except DeadlineExceeded:
            return None
        return code

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
        ready = poll()
        with self._process.stderr as stderr:
            descriptor = stderr.fileno()
            ready.register(descriptor, POLLIN)
            while not self._closed:
                if ready.poll(LOOK * 1000) and not self._took(_read(descriptor)):
                    break
        with self._news:
            self._hearing.close()
            self._done = True
            self._news.notify_all()

    def _took(self, data: bytes) -> bool:
        """Hear `data`; return whether there is more to listen to."""
        with self._news:
            fault = self._hearing.take(data)
            self._heard += len(data)
            self._news.notify_all()
        if fault:
            self._refuse(f"sends {fault}")
        return bool(data) and not fault

    def _refuse(self, what: str) -> Unreadable:
        """End a request whose answer is none; return why."""
        self._fault = Unreadable(
            f"{self._transport.where} {what}: it is not listened to any more",
            "something on that machine is broken, or it is not what it should be",
        )
        self._process.kill()
        return self._fault

    def _noise(self) -> bytes:
        with self._news:
            return self._hearing.noise


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""
