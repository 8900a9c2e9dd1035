"""Takes the last line out of a job's output, which our entry script writes: it tells the exit code.

It is not shown, and proves that the log is complete. Whole lines pass at once; of others what may
be the beginning of the last line is kept back until more has come.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from cvl.core.frozen import dataclass
from cvl.providers.kubernetes.log import Piece

LONG = 1 << 16
"""Bytes of one line after which it is shown in parts, where several nodes write."""
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


class Lines:
    """Lets whole lines pass, but not the last: `ending` is what that told, once it was seen."""

    def __init__(self, run_id: str, longest: int = 0) -> None:
        """`longest`: bytes of a line that are waited for: none breaks into another node's then."""
        self.ending: Ending | None = None
        head = f"[cvl] {run_id}: exit code ".encode()
        self._last = re.compile(re.escape(head) + rb"(\d{1,3})(?: \(([a-z ]+)\))?\r?\n")
        self._longest, self._kept = longest, len(head) + MOST
        self._pending: list[Piece] = []

    def feed(self, pieces: Iterable[Piece]) -> Piece | None:
        """Return what is surely output, None for nothing."""
        self._pending += pieces
        data = b"".join(each.data for each in self._pending)
        if match := self._last.search(data):
            passed = self._release(data, match.start())
            time = self._pending[0].after.time
            self.ending = Ending(code=int(match[1]), why=(match[2] or b"").decode(), time=time)
            self._pending = []
            return passed
        end = data.rfind(b"\n") + 1
        if len(data) - end > self._longest:
            end = max(len(data) - self._kept, end)
        return self._release(data, end)

    def end(self) -> Piece | None:
        """Return what was kept back, when nothing more comes."""
        data = b"".join(each.data for each in self._pending)
        return self._release(data, len(data))

    def _release(self, data: bytes, size: int) -> Piece | None:
        """Return the first bytes of the `data` of all that is kept; keep the rest."""
        if not size:
            return None
        ends = list(accumulate(len(each.data) for each in self._pending))
        last = bisect_left(ends, size)
        piece, rest = self._pending[last], ends[last] - size
        kept = [replace(piece, data=piece.data[-rest:])] if rest else []
        self._pending = [*kept, *self._pending[last + 1 :]]
        after = piece.after._replace(at=piece.after.at - rest)
        return Piece(data=data[:size], after=after)
