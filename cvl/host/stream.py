"""One request to a machine while it is under way: bytes one way, answers and bytes the other.

The other side may be slow, stuck, or mean: every wait here ends with a `Scope`, also one in the
midst of reading or writing, and of what comes no more is kept than `answers` and `most` say.

A login shell may write before us, after us and beside us, on both channels. So an answer is looked
for anywhere on either, a payload stands between two marks on stdout, and a request is `complete`
only when it has said so: an exit status, or that nothing more comes, is no answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from select import POLLIN, POLLOUT, poll
from threading import Lock

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
    """One request under way: its payload out as bytes, its answers as they come.

    Whoever waits, for whatever, hears meanwhile what comes: so neither channel is ever full. Only
    `close` may be called in another thread.
    """

    def __init__(
        self,
        process: Process,
        nonce: str,
        transport: Transport,
        silence: Silence,
        *,
        quiet: bool = False,
    ) -> None:
        """`quiet`: once its payload has begun, it owes us nothing for as long as it likes."""
        self._process = process
        self._echo = b"cvl " + nonce.encode()
        mark = f"cvl:{nonce}".encode()
        self._marks = (mark + b"\n", b"\0" + mark + b" end\n")
        self._marked = 0
        self._transport = transport
        self._silence, self._quiet = silence, quiet
        self._err, self._out = AnswerReader(mark), AnswerReader(mark)
        self._fault: Unreadable | None = None
        self.whole = False
        """Whether the last piece of what was to be sent has been handed over, if only in part."""
        self._using = Lock()
        self._closed = False
        self._heard = 0
        self._rest = self._payload = self._pending = b""
        self._pipes = process.stdin, process.stdout, process.stderr
        self._stdin, self._stdout, self._stderr = (pipe.fileno() for pipe in self._pipes)
        self._open = {self._stdout, self._stderr}
        os.set_blocking(self._stdin, False)

    def hold(self, data: bytes) -> None:
        """Keep `data`: it goes out in one piece with what is sent next."""
        self._pending += data

    def send(self, data: bytes, scope: Scope) -> None:
        """Write to the far side. Raises as `scope.checkpoint`, and `BrokenPipeError`."""
        view = memoryview(self._pending + data if self._pending else data)
        self._pending = b""
        while view:
            try:
                with self._using:
                    if self._closed or self._fault:
                        raise BrokenPipeError
                    view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                self._look(scope, room=True)

    def end(self, scope: Scope) -> None:
        """Send what is held and close our end. Raises as `send`."""
        self.send(b"", scope)
        self._process.stdin.close()

    def payload(self, scope: Scope | None = None, *, most: int | None = None) -> Iterator[bytes]:
        """Yield what stands between our two marks on stdout, as it comes; without them, nothing.

        Raises as `scope.checkpoint`, `Silent` when the first does not come, and `Unreadable` for
        more than `most` bytes.
        """
        scope, taken = scope or Scope(), 0
        self._greeted(scope)
        while piece := self._piece(scope):
            taken += len(piece)
            if most is not None and taken > most:
                raise self._refuse(f"answers with more than {most // 1000} kB")
            yield piece
            scope.heard()  # while the piece was used, nobody listened

    def answer(self, *words: str, scope: Scope) -> Answer | None:
        """Wait for the first answer with one of `words`, or None when the stream has ended.

        Raises as `scope.checkpoint`.
        """
        while True:
            for answer in self._all():
                if answer.word in words:
                    return answer
            if self._over:
                return None
            self._look(scope)

    def answers(self) -> list[Answer]:
        """Return what has been answered so far, beside the course of the request itself."""
        return [answer for answer in self._all() if answer.word not in COURSE]

    def said(self, word: str) -> bool:
        """Tell whether there is such an answer by now."""
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
    def mute(self) -> bool:
        """Whether nothing of ours has come, no answer and not the line before a payload."""
        return not self._marked and not self._all()

    @property
    def complete(self) -> bool:
        """Whether all of the answer has come: a refusal, or what says that there is no more."""
        for answer in self._all():
            if answer.word in {"fail", "need"}:
                return True
            if answer.word == "end" and (self._paid or not answer.rest):
                return True
        return False

    @property
    def half(self) -> str:
        """Say which of the two channels has brought nothing of a whole answer, "" if neither."""
        if self.said("end") == self._paid or self.complete:
            return ""
        return f"what it writes to {'stderr' if self._paid else 'stdout'} does not arrive"

    def words(self) -> str:
        """Return the host's own last words, from stderr."""
        lines = plain(self._err.noise.decode(errors="replace")).splitlines()
        return lines[-1].strip()[:QUOTED] if lines else ""

    def unheard(self) -> str:
        """Say what a host did in place of our command, in its own words, of both channels."""
        err, out = self._err.noise, self._out.noise
        code = self._process.poll()
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

    @property
    def _paid(self) -> bool:
        """Whether all of the payload has come."""
        return self._marked == len(self._marks)

    @property
    def _over(self) -> bool:
        """Whether no answer comes any more: behind our first mark, stdout has none."""
        left = self._open - {self._stdout} if self._marked else self._open
        return self._closed or self._fault is not None or not left

    @property
    def _printing(self) -> bool:
        """Whether more may come on stdout that is ours."""
        ended = self._closed or self._fault is not None or self._stdout not in self._open
        return not ended and (self._marked == 1 or not self.complete)

    def _greeted(self, scope: Scope) -> None:
        """Wait until what the login shell prints is over."""
        limit = scope.within(MARK_LIMIT)
        try:
            while not self._marked and self._printing:
                self._look(limit)
        except DeadlineExceeded:
            scope.checkpoint()
            raise Silent(f"{self._transport.where} does not answer") from None

    def _piece(self, scope: Scope) -> bytes:
        """Wait for more of the payload; return b"" when it is over, and so is what is behind it."""
        while self._marked and not self._payload and self._printing:
            self._look(scope, payload=True)
        if self._fault:
            raise self._fault
        piece, self._payload = self._payload, b""
        return piece

    def _look(self, scope: Scope, *, room: bool = False, payload: bool = False) -> None:
        """Take in what comes within `LOOK` seconds; behind our mark on stdout only for `payload`.

        `room`: or wait until more can be written. Raises as `scope.checkpoint`.
        """
        scope.checkpoint()
        if not (payload and self._quiet):
            self._silence.wait(scope)
        heard = self._open if payload or not self._marked else self._open - {self._stdout}
        ready = poll()
        with self._using:  # nobody closes them meanwhile
            if self._closed:
                return
            for descriptor in heard:
                ready.register(descriptor, POLLIN)
            if room:
                ready.register(self._stdin, POLLOUT)
            came = [descriptor for descriptor, _ in ready.poll(LOOK * 1000)]
            read = {each: _read(each) for each in came if each != self._stdin}
        for descriptor, data in read.items():
            self._take(descriptor, data)
        if self._stdin in came or (self._marked and self._stdout in came):
            scope.heard()
            self._silence.heard()

    def _take(self, descriptor: int, data: bytes) -> None:
        self._heard += len(data)
        if not data:
            self._open.discard(descriptor)
        if descriptor == self._stdout:
            self._printed(data)
        else:
            self._hear(self._err, data)

    def _printed(self, data: bytes) -> None:
        """Take stdout in: what might be the beginning of a mark is held back while more comes.

        Behind the first one it stays so: what has come of the second is no part of a payload.
        """
        data = self._rest + data
        while not self._paid and self._marks[self._marked] in data:
            part, _, data = data.partition(self._marks[self._marked])
            self._part(part)
            self._marked += 1
        ends = self._paid or (not self._marked and self._stdout not in self._open)
        keep = 0 if ends else _begun(data, self._marks[self._marked])
        self._rest = data[len(data) - keep :]
        self._part(data[: len(data) - keep])

    def _part(self, data: bytes) -> None:
        """Take in what stands before, between or behind our marks."""
        if self._marked == 1:
            self._payload += data
            return
        if not self._marked and self._echo in self._out.noise[-len(self._echo) :] + data:
            self._refuse("sends back what it is sent")
        self._hear(self._out, data)

    def _hear(self, channel: AnswerReader, data: bytes) -> None:
        """Take `data` in; any sense in it is a sign of life."""
        before = len(self._all())
        fault = channel.take(data)
        if fault:
            self._refuse(f"sends {fault}")
        if self._marked or len(self._all()) > before:
            self._silence.heard()

    def _ended(self, outer: Scope, limit: float) -> int | None:
        """Wait until all was heard and the command is over; return its exit code."""
        longest = outer.within(max(limit, SLOW_LIMIT))
        scope, heard = longest.within(limit), self._heard
        try:
            while not (self._over or self.complete):
                self._look(scope)
                if heard != self._heard:
                    scope, heard = longest.within(limit), self._heard
                    outer.heard()
            with suppress(DeadlineExceeded):
                lingers = outer.within(LINGER)
                while not self._over:
                    self._look(lingers)
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
        failure = self._transport.failure(code, self._err.noise)
        words = _quoted(self._out.noise)
        if type(failure) is Unreachable and words and not self._marked:
            return Unreachable(f"{failure}; it says: {words}", failure.hint)
        return failure

    def _let_go(self) -> None:
        """Close the pipes, when nobody uses them."""
        self._closed = True
        with self._using:
            for pipe in self._pipes:
                with suppress(OSError):
                    pipe.close()

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
