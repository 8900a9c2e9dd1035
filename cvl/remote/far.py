"""Speaks to the shell files on a machine: requests, answers, streams (docs/far-side.md).

No user data is ever part of a command line: the command is a constant, everything else travels
on its standard input.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pkgutil import get_data
from select import POLLIN, poll
from typing import IO

from cvl.errors import CvlError, NotReady, Unreachable, UsageError
from cvl.provider import Process, Transport
from cvl.scope import Scope
from cvl.spec import Cause, ExitStatus

CHUNK = 1 << 18
ASK_LIMIT = 120.0
"""Seconds that a request without a stream may take."""
KILL_LIMIT = 5.0
LOOK = 0.2
"""Seconds between two looks at whether somebody has asked to stop."""

REQUEST = (
    "read -r lib base; base=${base:-$HOME/.cvl}; file=$base/lib/$lib/supervisor.sh; "
    'test -r "$file" && exec sh "$file" "$base" "$lib"; '
    'read -r key nonce; echo "cvl:$nonce need lib $lib" >&2; exit 1'
)
"""What every request is. No user data is in it; no single quote and no newline either."""
INSTALL = (
    "umask 077; export LC_ALL=C; read -r lib base; base=${base:-$HOME/.cvl}; "
    "new=$base/lib/.$lib.$$; "
    'mkdir -p "$new" && tar -xof - -C "$new" || exit 1; '
    'test -d "$base/lib/$lib" || mv "$new" "$base/lib/$lib"; rm -rf "$new"; '
    'test -d "$base/lib/$lib"'
)
"""What puts files into lib/<hash>: the hash and the base on the first line, then a tar."""

Headers = Sequence[tuple[str, str]]
Feed = Callable[[IO[bytes]], None]
"""Writes a request's payload."""


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


class FarSide:
    """One machine's cvl folder, reached through a transport."""

    def __init__(self, transport: Transport, base: str = "") -> None:
        """`base` is an absolute folder there; "" is `~/.cvl`. Raises `UsageError`."""
        if "\n" in base or "\0" in base or (base and not base.startswith("/")):
            raise UsageError(
                f"{base!r} cannot be a folder on {transport.where}",
                "give an absolute path without newlines",
            )
        self.transport = transport
        self.base = base

    def open(self, verb: str, headers: Headers, feed: Feed | bytes = b"") -> Stream:
        """Send a request; return its stream once everything has been sent."""
        nonce = secrets.token_hex(8)
        process = self.transport.start(("sh", "-c", REQUEST))
        stream = Stream(process, nonce, self.transport)
        lines = [f"{library().hash} {self.base}", f"nonce {nonce}", f"verb {verb}"]
        lines += [f"{key} {value}" for key, value in headers]
        try:
            process.stdin.write("\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"))
            if isinstance(feed, bytes):
                process.stdin.write(feed)
            else:
                feed(process.stdin)
            process.stdin.close()
        except (BrokenPipeError, ConnectionError):
            pass  # it refused early; its answers say why
        except BaseException:
            stream.close()
            raise
        return stream

    def ask(self, verb: str, headers: Headers, payload: bytes = b"") -> tuple[list[Answer], bytes]:
        """Send a request and wait for all of its answer: the lines, and the payload.

        Installs our shell files first where they are missing. Raises `HostError`.
        """
        for _ in range(2):
            stream = self.open(verb, headers, payload)
            body = b"".join(stream.payload())
            failure = stream.finish(ASK_LIMIT)
            answers = stream.answers()
            if not self.supply(answers):
                self.check(stream, answers, failure)
                return answers, body
        raise NotReady(f"{self.transport.where} loses what is installed in {self.shown}")

    def supply(self, answers: Sequence[Answer]) -> bool:
        """Install our shell files if these answers ask for them; return whether they did."""
        if Answer("need", f"lib {library().hash}") not in answers:
            return False
        self.install(library().hash, library().archive())
        return True

    def install(self, lib_hash: str, archive: bytes) -> None:
        """Unpack a tar into lib/<hash> there, once, atomically. Raises `NotReady`."""
        process = self.transport.start(("sh", "-c", INSTALL))
        stream = Stream(process, "-", self.transport)
        try:
            process.stdin.write(f"{lib_hash} {self.base}\n".encode())
            process.stdin.write(archive)
            process.stdin.close()
        except (BrokenPipeError, ConnectionError):
            pass
        failure = stream.finish(ASK_LIMIT)
        if failure or process.poll():
            words = stream.words()
            why = next((why for mark, why in WHY.items() if mark in words), "")
            raise failure or NotReady(
                f"cannot write to {self.shown} on {self.transport.where}: {words}",
                HINTS.get(why, "is the home folder writable, and is there space on the disk?"),
            )

    def check(self, stream: Stream, answers: Sequence[Answer], failure: Exception | None) -> None:
        """Raise what the answers or the connection say went wrong, if anything did."""
        for answer in answers:
            if answer.word == "fail":
                raise self.refused(answer.rest)
        if failure:
            raise failure
        if not answers and stream.failed:
            raise NotReady(
                f"{self.transport.where} did not run our command: {stream.words()}",
                "does `ssh HOST true` work, and is there a POSIX sh on its PATH?",
            )

    def refused(self, rest: str) -> CvlError:
        """Return the error for a `fail WORD TEXT` answer."""
        word, _, text = rest.partition(" ")
        return NotReady(f"{self.transport.where}: {text or word}", HINTS.get(word, ""))

    @property
    def shown(self) -> str:
        """The base folder, for a person."""
        return self.base or "~/.cvl"


