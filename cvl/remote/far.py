"""Speaks to the shell files on a machine: requests, answers, streams (docs/far-side.md).

No user data is ever part of a command line: the command is a constant, everything else travels
on its standard input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO

from cvl.errors import CvlError, NotReady, UsageError
from cvl.provider import Transport
from cvl.remote.library import library
from cvl.remote.request import BASE, REQUEST
from cvl.remote.stream import Answer, Stream

ASK_LIMIT = 120.0
"""Seconds that a request without a stream may take."""

INSTALL = (
    f"umask 077; export LC_ALL=C; read -r lib base; {BASE}"
    "new=$base/lib/.$lib.$$; "
    'mkdir -p "$new" && tar -xof - -C "$new" || exit 1; '
    'test -d "$base/lib/$lib" || mv "$new" "$base/lib/$lib"; rm -rf "$new"; '
    'test -d "$base/lib/$lib"'
)
"""What puts files into lib/<hash>: the hash and the base on the first line, then a tar."""
LOOK = f'read -r lib base; {BASE}test -d "$base"'
"""What tells by its exit status whether there is a base at all."""

Headers = Sequence[tuple[str, str]]
Feed = Callable[[IO[bytes]], None]
"""Writes a request's payload."""


class FarSide:
    """One machine's cvl folder, reached through a transport."""

    def __init__(self, transport: Transport, base: str = "") -> None:
        """`base` is a folder there, absolute or `~/x`; "" is `~/.cvl`. Raises `UsageError`."""
        if "\n" in base or "\0" in base or (base and not base.startswith(("/", "~/"))):
            raise UsageError(
                f"{base!r} cannot be a folder on {transport.where}",
                "give an absolute path, or one that begins with ~/, without newlines",
            )
        self.transport = transport
        self.base = base

    def exists(self) -> bool:
        """Return whether our folder is there. Raises `HostError`."""
        process = self.transport.start(("sh", "-c", LOOK))
        with process.stdout, process.stderr as stderr:
            with suppress(BrokenPipeError, ConnectionError), process.stdin as stdin:
                stdin.write(f"- {self.base}\n".encode("utf-8", "surrogateescape"))
            words, code = stderr.read(), process.wait(ASK_LIMIT)
        if failure := self.transport.failure(code, words):
            raise failure
        return code == 0

    def open(self, verb: str, headers: Headers, feed: Feed | bytes = b"") -> Stream:
        """Send a request; return its stream once everything has been sent."""
        nonce = os.urandom(8).hex()  # `secrets` takes 3 ms to load
        process = self.transport.start(REQUEST)
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
    "rote only": "space",
    "uota": "space",
    "ead-only": "readonly",
    "ermission denied": "readonly",
}
"""What the host's own words stand for; INSTALL has it speak C."""
