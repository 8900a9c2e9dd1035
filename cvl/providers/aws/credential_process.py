"""A profile's `credential_process`: run for so long, heard for so many bytes, and then ended.

botocore waits for it without end and takes whatever it prints. On a terminal it stays in our
process group, for it may ask for a code there; elsewhere it leads one of its own, which ends as a
whole, also when we do.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from subprocess import TimeoutExpired
from typing import Any

from cvl.core import child_process, replies
from cvl.core.errors import AuthError
from cvl.core.scope import Scope

LIMIT = 60.0
"""Seconds that it may take; it may ask somebody."""
MOST = 1 << 20
"""Bytes that it may print."""
BLOCK, LOOK = 1 << 16, 0.1
LAST = 300
"""Characters of its last words that are shown."""
HINT = "run the profile's `credential_process` by hand to see what it says"


class CredentialProcess:
    """What botocore uses of a `Popen`. Its answer is a credential, or `AuthError` says why not."""

    def __init__(self, argv: Sequence[str], **_: Any) -> None:
        """Start it. Raises `AuthError`."""
        if not argv:
            raise AuthError("the AWS profile's credential_process is empty", HINT)
        self._name = argv[0]
        terminal = bool(sys.stdin and sys.stdin.isatty())
        try:
            self._process = child_process.asked(argv, terminal=terminal)
        except (OSError, ValueError) as error:
            raise self._failed(getattr(error, "strerror", None) or str(error)) from error
        self.returncode = 0

    def communicate(self) -> tuple[bytes, bytes]:
        """Return what it prints, a JSON object, and its words. Raises `AuthError`."""
        out, words = bytearray(), bytearray()
        try:
            self._hear(out, words)
        finally:
            child_process.dismissed(self._process)
        if self._process.returncode:
            raise self._failed(_last(words) or f"it ended with {self._process.returncode}")
        try:
            is_object = isinstance(replies.parsed(bytes(out)), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise self._failed("it printed no JSON object")
        return bytes(out), bytes(words)

    def _hear(self, out: bytearray, words: bytearray) -> None:
        """Take what comes until it has ended; a child of its may keep the pipes for itself."""
        limit = Scope(seconds=LIMIT)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        buffers = {self._process.stdout: out, self._process.stderr: words}
        while buffers:
            ended = self._process.poll() is not None
            ready, _, _ = select.select([*buffers], [], [], 0 if ended else LOOK)
            for pipe in ready:
                data = os.read(pipe.fileno(), BLOCK)
                buffers[pipe].extend(data)
                if not data:
                    del buffers[pipe]
            if len(out) + len(words) > MOST:
                raise self._failed(f"it printed more than {MOST >> 20} MB")
            if ended and not ready:
                break
            if limit.remaining() == 0:
                raise self._failed(f"no answer within {LIMIT:g} s")
        try:
            self._process.wait(limit.remaining())
        except TimeoutExpired:
            raise self._failed(f"no answer within {LIMIT:g} s") from None

    def _failed(self, why: str) -> AuthError:
        return AuthError(f"{self._name}, which gives the AWS credentials, failed: {why}", HINT)


def _last(words: bytearray) -> str:
    lines = words.decode(errors="replace").split("\n")
    return next((line.strip()[:LAST] for line in reversed(lines) if line.strip()), "")
