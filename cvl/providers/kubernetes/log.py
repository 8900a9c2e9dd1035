"""One container's output out of the API's log, byte for byte, over streams that break off.

With `timestamps=true` every entry of the log is `TIME DATA`; DATA ends in a newline, or is a piece
of a long line: runtimes cut lines at some KiB, and up to 1.2x the kubelet writes a time before
each piece, later ones only before the first. After a break the stream is asked for again from the
second of the last entry (`sinceTime` counts whole seconds), and what was read is passed over by
time, number and bytes. What stands without a time is no output: the kubelet's own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
APART = 256
"""Bytes, more than a last line has: see `joined`."""
SPARE, MOST_LINES = 2, 1 << 26
"""Entries: a few; more than a node keeps of one log."""
BACK = timedelta(seconds=2)
"""How far before the last entry a stream is asked for again: clocks are set back by little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a log: so many bytes into the `count`-th entry that bears `time`."""

    time: str = ""
    count: int = 0
    at: int = 0

    @property
    def since(self) -> str:
        """What to ask for as `sinceTime`, "" for all of it."""
        if not self.time:
            return ""
        moment = datetime.fromisoformat(self.time).astimezone(UTC) - BACK
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some bytes of one entry, and the place after them."""

    data: bytes
    after: Mark


class Entries:
    """Cuts one stream into pieces. `strays` has the last of the lines that bear no time.

    `began` tells that there was an entry.
    """

    def __init__(self) -> None:
        self.strays: list[bytes] = []
        self.began = False
        self._buffer, self._at = b"", 0
        self._inside = self._stray = False
        self._time, self._count, self._size = "", 0, 0

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Yield what is complete enough to be told from a time."""
        self._buffer, self._at = self._buffer[self._at :] + block, 0
        while self._at < len(self._buffer) and (self._inside or self._begin()):
            before = self._at
            yield from self._take(last=False)
            if self._at == before:
                return

    def end(self) -> Iterator[Piece]:
        """Yield what was kept back, at the end of the stream."""
        while self._at < len(self._buffer) and (self._inside or self._begin()):
            yield from self._take(last=True)

    def _begin(self) -> bool:
        """Read the time at the start of an entry; return False until it is there whole."""
        match = TIME.match(self._buffer, self._at)
        if match and _nodes_own(match[0], 0):
            time = match[0][:-1].decode()
            self._count = self._count + 1 if time == self._time else 1
            self._time, self._size, self.began = time, 0, True
            self._at, self._stray = match.end(), False
        elif len(self._buffer) - self._at < STAMP and self._buffer.find(b"\n", self._at) < 0:
            return False
        else:
            self._stray = True
        self._inside = True
        return True

    def _take(self, *, last: bool) -> Iterator[Piece]:
        """Yield the next bytes of this entry: up to its newline, or to a time within the line."""
        line = self._buffer.find(b"\n", self._at) + 1
        reach = line or len(self._buffer)
        cut = self._cut(reach)
        if cut is None and not line and not last and self._size + reach - self._at > PIECE:
            reach = max(reach - STAMP, self._at)
        reach = reach if cut is None else cut
        data, self._at = self._buffer[self._at : reach], reach
        if data:
            yield from self._piece(data)
        if cut is not None:
            self._begin()
        elif line:
            self._inside = False

    def _piece(self, data: bytes) -> Iterator[Piece]:
        if self._stray:
            self.strays = [data[:STRAY]]
            return
        self._size += len(data)
        mark = Mark(time=self._time, count=self._count, at=self._size)
        yield Piece(data=data, after=mark)

    def _cut(self, reach: int) -> int | None:
        """Return where in this line the next piece's time stands."""
        start = self._at + max(PIECE - self._size, 0)
        if self._stray or start >= reach:
            return None
        for match in TIME.finditer(self._buffer, start, reach):
            if _nodes_own(match[0], instant(self._time)):
                return match.start()
        return None


class Resumed:
    """The pieces of a stream that follow a place; `lost` tells that the place was not there.

    `strict`: then nothing is yielded, for the stream began too late.
    """

    @property
    def seeking(self) -> bool:
        """Whether the place has not been reached yet."""
        return self._goal is not None

    def __init__(self, after: Mark, *, strict: bool = False) -> None:
        self.entries = Entries()
        self.lost, self._strict = False, strict
        self._goal = after if after.time else None

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Yield what is new in `block`."""
        for piece in self.entries.feed(block):
            yield from self._new(piece)

    def end(self) -> Iterator[Piece]:
        """Yield what is new and was kept back."""
        for piece in self.entries.end():
            yield from self._new(piece)

    def _new(self, piece: Piece) -> Iterator[Piece]:
        goal, here = self._goal, piece.after
        if goal is None:
            yield piece
            return
        late = instant(here.time) - instant(goal.time)
        if late == 0 and here.count == goal.count:
            if here.at > goal.at:
                self._goal = None
                yield replace(piece, data=piece.data[-(here.at - goal.at) :])
            elif here.at == goal.at:
                self._goal = None
        elif late > 0:
            self.lost = True
            if not self._strict:
                self._goal = None
                yield piece


def tail_after(mark: Mark, first: Callable[[int], str], near: int = 1) -> int:
    """Return how many of the last entries begin just before a place; 0 if none do.

    `first(n)` is the time of the first of the last n, `near` a guess. For streams that break off
    within the second from which they can be asked for. New entries may come meanwhile.
    """
    goal = instant(mark.time) if mark.time else 0

    def before(lines: int) -> bool:
        time = first(lines)
        return not time or instant(time) < goal

    low, high, step = 0, max(near, 1), SPARE
    while not before(high):
        low, high, step = high, high + step, step * 2
        if high > MOST_LINES:
            return 0
    step = SPARE
    while high - step > low and before(high - step):
        high, step = high - step, step * 2
    low = max(low, high - step)
    while high - low > SPARE:
        middle = (low + high) // 2
        low, high = (low, middle) if before(middle) else (middle, high)
    return high


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join pieces, so that few are handed on; the last bytes stay apart, each with its place."""
    kept = list(pieces)
    tail, size = len(kept), 0
    while tail and size < APART:
        tail -= 1
        size += len(kept[tail].data)
    if tail:
        yield Piece(data=b"".join(each.data for each in kept[:tail]), after=kept[tail - 1].after)
    yield from kept[tail:]


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
