"""Reads one container's log to its end, over as many streams as that takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from cvl.core.errors import CvlError, Denied, Missing
from cvl.core.frozen import dataclass
from cvl.core.scope import Cancelled, Scope, Tell
from cvl.core.spec import Cause
from cvl.providers.kubernetes.api_errors import NotYet
from cvl.providers.kubernetes.client import Client, Stream
from cvl.providers.kubernetes.exit_line import Ending, LastLine, Lines
from cvl.providers.kubernetes.log import (
    SPARE,
    STAMP,
    TIME,
    Mark,
    Piece,
    Resumed,
    joined,
    tail_after,
)
from cvl.providers.kubernetes.manifest import CONTAINER

SILENCE = 60.0
"""Seconds without a byte after which a stream is opened anew: the other side may be gone."""
UNSEEN = 3
"""Times that a pod must be missing before it is gone."""
PAUSES = (0.1, 0.3, 1.0, 2.0)
"""Seconds before a stream is opened again; the last repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one node wrote, and where its reader is after it."""

    node: int
    data: bytes
    after: Mark


class Reader:
    """One node's log, read in a thread of its own. `ending` is its last line, once seen."""

    def __init__(
        self,
        client: Client,
        pod: str,
        run_id: str,
        news: Callable[[News], None],
        *,
        node: int = 0,
        after: Mark | None = None,
        whole_lines: bool = False,
        tell: Tell,
    ) -> None:
        """`pod` is its path in the API. `news` hears what is read, and may make us wait.

        `whole_lines`: nothing less is handed on, for others write too.
        """
        self.pod = pod
        self.ending: Ending | None = None
        self._client, self._run_id, self._news, self._tell = client, run_id, news, tell
        self._node, self._mark, self._whole = node, after or Mark(), whole_lines
        self._over, self._done = threading.Event(), threading.Event()
        self._scope = Scope(client.clock)
        self._stream: Stream | None = None
        self._told, self._stalled, self._late = "", False, False
        self._near, self._slack = 1, SPARE
        self._thread = threading.Thread(target=self._read, name=f"cvl-log-{node}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether all of the log was read and handed on."""
        return self._done.is_set()

    def over(self) -> None:
        """Hear that the container runs no more: what is there now is all."""
        self._over.set()

    def close(self) -> None:
        """Stop reading, from any thread."""
        self._scope.cancel(Cause.STOPPED)
        if stream := self._stream:
            stream.end()

    def _read(self) -> None:
        with suppress(Cancelled):
            self._follow()
        self._done.set()

    def _follow(self) -> None:
        missed = 0
        for attempt in self._scope.attempts(PAUSES):
            final = self._over.is_set()  # asked first: all that was written by then is read below
            before = self._mark
            try:
                self._once(final=final)
                if self.ending or (final and self._mark == before and not self._stalled):
                    return  # a stream may end before its log does: nothing new is the proof
            except NotYet:
                pass
            except Missing:
                missed += 1
                if missed == UNSEEN:
                    return
            except CvlError as error:
                self._complain(error)
                if final and isinstance(error, Denied):
                    return
            if self._mark != before:
                attempt.anew()

    def _once(self, *, final: bool) -> None:
        """Read one stream from where we are; `final`: it ends with the log."""
        query = {"container": CONTAINER, "timestamps": "true"}
        if not final:
            query["follow"] = "true"
        tail = self._tail() if self._stalled else 0
        if tail:
            query["tailLines"] = str(tail)
        elif since := self._mark.since:
            query["sinceTime"] = since
        start, last, lines = self._mark, LastLine(self._run_id), Lines()
        resumed = Resumed(start, strict=bool(tail))
        try:
            with self._client.stream(f"{self.pod}/log", SILENCE, **query) as stream:
                self._stream = stream
                for block in stream.blocks():
                    pieces = resumed.feed(block)
                    if not self._carry(pieces, last, lines) or (tail and resumed.lost):
                        break
                else:
                    self._carry(resumed.end(), last, lines)
                    if final and self._mark == start and not resumed.seeking:
                        self._emit([*lines.end(), *last.end()])  # asked twice: nothing follows
        finally:
            # one that broke off before it came to where we are would do so again and again
            self._stalled = resumed.seeking and resumed.entries.began
            self._late = self._stalled and resumed.lost
        self._heed(resumed)
        self.ending = last.ending

    def _tail(self) -> int:
        """Return how many entries to ask for: more when new ones had come meanwhile."""
        self._slack = self._slack * 2 if self._late else SPARE
        self._near = tail_after(self._mark, self._first, self._near)
        return self._near + self._slack if self._near else 0

    def _first(self, lines: int) -> str:
        """Return the time of the first of so many last entries, "" where there is none."""
        query = {"container": CONTAINER, "timestamps": "true", "limitBytes": str(STAMP)}
        with self._client.stream(f"{self.pod}/log", SILENCE, tailLines=str(lines), **query) as head:
            found = TIME.match(b"".join(head.blocks()))
        return found[0][:-1].decode() if found else ""

    def _carry(self, pieces: Iterator[Piece], last: LastLine, lines: Lines) -> bool:
        """Hand on what is new; return whether more is to come."""
        passed: list[Piece] = []
        for piece in pieces if self._whole else joined(pieces):
            for each in last.feed(piece):
                passed += lines.feed(each) if self._whole else [each]
            if last.ending or self._scope.cause:
                break
        self._emit([*passed, *lines.end()] if last.ending else passed)
        return not (last.ending or self._scope.cause)

    def _emit(self, pieces: Sequence[Piece]) -> None:
        """Hand on pieces as one."""
        if not pieces:
            return
        data, after = b"".join(each.data for each in pieces), pieces[-1].after
        self._news(News(node=self._node, data=data, after=after))
        self._mark = after
        self._near = max(self._near - data.count(b"\n"), 1)

    def _heed(self, resumed: Resumed) -> None:
        """Say what the kubelet itself wrote into the stream, and what it has no more."""
        if resumed.lost and not resumed.seeking:
            self._tell(
                "warning",
                "the node has put the log away while the connection was broken: "
                "some output may be missing",
            )
        for line in resumed.entries.strays[-1:]:
            self._complain(CvlError(f"the node says: {line.decode(errors='replace').strip()}"))

    def _complain(self, error: CvlError) -> None:
        if str(error) != self._told and not self._scope.cause:
            self._told = str(error)
            self._tell("waiting", f"the output cannot be read now: {error}")
