"""Reads the logs of all nodes of a run: a reader each, over as many streams as that takes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Empty, Full, Queue

from cvl.core.errors import CvlError, Denied, Missing
from cvl.core.frozen import dataclass
from cvl.core.scope import Cancelled, Scope, Tell
from cvl.core.spec import Cause, LogChunk
from cvl.providers.kubernetes.api_errors import NotYet
from cvl.providers.kubernetes.client import Client, Object, Stream
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
from cvl.providers.kubernetes.pods import over, path, started

SILENCE = 60.0
"""Seconds without a byte after which a stream is opened anew: the other side may be gone."""
UNSEEN = 3
"""Times that a pod must be missing before it is gone."""
PAUSES = (0.1, 0.3, 1.0, 2.0)
"""Seconds before a stream is opened again; the last repeats."""
WAITING = 256
"""Pieces that are read ahead of whoever takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one node wrote, and where its reader is after it."""

    node: int
    data: bytes
    after: Mark


class Logs:
    """Reads every node's log from a cursor on."""

    def __init__(
        self, client: Client, run_id: str, cursor: str, tell: Tell, *, many: bool = False
    ) -> None:
        """`cursor` is "" or one that an earlier chunk carried. `many`: there are several nodes."""
        self._client, self._run_id, self._tell, self._many = client, run_id, tell, many
        self._marks = read(cursor)
        self._rows = {node: row(node, mark) for node, mark in self._marks.items()}
        self._queue: Queue[News] = Queue(WAITING)
        self._readers: dict[int, Reader] = {}
        self._closed = False

    @property
    def endings(self) -> Mapping[int, Ending]:
        """The last lines that were seen, by node."""
        return {node: each.ending for node, each in self._readers.items() if each.ending}

    def follow(self, pods: Mapping[int, Object], *, gone: bool) -> None:
        """Begin to read the logs of pods that have one; learn which run no more: all if `gone`."""
        for node, pod in pods.items():
            reader = self._readers.get(node)
            if reader is None and started(pod):
                reader = self._readers[node] = Reader(
                    self._client,
                    path(pod),
                    self._run_id,
                    self._put,
                    node=node,
                    after=self._marks.get(node),
                    whole_lines=self._many,
                    tell=self._tell,
                )
            if reader and over(pod):
                reader.over()
        for reader in self._readers.values() if gone else ():
            reader.over()

    def take(self, seconds: float) -> Iterator[LogChunk]:
        """Yield what was read; wait so long for the first of it."""
        try:
            news = self._queue.get(timeout=seconds)
            while True:
                self._rows[news.node] = row(news.node, news.after)
                cursor = f"{{{','.join(self._rows.values())}}}"
                yield LogChunk(data=news.data, cursor=cursor, node=news.node)
                news = self._queue.get_nowait()
        except Empty:
            return

    def complete(self) -> bool:
        """Return whether all logs that were begun were read to their end, and taken."""
        return all(each.done for each in self._readers.values()) and self._queue.empty()

    def close(self) -> None:
        """Let go of all streams."""
        self._closed = True
        for reader in self._readers.values():
            reader.close()

    def _put(self, news: News) -> None:
        """Hand on what a reader read; wait for whoever takes it, as long as anybody does."""
        while not self._closed:
            with suppress(Full):
                self._queue.put(news, timeout=1.0)
                return


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
        self._complaint, self._stalled, self._late = "", False, False
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
            match = TIME.match(b"".join(head.blocks()))
        return match[0][:-1].decode() if match else ""

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
        if str(error) != self._complaint and not self._scope.cause:
            self._complaint = str(error)
            self._tell("waiting", f"the output cannot be read now: {error}")


def row(node: int, mark: Mark) -> str:
    """Return a node's part of a cursor: an object of JSON has one for each."""
    return f'"{node}":["{mark.time}",{mark.count},{mark.at}]'


def read(cursor: str) -> dict[int, Mark]:
    """Return a cursor's marks."""
    if not cursor.startswith("{"):
        return {}
    return {
        int(node): Mark(time=str(time), count=int(count), at=int(at))
        for node, (time, count, at) in json.loads(cursor).items()
    }
