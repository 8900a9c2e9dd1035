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
BEGUN = re.compile(
    rb"\x1b(?:[\x00-\x17\x19\x1c-/]*|\[[\x00-\x17\x19\x1c-?]*|[\]PX^_][^\x07\x18\x1a\x1b]*)\Z"
)
"""A sequence of which the rest is still to come: a short one, CSI, a string such as a title."""
BROKEN_OFF = b"\x18\x1b\\"
"""What ends any of these, and is nothing by itself: CAN and the end of a string."""
LONGEST = 4096
"""Bytes that are kept of such a sequence; of a longer one only how it begins."""
ENDED = re.compile(rb"\n(?:\x1b\[[0-9;]*m)*\Z")
"""How output ends that leaves the cursor at the start of a line; colours do not move it."""
ON_AT_FIRST = frozenset({b"?7", b"?25"})
"""Modes that a terminal begins with: wrapping, and a cursor that is seen."""
MODE = re.compile(rb"\?[0-9]+|4|20")
"""Those that are undone: private ones, and to insert and to begin lines."""
MOVES = frozenset({b"%c" % each for each in b"ABEFHLMSTdfrsu"})
"""Finals of what leaves the line that the cursor is in."""
SCREENS = frozenset({b"?47", b"?1047", b"?1049"})
"""Modes that are another screen."""
COLOURS = 256
"""Bytes of colours that are kept, to go on with them after a line of ours."""
MOST = 64
"""Modes that are kept."""
UNDONE: Mapping[bytes, bytes] = MappingProxyType(
    {b"region": b"\x1b7\x1b[r\x1b8", b"charset": b"\x1b(B\x0f", b"keys": b"\x1b>"}
)
"""What is left behind beside modes -> what takes it away."""
ORIGIN, BOTTOM = b"?6", b"\x1b[999H"
"""A mode that takes the cursor to the top when it ends, over all that stands there."""


class TerminalModes:
    """Follows the bytes that go to a terminal."""

    def __init__(self) -> None:
        self.begun = b""
        """The sequence that the job is in: until its rest comes, it swallows what is written."""
        self._forget()

    def _forget(self) -> None:
        self._left: set[bytes] = set()
        self.colours = b""
        """The sequences that give the job's next character its colours."""
        self.moves = False
        """Whether the job has moved the cursor out of its line: what stands below is its own."""

    def follow(self, data: bytes) -> None:
        """Read on; a sequence may be cut anywhere."""
        if not (self.begun or b"\x1b" in data or b"\x0e" in data or b"\x0f" in data):
            return
        text = self.begun + data
        begun = BEGUN.match(text, max(text.rfind(b"\x1b"), 0))
        ends = begun.start() if begun else len(text)
        self.begun = text[ends:] if len(text) - ends <= LONGEST else text[ends : ends + 2]
        for found in SEQUENCE.finditer(text, 0, ends):
            self._take(found)

    def undo(self) -> bytes:
        """Return what puts the terminal back as it was, b"" if it is; and forget it all."""
        left = sorted(self._left, key=lambda what: (what not in SCREENS, what))
        below = BOTTOM if ORIGIN in self._left else b""
        colours = b"\x1b[0m" if self.colours else b""
        begun = BROKEN_OFF if self.begun else b""
        undone = b"".join([begun, *map(_undone, left), below, colours])
        self.begun = b""
        self._forget()
        return undone

    def _take(self, found: re.Match[bytes]) -> None:
        parameters, final, charset, short = found.groups()
        if final == b"m":
            self._colour(found[0], parameters)
        elif final in {b"h", b"l"}:
            kind = b"?" if parameters.startswith(b"?") else b""
            for mode in parameters.removeprefix(b"?").split(b";"):
                self._mode(kind + mode, on=final == b"h")
        elif final is not None:
            self.moves = self.moves or final in MOVES
            if final == b"r":
                self._note(b"region", left=parameters != b"")
        elif short == b"c":
            self._forget()
        elif short in {b"=", b">"}:
            self._note(b"keys", left=short == b"=")
        elif short is not None:
            self.moves = True
        else:
            self._note(b"charset", left=found[0] == b"\x0e" or charset not in {None, b"B"})

    def _colour(self, sequence: bytes, parameters: bytes) -> None:
        first, _, more = parameters.partition(b";")
        if first.strip(b"0") == b"":  # all back to how it was, and perhaps on from there
            self.colours = sequence if more else b""
        else:
            self.colours = (self.colours + sequence)[-COLOURS:]

    def _mode(self, mode: bytes, *, on: bool) -> None:
        if MODE.fullmatch(mode):
            self.moves = self.moves or mode in SCREENS
            self._note(mode, left=on != (mode in ON_AT_FIRST))

    def _note(self, what: bytes, *, left: bool) -> None:
        if not left:
            self._left.discard(what)
        elif len(self._left) < MOST:
            self._left.add(what)


def _undone(what: bytes) -> bytes:
    return UNDONE.get(what) or b"\x1b[%b%b" % (what, b"h" if what in ON_AT_FIRST else b"l")
