r"""What a job's output has changed of the terminal that it is shown on, and how that is undone.

A job may colour, hide the cursor, or take the whole screen, and die over it. Read here as far as
that matters (ECMA-48, xterm's private modes); what is no such sequence is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SEQUENCE = re.compile(rb"\x1b(?:\[([0-?]*)[ -/]*([@-~])|\(([ -~])|([78=>DEMc]))|[\x0e\x0f]")
"""CSI with parameters and final; a character set; a short one; shift out and in."""
BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\()?\Z")
"""A sequence of which the rest is still to come."""
LONGEST = 64
"""Bytes that a sequence may have; what is longer is none."""
ENDED = re.compile(rb"\n(?:\x1b\[[0-9;]*m)*\Z")
"""How output ends that leaves the cursor at the start of a line; colours do not move it."""
ON_AT_FIRST = frozenset({b"7", b"25"})
"""Private modes that a terminal begins with: wrapping, and a cursor that is seen."""
MOVES = frozenset({b"%c" % each for each in b"ABEFHLMSTdfrsu"})
"""Finals of what leaves the line that the cursor is in."""
SCREENS = frozenset({b"47", b"1047", b"1049"})
"""Private modes that are another screen."""
COLOURS = 256
"""Bytes of colours that are kept, to go on with them after a line of ours."""
MOST = 64
"""Modes that are kept."""
UNDONE: Mapping[str, bytes] = MappingProxyType(
    {"region": b"\x1b7\x1b[r\x1b8", "charset": b"\x1b(B\x0f", "keys": b"\x1b>"}
)
"""What is left behind -> what takes it away."""


class Painted:
    """Follows the bytes that go to a terminal."""

    def __init__(self) -> None:
        self._rest = b""
        self._forget()

    def _forget(self) -> None:
        self._left: set[str] = set()
        self._modes: set[bytes] = set()
        self.colours = b""
        """The sequences that give the job's next character its colours."""
        self.moves = False
        """Whether the job has moved the cursor out of its line: what stands below is its own."""

    def follow(self, data: bytes) -> None:
        """Read on; a sequence may be cut anywhere."""
        if not (self._rest or b"\x1b" in data or b"\x0e" in data or b"\x0f" in data):
            return
        text = self._rest + data
        begun = BEGUN.search(text, max(len(text) - LONGEST, 0))
        ends = begun.start() if begun else len(text)
        self._rest = text[ends:]
        for found in SEQUENCE.finditer(text, 0, ends):
            self._take(found)

    def undo(self) -> bytes:
        """Return what puts the terminal back as it was, b"" if it is; and forget it all."""
        modes = (
            b"\x1b[?%b%b" % (mode, b"h" if mode in ON_AT_FIRST else b"l")
            for mode in sorted(self._modes, key=lambda mode: (mode not in SCREENS, mode))
        )
        colours = b"\x1b[0m" if self.colours else b""
        undone = b"".join([*modes, *(UNDONE[each] for each in sorted(self._left)), colours])
        self._forget()
        return undone

    def _take(self, found: re.Match[bytes]) -> None:
        parameters, final, charset, short = found.groups()
        if final == b"m":
            self._colour(found[0], parameters)
        elif final is not None and final in b"hl" and parameters.startswith(b"?"):
            self._mode(parameters[1:].split(b";"), on=final == b"h")
        elif final is not None:
            self.moves = self.moves or final in MOVES
            if final == b"r":
                self._note("region", left=parameters != b"")
        elif short is not None:
            self._short(short)
        else:
            self._note("charset", left=found[0] == b"\x0e" or charset not in {None, b"B"})

    def _colour(self, sequence: bytes, parameters: bytes) -> None:
        first, _, more = parameters.partition(b";")
        if first.strip(b"0") == b"":  # all back to how it was, and perhaps on from there
            self.colours = sequence if more else b""
        else:
            self.colours = (self.colours + sequence)[-COLOURS:]

    def _mode(self, modes: list[bytes], *, on: bool) -> None:
        for mode in filter(bytes.isdigit, modes):
            self.moves = self.moves or mode in SCREENS
            if on == (mode in ON_AT_FIRST):
                self._modes.discard(mode)
            elif len(self._modes) < MOST:
                self._modes.add(mode)

    def _short(self, short: bytes) -> None:
        if short == b"c":
            self._forget()
        elif short in b"=>":
            self._note("keys", left=short == b"=")
        else:
            self.moves = True

    def _note(self, what: str, *, left: bool) -> None:
        (self._left.add if left else self._left.discard)(what)
