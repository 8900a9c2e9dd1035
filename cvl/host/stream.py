"""One request to a machine while it is under way: bytes one way, answers and bytes the other.

The other side may be slow, stuck, or mean: every wait here ends with a `Scope`, also one in the
midst of reading or writing, and of what comes no more is kept than `answers` and `most` say.

A login shell may write before us, after us and beside us, on both channels. So an answer is looked
for anywhere on either, a payload stands between two marks on stdout, and a request is `complete`
only when it has said so: an exit status, or that nothing more comes, is no answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from select import POLLIN, POLLOUT, poll

from cvl.core.errors import Silent, Unreachable, Unreadable
from cvl.core.interfaces import Process, Transport
from cvl.core.printable import plain
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.host.answers import Answer, AnswerReader
from cvl.host.request import DEAF, OURS, SHELL
from cvl.host.silence import Silence

__all__ = ["Answer", "Stream"]

CHUNK = 1 << 18
KILL_LIMIT = 5.0
LOOK = 0.2
"""Seconds between two looks at whether somebody has asked to stop."""
SLOW_LIMIT = 300.0
"""Seconds until the end, of a host that goes on answering, however slowly."""
MARK_LIMIT = 120.0
"""Seconds until the line that says where a payload begins."""
LINGER = 0.5
"""Seconds that a host may go on once all of its answer has come; then it is let go."""
COURSE = frozenset({"send", "end"})
"""Answers that say how far a request is."""
PRINTED = frozenset({"exec sh -c '", "exec sh -c", "sh -c '", "sh -c"})
"""What stands before a command of ours where that is printed."""
QUOTED = 300
"""Characters of the host's own words that are shown."""


