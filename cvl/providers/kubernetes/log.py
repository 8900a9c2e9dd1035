"""One container's output out of the API's log, byte for byte, over streams that break off.

With `timestamps=true` every entry of the log is `TIME DATA`; DATA ends in a newline, or is a piece
of a long line: runtimes cut lines at some KiB, and up to 1.2x the kubelet writes a time before
each piece, later ones only before the first. After a break the stream is asked for again from the
second of the last entry (`sinceTime` counts whole seconds), and what was read is passed over by
time, number and bytes. What stands without a time is no output: the kubelet's own words.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import NamedTuple

from cvl.core.frozen import dataclass

TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) ")
STAMP = 37
"""Bytes of the longest time, and its blank."""
PIECE = 4096
"""Bytes that no runtime cuts a line below: before that, a time inside a line is the job's."""
NANO = 9
"""Digits of a second's fraction, in nanoseconds."""
STRAY = 2000
"""Bytes of what the kubelet itself says that are kept."""
MOST_LINES = 1 << 26
"""Entries, more than a node keeps of one log."""
BACK = timedelta(seconds=2)
"""How far before the last entry a stream is asked for again: clocks are set back by little."""


class Mark(NamedTuple):
    """A place in a log: so many bytes into the `number`-th entry that bears `time`.

    `behind`: nanoseconds by which an entry before it is later, for the clock was set back.
    """

    time: str = ""
    number: int = 0
    at: int = 0
    behind: int = 0

    @property
    def since(self) -> str:
        """What to ask for as `sinceTime`, "" for all of it."""
        if not self.time:
            return ""
        moment = datetime.fromisoformat(self.time).astimezone(UTC) - BACK
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def latest(self) -> int:
        """The latest time up to here, in nanoseconds, as far as a stream from `since` has it."""
        most = int(BACK.total_seconds()) * 10**9
        return instant(self.time) + min(self.behind, most) if self.time else 0


BEGINNING = Mark()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some bytes of one entry, or of several, and the place after them."""

    data: bytes
    after: Mark


class Entries:
    """Cuts one stream into pieces, and passes over those up to a place.

    `began` tells that there was an entry, `strays` has the last of the lines that bear no time.
    `seeking`: the place has not been reached yet; `lost`: it was not there, the log begins later.
    """

    def __init__(self, after: Mark = BEGINNING, *, strict: bool = False) -> None:
        """`strict`: of a stream that began too late nothing is yielded."""
        self.strays: list[bytes] = []
        self.began = self.lost = False
        self._goal, self._strict = after if after.time else None, strict
        self._buffer = b""
        self._inside = self._stray = self._late = False
        self._time, self._count, self._size = "", 0, 0
        self._latest, self._behind = after.latest, 0

    @property
    def seeking(self) -> bool:
        return self._goal is not None

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Yield what is new in whole lines, and in long ones what is surely no part of a time."""
        buffer = self._buffer + block
        end = buffer.rfind(b"\n") + 1
        if len(buffer) - end > PIECE:
            end = len(buffer) - STAMP
            astride = TIME.finditer(buffer, end - STAMP)
            end = next((each.start() for each in astride if each.start() < end < each.end()), end)
        self._buffer = buffer[end:]
        for line in BytesIO(buffer[:end]):
            yield from self._line(line)

    def end(self) -> Iterator[Piece]:
        """Yield what is new and was kept back, at the end of the stream."""
        rest, self._buffer = self._buffer, b""
        if rest:
            yield from self._line(rest)

    def _line(self, line: bytes) -> Iterator[Piece]:
        """Yield what is new in a line, or in the next part of one: a piece for each time."""
        at = 0 if self._inside else self._begin(line, 0)
        while at < len(line):
            cut = self._cut(line, at)
            if cut > at:
                yield from self._new(line[at:cut])
            at = self._begin(line, cut) if cut < len(line) else cut
        self._inside = not line.endswith(b"\n")

    def _begin(self, line: bytes, at: int) -> int:
        """Begin an entry with the time that stands there; return where its data begins."""
        match = TIME.match(line, at)
        self._stray = not (match and _nodes_own(match[0], 0))
        if match is None or self._stray:
            return at
        time = match[0][:-1].decode()
        self._count = self._count + 1 if time == self._time else 1
        self._time, self._size, self.began = time, 0, True
        moment = instant(time)
        self._late, self._latest = moment > self._latest, max(moment, self._latest)
        self._behind = self._latest - moment
        return match.end()

    def _cut(self, line: bytes, at: int) -> int:
        """Return where in this line the next piece's time stands, else where the line ends."""
        if not self._stray:
            for match in TIME.finditer(line, at + max(PIECE - self._size, 0)):
                if _nodes_own(match[0], instant(self._time)):
                    return match.start()
        return len(line)

    def _new(self, data: bytes) -> Iterator[Piece]:
        """Yield what of the next bytes follows the place that is sought."""
        if self._stray:
            self.strays = [data[:STRAY]]
            return
        self._size += len(data)
        here, goal = Mark(self._time, self._count, self._size, self._behind), self._goal
        if goal and self._late:
            self.lost = True
            if self._strict:
                return
        elif goal:
            there = (instant(here.time), here.number) == (instant(goal.time), goal.number)
            if not there or here.at < goal.at:
                return
            data = data[len(data) - (here.at - goal.at) :]
        self._goal = None
        if data:
            yield Piece(data=data, after=here)


def tail_after(mark: Mark, first: Callable[[int], str]) -> int:
    """Return how many of the last entries begin just before a place; 0 if none do.

    `first(n)` is the time of the first of the last n. For streams that break off within the
    second from which they can be asked for. New entries may come meanwhile.
    """
    goal = instant(mark.time) if mark.time else 0

    def before(lines: int) -> bool:
        time = first(lines)
        return not time or instant(time) < goal

    high = 1
    while not before(high):
        high *= 2
        if high > MOST_LINES:
            return 0
    return bisect_left(range(high), True, lo=high // 2, key=before)


def instant(time: str) -> int:
    """Return a time of the log in nanoseconds; Python's own has no more than microseconds."""
    whole, _, rest = time.partition(".")
    zone = rest.lstrip("0123456789")
    digits = rest.removesuffix(zone)
    moment = datetime.fromisoformat(whole + zone)
    return int(moment.timestamp()) * 10**9 + int(digits.ljust(NANO, "0"))


def _nodes_own(stamp: bytes, since: int) -> bool:
    """Return whether a time may be the kubelet's: it exists, and is no earlier than another.

    It is written with nine digits, or with no zeros at its end (Go's RFC3339Nano).
    """
    fraction = re.search(rb"\.(\d+)", stamp)
    if since and fraction and len(fraction[1]) < NANO and fraction[1].endswith(b"0"):
        return False
    try:
        return instant(stamp[:-1].decode()) >= since
    except ValueError:
        return False
