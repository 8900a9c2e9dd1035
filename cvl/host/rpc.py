"""Speaks to the shell files on a machine: requests, answers, streams (docs/far-side.md).

No user data is ever part of a command line: the command is a constant, everything else travels
on its standard input.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from cvl.core.errors import CvlError, NotReady, Silent, Unknown, Unreachable, UsageError
from cvl.core.interfaces import Transport
from cvl.core.octets import octets
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.host.request import PREFACE, REQUEST, SCRIPT
from cvl.host.shell_files import library
from cvl.host.silence import Silence
from cvl.host.stream import Answer, Stream

ASK_LIMIT = 120.0
"""Seconds that a request without a stream may take."""
ANSWER = 1 << 20
"""Bytes that its payload may have: 10,000 runs, a line each."""

INSTALL = (
    "umask 077; export LC_ALL=C; lib=%s; "
    "new=$base/lib/.$lib.$$; "
    'mkdir -p "$new" && tar -xof - -C "$new" || exit 1; '
    "old=$base/lib/$lib; "
    'test -d "$old" || rm -f "$old"; test -d "$old" || mv "$new" "$old"; '
    'if test -d "$new"; then chmod 700 "$old"; '
    'for file in "$old"/*; do test ! -d "$file" || rm -rf "$file"; done; '
    'mv -f "$new"/* "$old"; rm -rf "$new"; fi; '
    'test -r "$old/supervisor.sh" || exit 1'
)
"""What puts our files into lib/<hash>, from a tar.

