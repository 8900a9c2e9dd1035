"""Reaches this machine: the same interface as for any other, without a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from cvl.core.errors import NotReady
from cvl.core.interfaces import Process


class Local:
    """A `Transport` to this machine, as the current user."""

    @property
    def where(self) -> str:
        return "this machine"

    def start(self, argv: Sequence[str]) -> Process:
        """Run `argv` here, with pipes and in a session of its own."""
        from subprocess import PIPE, Popen

        words = argv[1:] if argv[0] == "exec" else argv  # what only a shell can do
        try:
            child = Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        except OSError as error:
            raise NotReady(f"cannot run {words[0]} here: {error.strerror}") from None
        return cast("Process", child)  # with PIPE, all three are there

    def failure(self, code: int, stderr: bytes) -> Exception | None:  # noqa: ARG002
        """There is no connection that could break."""
        return None
