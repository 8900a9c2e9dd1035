"""The last line of a job's output, which our entry script writes: it tells the exit code.

It is not shown, and proves that the log is complete. What may be its beginning is kept back until
more has come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from cvl.core.frozen import dataclass
from cvl.providers.kubernetes.log import Mark, Piece

LONG = 1 << 16
"""Bytes of one line after which it is shown in parts."""
AGAIN = "again"
"""Why a job ended that had been started before: it did not run."""
MOST = 40
"""Bytes that may follow the head: a code, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a node's job ended, by its own last line.

    `why` is `stopped`, `out of memory`, `again` or "".
    """

    code: int
    why: str
    time: str


class LastLine:
    """Takes the last line out of a log. `ending` is None until it was seen."""

    def __init__(self, run_id: str) -> None:
        self.ending: Ending | None = None
        self._head = f"[cvl] {run_id}: exit code ".encode()
        self._whole = re.compile(re.escape(self._head) + rb"(\d{1,3})(?: \(([a-z ]+)\))?\r?\n")
        self._pending: list[Piece] = []

    def feed(self, piece: Piece) -> Iterator[Piece]:
        """Yield what is surely output."""
        self._pending.append(piece)
        data = b"".join(each.data for each in self._pending)
        if match := self._whole.search(data):
            self.ending = Ending(
                code=int(match[1]), why=(match[2] or b"").decode(), time=piece.after.time
            )
            yield from self._release(match.start())
            rest = data[match.end() :]
            self._pending = [replace(piece, data=rest)] if rest else []
            return
        yield from self._release(len(data) - self._suspect(data))

    def end(self) -> Iterator[Piece]:
        """Yield what was kept back, when nothing more comes."""
        pieces, self._pending = self._pending, []
        yield from pieces

    def _suspect(self, data: bytes) -> int:
        """Return how many of the last bytes may be the beginning of the last line."""
        tail = data[-(len(self._head) + MOST) :]
        if (at := tail.rfind(self._head)) >= 0 and b"\n" not in tail[at:]:
            return len(tail) - at
        for size in range(min(len(self._head) - 1, len(data)), 0, -1):
            if data.endswith(self._head[:size]):
                return size
        return 0

    def _release(self, size: int) -> Iterator[Piece]:
        """Yield the first bytes of what is kept; keep the rest."""
        while size > 0 and self._pending:
            piece = self._pending.pop(0)
            if len(piece.data) > size:
                rest = len(piece.data) - size
                self._pending.insert(0, replace(piece, data=piece.data[size:]))
                piece = Piece(data=piece.data[:size], after=_earlier(piece.after, rest))
            size -= len(piece.data)
            yield piece


class Lines:
    """Lets whole lines pass: where several nodes write, none breaks into another's line."""

    def __init__(self) -> None:
        self._pending: list[Piece] = []

    def feed(self, piece: Piece) -> Iterator[Piece]:
        """Yield what ends in a newline, or is longer than anybody waits for."""
        end = piece.data.rfind(b"\n") + 1
        if end or sum(len(each.data) for each in self._pending) > LONG:
            yield from self.end()
        if end:
            rest = len(piece.data) - end
            yield Piece(data=piece.data[:end], after=_earlier(piece.after, rest))
        if end < len(piece.data):
            self._pending.append(replace(piece, data=piece.data[end:]))

    def end(self) -> Iterator[Piece]:
        """Yield what was kept back."""
        pieces, self._pending = self._pending, []
        yield from pieces


def _earlier(mark: Mark, size: int) -> Mark:
    return replace(mark, at=max(mark.at - size, 0))