class Stream:
    """One request under way: its payload out as bytes, its answers as they come."""

    def __init__(
        self,
        process: Process,
        nonce: str,
        transport: Transport,
        silence: Silence | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        """`quiet`: once its payload has begun, it owes us nothing for as long as it likes."""
        self._process = process
        self._echo = b"cvl " + nonce.encode()
        mark = f"cvl:{nonce}".encode()
        self._begin, self._end = mark + b"\n", b"\0" + mark + b" end\n"
        self._transport = transport
        self._silence = silence or Silence(lambda: transport.where)
        self._quiet = quiet
        self._err, self._out = AnswerReader(mark), AnswerReader(mark)
        self._fault: Unreadable | None = None
        self._news = threading.Condition()
        self.whole = False
        """Whether the last piece of what was to be sent has been handed over, if only in part."""
        self._done = self._closed = False
        self._marked = self._ended_payload = False
        self._handed = self._claimed = False
        self._heard = 0
        self._rest = b""
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

    def payload(self, scope: Scope | None = None, *, most: int | None = None) -> Generator[bytes]:
        """Yield what stands between our two marks on stdout, as it comes; without them, nothing.

        Raises as `scope.checkpoint`, `Silent` when the first does not come, and `Unreadable` for
        more than `most` bytes.
        """
        scope, taken = scope or Scope(), 0
        with self._news:
            self._claimed = True
        with self._process.stdout as stdout:
            first = self._greeted(scope)
            for data in self._pieces(first, stdout.fileno(), scope) if self._marked else ():
                taken += len(data)
                if most is not None and taken > most:
                    raise self._refuse(f"answers with more than {most // 1000} kB")
                yield data

    def answer(self, *words: str, scope: Scope) -> Answer | None:
        """Wait for the first answer with one of `words`, or None when the stream has ended.

        Raises as `scope.checkpoint`.
        """
        with self._news:
            while True:
                for answer in self._all():
                    if answer.word in words:
                        return answer
                if self._done:
                    return None
                scope.checkpoint()
                self._silence.wait(scope)
                self._news.wait(LOOK)

    def answers(self) -> list[Answer]:
        """Return what has been answered so far, beside the course of the request itself."""
        with self._news:
            return [answer for answer in self._all() if answer.word not in COURSE]

    def said(self, word: str) -> bool:
        """Tell whether there is such an answer by now."""
        with self._news:
            return any(answer.word == word for answer in self._all())

    def finish(self, limit: float, scope: Scope | None = None) -> Exception | None:
        """Wait for the end; return what broke the connection, or None if nothing did.

        At most `limit` seconds without a word, `SLOW_LIMIT` in all, and no longer than `scope`, as
        which it raises.
        """
        outer = scope or Scope()
        code = self._ended(outer, limit)
        outer.checkpoint()
        if self._fault is None and self.complete:
            self.close()
            return None
        if code is None:
            return self._fault or Silent(f"{self._transport.where} does not answer")
        self._let_go()
        return self._fault or (self._failure(code) if code else None)

    @property
    def code(self) -> int | None:
        """What the command over there ended with, None while it has not."""
        return self._process.poll()

    @property
    def mute(self) -> bool:
        """Whether nothing of ours has come, no answer and not the line before a payload."""
        with self._news:
            return not self._marked and not self._all()

    @property
    def complete(self) -> bool:
        """Whether all of the answer has come: a refusal, or what says that there is no more."""
        with self._news:
            return self._complete()

    @property
    def half(self) -> str:
        """Say which of the two channels has brought nothing of a whole answer, "" if neither."""
        if self.said("end") == self._ended_payload or self.complete:
            return ""
        return f"what it writes to {'stderr' if self._ended_payload else 'stdout'} does not arrive"

    def words(self) -> str:
        """Return the host's own last words, from stderr."""
        lines = plain(self._noise().decode(errors="replace")).splitlines()
        return lines[-1].strip()[:QUOTED] if lines else ""

    def unheard(self) -> str:
        """Say what a host did in place of our command, in its own words, of both channels."""
        with self._news:
            err, out = self._err.noise, self._out.noise
        code = self.code
        if self._echo in err or self._echo in out:
            return "it sends back what it is sent"
        if DEAF in err or DEAF in out:
            return "something over there, as .bashrc, reads what is sent to us"
        if code == SHELL:
            return "its login shell, or .bashrc, starts another shell in its place"
        err, out = (noise.partition(OURS)[0] for noise in (err, out))
        quoted = " / ".join(filter(None, map(_quoted, (err, out))))
        if quoted in PRINTED:
            return "it prints the command, and does not run it"
        said = f"it says: {quoted}" if quoted else "it says nothing"
        return said + ("" if code is None or code == 0 else f" (exit code {code})")

    def close(self) -> None:
        """End the request on our side. What it started on the far side is not touched."""
        self._closed = True
        self._process.kill()
        self._waited(KILL_LIMIT)
        self._let_go()

    def _greeted(self, scope: Scope) -> bytes:
        """Wait until what the login shell prints is over; return what came behind our mark."""
        limit = scope.within(MARK_LIMIT)
        try:
            with self._news:
                while not (self._handed or self._complete()):
                    limit.checkpoint()
                    self._silence.wait(scope)
                    self._news.wait(LOOK)
        except DeadlineExceeded:
            scope.checkpoint()
            raise Silent(f"{self._transport.where} does not answer") from None
        if self._fault:
            raise self._fault
        return self._rest

    def _pieces(self, data: bytes, descriptor: int, scope: Scope) -> Iterator[bytes]:
        """Yield the payload up to our second mark; what might be its beginning is held back."""
        while (at := data.find(self._end)) < 0:
            keep = _begun(data, self._end)
            if keep < len(data):
                yield data[: len(data) - keep]
            held = data[len(data) - keep :]
            more = self._some(descriptor, scope)
            if not more:
                if held:
                    yield held
                return
            data = held + more
        if at:
            yield data[:at]
        self._ended_payload = True
        self._pass(data[at + len(self._end) :], descriptor, scope)

    def _pass(self, data: bytes, descriptor: int, scope: Scope) -> None:
        """Pass over what the login shell prints behind us, until it ends or all is said."""
        while True:
            with self._news:
                self._hear(self._out, data)
            if self.complete or not (data := self._some(descriptor, scope)):
                return

    def _some(self, descriptor: int, scope: Scope) -> bytes:
        """Read; b"" at the end, or once closed: on this machine others may hold the pipe open."""
        ready = poll()
        ready.register(descriptor, POLLIN)
        scope.checkpoint()
        while not ready.poll(LOOK * 1000) and not self._fault:
            if self._closed or (self._ended_payload and self.complete):
                return b""
            scope.checkpoint()
            if not self._quiet:
                self._silence.wait(scope)
        data = b"" if self._fault else _read(descriptor)
        if self._fault:
            raise self._fault
        scope.heard()
        self._silence.heard()
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
            self._silence.wait(scope)
        scope.heard()
        self._silence.heard()

    def _ended(self, outer: Scope, limit: float) -> int | None:
        """Wait until all was heard and the command is over; return its exit code."""
        longest = outer.within(max(limit, SLOW_LIMIT))
        scope, heard = longest.within(limit), self._heard
        try:
            while self._listener.is_alive():
                self._listener.join(LOOK)
                if self.complete:
                    self._listener.join(LINGER)
                    break
                self._silence.wait(outer)
                if heard != self._heard:
                    scope, heard = longest.within(limit), self._heard
                    outer.heard()
                scope.checkpoint()
            while (code := self._waited(LOOK)) is None:  # a look is short beside any limit
                scope.checkpoint()
                if self.complete:
                    break
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

    def _failure(self, code: int) -> Exception | None:
        """Return what broke the connection; a host that says 255 itself may say why on stdout."""
        failure = self._transport.failure(code, self._noise())
        words = _quoted(self._out.noise)
        if type(failure) is Unreachable and words and not self._marked:
            return Unreachable(f"{failure}; it says: {words}", failure.hint)
        return failure

    def _let_go(self) -> None:
        """Close the pipes that nobody reads; who reads one closes it himself."""
        with self._news:
            self._closed = True
            if self._handed and not self._claimed:
                self._process.stdout.close()
        if not self._process.stdin.closed:
            with suppress(OSError):
                self._process.stdin.close()

    def _listen(self) -> None:
        """Hear stderr to its end, and stdout up to our mark: neither may be full meanwhile."""
        ready = poll()
        with self._process.stderr as stderr:
            err, out = stderr.fileno(), self._process.stdout.fileno()
            hearers = {err: self._took, out: self._met}
            for descriptor in hearers:
                ready.register(descriptor, POLLIN)
            while hearers and not self._closed:
                for descriptor, _ in ready.poll(LOOK * 1000):
                    if not hearers[descriptor](_read(descriptor)):
                        ready.unregister(descriptor)
                        del hearers[descriptor]
        with self._news:
            self._err.close()
            self._done = True
            self._hand_over()

    def _took(self, data: bytes) -> bool:
        """Hear `data` from stderr; return whether there is more to listen to."""
        with self._news:
            self._hear(self._err, data)
        return bool(data) and not self._fault

    def _met(self, data: bytes) -> bool:
        """Pass over what comes on stdout before our mark; return whether that goes on."""
        with self._news:
            head = self._rest + data
            before, mark, after = head.partition(self._begin)
            if self._echo in self._out.noise[-len(self._echo) :] + before:
                self._refuse("sends back what it is sent")
            if mark or not data:
                self._hear(self._out, before)
                self._marked, self._rest = bool(mark), after
                if mark:
                    self._silence.heard()
                self._hand_over()
                return False
            keep = _begun(head, self._begin)
            self._hear(self._out, head[: len(head) - keep])
            self._rest = head[len(head) - keep :]
        return not self._fault

    def _hear(self, channel: AnswerReader, data: bytes) -> None:
        """Take `data` in; any sense in it is a sign of life."""
        before = len(self._all())
        fault = channel.take(data)
        self._heard += len(data)
        if fault:
            self._refuse(f"sends {fault}")
        if self._marked or len(self._all()) > before:
            self._silence.heard()
        self._news.notify_all()

    def _hand_over(self) -> None:
        """Leave stdout to whoever reads the payload; if there will be none, close it."""
        self._handed = True
        if self._closed and not self._claimed:
            self._process.stdout.close()
        self._news.notify_all()

    def _complete(self) -> bool:
        for answer in self._all():
            if answer.word in {"fail", "need"}:
                return True
            if answer.word == "end" and (self._ended_payload or not answer.rest):
                return True
        return False

    def _all(self) -> list[Answer]:
        return [*self._err.answers, *self._out.answers]

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
            return self._err.noise


def _begun(data: bytes, mark: bytes) -> int:
    """Return how many of the last bytes of `data` may be the beginning of a mark."""
    tail = data[1 - len(mark) :]
    at = tail.find(mark[:1])
    while at >= 0 and not mark.startswith(tail[at:]):
        at = tail.find(mark[:1], at + 1)
    return len(tail) - at if at >= 0 else 0


def _quoted(noise: bytes) -> str:
    """Return the last lines of what a host said, as one."""
    lines = plain(noise.decode(errors="replace")).splitlines()
    return " ".join(line.strip() for line in lines if line.strip())[-QUOTED:]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""
