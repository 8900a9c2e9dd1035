"""A profile's `credential_process`: botocore waits for it without end, and takes all it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cvl.core import replies
from cvl.core.credential_program import Program, answer
from cvl.core.errors import AuthError

LIMIT = 60.0
"""Seconds that it may take; it may ask somebody."""
HINT = "run the profile's `credential_process` by hand to see what it says"


class CredentialProcess:
    """What botocore uses of a `Popen`. Its answer is a credential, or `AuthError` says why not."""

    returncode = 0

    def __init__(self, argv: Sequence[str], **_: Any) -> None:
        """Nothing is started yet."""
        self._argv = argv

    def communicate(self) -> tuple[bytes, bytes]:
        """Run it; return what it prints, a JSON object, and no words. Raises `AuthError`."""
        if not self._argv:
            raise AuthError("the AWS profile's credential_process is empty", HINT)
        program = Program(
            argv=self._argv,
            failure=", which gives the AWS credentials, failed",
            hint=HINT,
            silence=LIMIT,
            asking=LIMIT,
            terminal=bool(sys.stdin and sys.stdin.isatty()),
        )
        out = answer(program, lambda _: None)
        try:
            is_object = isinstance(replies.parsed(out), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise program.failed("it printed no JSON object")
        return out, b""