Those that are there already are replaced, each by a rename: they may be damaged.
"""
LOOK = 'test ! -d "$base" || echo yes'
"""What tells whether there is a base at all."""

Headers = Sequence[tuple[str, str]]


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
        self.silence = Silence(lambda: self.transport.where)

    def exists(self, scope: Scope | None = None) -> bool:
        """Return whether our folder is there. Raises `HostError`, and as `scope.checkpoint`."""
        return self.output(LOOK, scope=scope) == b"yes\n"

    def output(
        self,
        text: str,
        data: bytes = b"",
        limit: float | None = None,
        scope: Scope | None = None,
    ) -> bytes:
        """Return what `script` prints. Raises as that does, and where its end did not come."""
        stream, printed = self.script(text, data, limit, scope)
        if not stream.complete:
            raise self.unanswered(stream)
        return printed

    def script(
        self,
        text: str,
        data: bytes = b"",
        limit: float | None = None,
        scope: Scope | None = None,
    ) -> tuple[Stream, bytes]:
        """Have a shell there run `text`, which needs none of our files and gets `data` on stdin.

        Return the request, which is over but need not be `complete`, and what it printed. The
        script finds `$base` and `$nonce` set. Raises `HostError`: what the connection says, that
        no command of ours is run, `Silent` after `limit` seconds (`ASK_LIMIT`); and as `scope`.
        """
        limit, nonce = ASK_LIMIT if limit is None else limit, _nonce()
        code = octets(text)
        with self.within(limit, scope) as until:
            stream = self.stream(SCRIPT, nonce)
            stream.hold(_opening(nonce, f"{len(code)} {self.base}") + code)
            try:
                self.deliver(stream, [data], until)
                said = b"".join(stream.payload(until, most=ANSWER))
                failure = stream.finish(limit, until)
            finally:
                stream.close()
        if failure or stream.mute or stream.half:
            raise failure or self.unanswered(stream)
        return stream, said

    def stream(self, argv: Sequence[str], nonce: str, *, quiet: bool = False) -> Stream:
        """Start one of the commands of `request`."""
        process = self.transport.start(argv)
        return Stream(process, nonce, self.transport, self.silence, quiet=quiet)

    def begin(self, verb: str, headers: Headers) -> Stream:
        """Start a request; its head goes out with the first that is sent of the rest."""
        nonce = _nonce()
        lines = [f"nonce {nonce}", f"verb {verb}"]
        lines += [f"{key} {value}" for key, value in headers]
        stream = self.stream(REQUEST, nonce, quiet=verb in {"start", "follow"})
        head = octets("\n".join([*lines, "", ""]))
        stream.hold(_opening(nonce, f"{library().hash} {self.base}") + head)
        return stream

    def open(
        self, verb: str, headers: Headers, payload: bytes = b"", scope: Scope | None = None
    ) -> Stream:
        """Send a request; return its stream once everything has been sent.

        Raises as `scope.checkpoint`, and `Silent` when nothing is taken for `ASK_LIMIT` seconds.
        """
        stream = self.begin(verb, headers)
        try:
            with self.patient(scope or Scope()) as limit:
                self.deliver(stream, [payload], limit)
        except BaseException:
            stream.close()
            raise
        return stream

    def deliver(self, stream: Stream, payload: Iterable[bytes], scope: Scope) -> None:
        """Send a payload, the last piece once it is known to be that, and close our end.

        Raises as the pieces do, and as `scope.checkpoint`.
        """
        last = b""
        with suppress(ConnectionError):  # it refused early; its answers say why
            for piece in payload:
                scope.heard()  # while the piece was made, nothing could be taken
                if last:
                    stream.send(last, scope)
                last = piece
            stream.whole = True
            stream.send(last, scope)
            stream.end(scope)

    def ask(
        self, verb: str, headers: Headers, payload: bytes = b"", scope: Scope | None = None
    ) -> tuple[list[Answer], bytes]:
        """Send a request and wait for all of its answer: the lines, and the payload.

        Installs our shell files first where they are missing. Raises `HostError`: `Silent` after
        `ASK_LIMIT` seconds, `Unreadable` for a payload of more than `ANSWER` bytes; and as
        `scope.checkpoint`.
        """
        answers: list[Answer] = []
        with self.within(ASK_LIMIT, scope) as limit:
            pieces = self.pieces(verb, headers, limit, answers, payload=payload, most=ANSWER)
            return answers, b"".join(pieces)

    def pieces(
        self,
        verb: str,
        headers: Headers,
        scope: Scope,
        answers: list[Answer],
        *,
        payload: bytes = b"",
        most: int | None = None,
    ) -> Iterator[bytes]:
        """As `ask`, for a payload that may be long: it is given as it comes, then `answers` filled.

        It takes as long as the scope allows.
        """
        for _ in range(2):
            stream = self.open(verb, headers, payload, scope)
            try:
                yield from stream.payload(scope, most=most)
                failure = stream.finish(ASK_LIMIT, scope)
            finally:
                stream.close()
            if not self.supply(stream, failure, scope):
                self.check(stream, stream.answers(), failure)
                answers += stream.answers()
                return
        raise self.loses()

    @contextmanager
    def within(self, seconds: float, scope: Scope | None = None) -> Iterator[Scope]:
        """Give a scope of `seconds` at most, whose own end is `Silent`."""
        outer = scope or Scope()
        with self._silent_after(outer.within(seconds), outer) as limit:
            yield limit

    @contextmanager
    def patient(self, scope: Scope, seconds: float | None = None) -> Iterator[Scope]:
        """Give a scope that is over when nothing comes for `seconds` (`ASK_LIMIT`): `Silent`."""
        longest = ASK_LIMIT if seconds is None else seconds
        with self._silent_after(scope.patient(lambda: longest), scope) as limit:
            yield limit

    @contextmanager
    def _silent_after(self, limit: Scope, outer: Scope) -> Iterator[Scope]:
        try:
            yield limit
        except DeadlineExceeded:
            outer.checkpoint()
            raise Silent(
                f"{self.transport.where} takes the connection but does not answer",
                "its login shell or its disk may be stuck: does `ssh HOST true` return?",
            ) from None

    def loses(self) -> NotReady:
        """Return the error for a machine whose shell files do not work, though just installed."""
        return NotReady(
            f"{self.transport.where} does not run what is in {self.shown}/lib, or loses it",
            f"does a job change it? End that, then remove {self.shown}/lib there",
        )

    def supply(self, stream: Stream, failure: Exception | None, scope: Scope) -> bool:
        """Install our shell files if the request that ended lacked them; return whether we did.

        They are damaged where it ended without a word of ours, or the host runs nothing at all.
        Raises as `install`.
        """
        lacks = Answer("need", f"lib {library().hash}") in stream.answers()
        if not lacks and (failure or not stream.mute):
            return False
        self.install(library().hash, library().archive(), scope)
        return True

    def install(self, lib_hash: str, archive: bytes, outer: Scope | None = None) -> None:
        """Unpack a tar into lib/<hash> there. Raises `HostError`, and as `outer.checkpoint`."""
        stream, _ = self.script(INSTALL % lib_hash, archive, scope=outer)
        if not stream.complete:
            words = stream.words()
            why = next((why for mark, why in WHY.items() if mark in words), "")
            raise NotReady(
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
        if not stream.complete:
            raise self.unanswered(stream)

    def unanswered(self, stream: Stream) -> CvlError:
        """Return the error for a request that ended without (all of) an answer of ours."""
        where = self.transport.where
        if not (stream.mute or stream.half):
            return Unreachable(f"{where} broke off its answer")
        return NotReady(
            f"{where} did not run our command: {stream.half or stream.unheard()}",
            "`ssh HOST 'echo yes'` has to say yes, with a POSIX sh on its PATH",
        )

    def refused(self, rest: str) -> CvlError:
        """Return the error for a `fail WORD TEXT` answer."""
        word, _, text = rest.partition(" ")
        kind = Unknown if word == "unknown" else NotReady
        return kind(f"{self.transport.where}: {text or word}", HINTS.get(word, ""))

    @property
    def shown(self) -> str:
        """The base folder, for a person."""
        return self.base or "~/.cvl"


HINTS = {
    "unknown": "it was removed there",
    "space": "free some space there, or name another disk: --docker HOST --remote-workdir DIR",
    "readonly": "name a folder that can be written: --docker HOST --remote-workdir DIR",
    "docker": "start Docker there, let your user use it (group docker), or name its socket in "
    "DOCKER_HOST, where your shell sets variables there",
}


WHY = {
    "o space": "space",
    "rote only": "space",
    "uota": "space",
    "ead-only": "readonly",
    "ermission denied": "readonly",
}
"""What the host's own words stand for; INSTALL has it speak C."""


def _nonce() -> str:
    return os.urandom(8).hex()  # `secrets` takes 3 ms to load


def _opening(nonce: str, rest: str) -> bytes:
    """Return what the standard input of our commands begins with (`request`)."""
    return PREFACE + octets(f"cvl {nonce} {rest}\n")
