"""A program of ours that does not outlive us, not even by a second, whatever kills us.

It and all that it starts are a process group. A small sh in that group holds the read end of a
pipe whose write end we hold: when we are gone, the pipe ends, and the sh ends the group: with
TERM, then with KILL. A line means that it may go.
(What Linux offers for this, PR_SET_PDEATHSIG, comes already when the *thread* is gone that started
the program.) An ssh that keeps a connection for others has left the group by then, and stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from subprocess import PIPE, Popen
from typing import IO

WATCH = (
    "{{ trap '' TERM; read -r _ && exit; kill -TERM -$$; sleep 1; kill -KILL -$$; }} "
    '</dev/fd/{end} >/dev/null 2>&1 & exec "$@"'
)
"""Run by an sh that leads its session and then becomes the program."""


class Leashed(Popen[bytes]):
    """As `Popen`, in a session of its own, and gone when we are."""

    def __init__(
        self,
        argv: Sequence[str | bytes],
        *,
        stdin: int | IO[bytes] = PIPE,
        stderr: int | IO[bytes] = PIPE,
        env: Mapping[str, str] | None = None,
        cwd: bytes | None = None,
    ) -> None:
        """Start `argv`, its stdout a pipe. An unknown program is found by its exit code, 127."""
        end, leash = os.pipe()
        self._leash = [leash]
        try:
            super().__init__(
                ["sh", "-c", WATCH.format(end=end), "sh", *argv],
                stdin=stdin,
                stdout=PIPE,
                stderr=stderr,
                env=env,
                cwd=cwd,
                start_new_session=True,
                pass_fds=(end,),
            )
        except BaseException:
            self.let_go()
            raise
        finally:
            os.close(end)

    def poll(self) -> int | None:
        return self._over(super().poll())

    def wait(self, timeout: float | None = None) -> int:
        code = super().wait(timeout)
        self._over(code)
        return code

    def let_go(self) -> None:
        """Tell the sh that watches to go. Safe in several threads at once."""
        with suppress(IndexError):
            leash = self._leash.pop()
            with suppress(OSError):
                os.write(leash, b"\n")
            os.close(leash)

    def _over(self, code: int | None) -> int | None:
        if code is not None:
            self.let_go()
        return code