HINTS = {
    "space": "free some space there, or name another disk: --docker HOST --remote-workdir DIR",
    "readonly": "name a folder that can be written: --docker HOST --remote-workdir DIR",
    "docker": "start Docker there, or let your user use it (group docker)",
}


WHY = {
    "o space": "space",
    "uota": "space",
    "ead-only": "readonly",
    "ermission denied": "readonly",
}
"""What the host's own words stand for; INSTALL has it speak C."""

SHELL_FILES = (
    "alive.sh",
    "cache.sh",
    "changes.sh",
    "clean.sh",
    "containers.sh",
    "docker.sh",
    "follow.sh",
    "prepare.sh",
    "run.sh",
    "start.sh",
    "supervisor.sh",
    "sweep.sh",
)
"""What is put into lib/<hash> on a machine. setup.sh is not: it installs cvl itself."""


@dataclass(frozen=True, slots=True)
class Library:
    """Our shell files, and the hash of what is in them."""

    hash: str
    files: Mapping[str, bytes]

    def archive(self) -> bytes:
        """Return them as one tar, each executable."""
        return tar_of(self.files)


@cache
def library() -> Library:
    """Return the shell files that belong to this version of cvl, also from inside a zipapp."""
    files = {name: _data(name) for name in SHELL_FILES}
    digest = blake2b(digest_size=16)
    for name, data in files.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return Library(digest.hexdigest(), files)


def tar_of(files: Mapping[str, bytes], mode: int = 0o700) -> bytes:
    """Return a tar of some small files that GNU, BSD and busybox tar can read."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _data(name: str) -> bytes:
    data: bytes | None = get_data("cvl.remote", name)
    assert data is not None, f"{name} is missing from this installation"
    return data


def result_of(answers: Sequence[Answer], run_id: str) -> ExitStatus | None:
    """Return the ending that a `result CAUSE CODE BYTES FLAGS` answer tells, if there is one."""
    for answer in answers:
        if answer.word == "result":
            cause, code, size, *flags = answer.rest.split()
            return ExitStatus(
                int(code),
                cause=Cause(cause),
                run_id=run_id,
                detail=" ".join(flags),
                log_bytes=int(size),
            )
    return None


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""
