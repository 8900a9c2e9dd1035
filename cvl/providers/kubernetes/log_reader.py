"""Reads the logs of all nodes of a run: a reader each, over as many streams as that takes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty, Full, Queue

from cvl.core.errors import CvlError, Denied, Missing
from cvl.core.scope import Cancelled, Scope, Tell
from cvl.core.spec import Cause, LogChunk
from cvl.providers.kubernetes.api_errors import NotYet
from cvl.providers.kubernetes.client import Client, Object, Stream
from cvl.providers.kubernetes.exit_line import LONG, Ending, Lines
from cvl.providers.kubernetes.log import BEGINNING, STAMP, TIME, Entries, Mark, Piece, tail_after
from cvl.providers.kubernetes.manifest import CONTAINER
from cvl.providers.kubernetes.pods import over, path, started

SILENCE = 60.0
"""Seconds without a byte after which a stream is opened anew: the other side may be gone."""
UNSEEN = 3
"""Times in a row that a pod must be missing before it is gone."""
PAUSES = (0.1, 0.3, 1.0, 2.0)
"""Seconds before a stream is opened again; the last repeats."""
WAITING = 256
"""Pieces that are read ahead of whoever takes them."""
SPARE = 2
"""Entries that are asked for besides, for new ones may come meanwhile."""


class Logs:
    """Reads every node's log from a cursor on."""

    def __init__(
        self, client: Client, run_id: str, cursor: str, tell: Tell, *, many: bool = False
    ) -> None:
        """`cursor` is "" or one that an earlier chunk carried. `many`: there are several nodes."""
        self._client, self._run_id, self._tell = client, run_id, tell
        self._longest = LONG if many else 0
        self._marks = read(cursor)
        self._queue: Queue[tuple[int, Piece]] = Queue(WAITING)
        self._readers: dict[int, Reader] = {}
        self._closed = False

    @property
    def endings(self) -> Mapping[int, Ending]:
        """The last lines that were seen, by node."""
        return {node: each.ending for node, each in self._readers.items() if each.ending}

    def follow(self, pods: Mapping[int, Object], *, gone: bool) -> None:
        """Begin to read the logs of pods that have one; learn which run no more: all if `gone`."""
        for node, pod in pods.items():
            if node not in self._readers and started(pod):
                mark, put = self._marks.get(node, BEGINNING), partial(self._put, node)
                lines = partial(Lines, self._run_id, self._longest)
                self._readers[node] = Reader(self._client, path(pod), mark, lines, put, self._tell)
        for node, reader in self._readers.items():
            reader.over = reader.over or gone or (node in pods and over(pods[node]))

    def take(self, seconds: float) -> Iterator[LogChunk]:
        """Yield what was read; wait so long for the first of it."""
        try:
            node, piece = self._queue.get(timeout=seconds)
            while True:
                self._marks[node] = piece.after
                yield LogChunk(data=piece.data, cursor=written(self._marks), node=node)
                node, piece = self._queue.get_nowait()
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

    def _put(self, node: int, piece: Piece) -> None:
        """Hand on what a reader read; wait for whoever takes it, as long as anybody does."""
        while not self._closed:
            with suppress(Full):
                self._queue.put((node, piece), timeout=1.0)
                return


class Reader:
    """One node's log, read in a thread of its own.

    `over` is to be set once the container runs no more: what is there then is all. `done`: all of
    it was read and handed on. `ending` is its last line, once seen.
    """

    def __init__(
        self,
        client: Client,
        pod: str,
        mark: Mark,
        lines: Callable[[], Lines],
        put: Callable[[Piece], None],
        tell: Tell,
    ) -> None:
        """`pod` is its path in the API. `put` hears what is read after `mark`; may make us wait."""
        self.pod = pod
        self.over = self.done = False
        self.ending: Ending | None = None
        self._client, self._mark, self._lines, self._put = client, mark, lines, put
        self._tell = tell
        self._scope = Scope(client.clock)
        self._stream: Stream | None = None
        self._kept: Piece | None = None
        self._complaint, self._stalled, self._spare = "", False, SPARE
        threading.Thread(target=self._read, name="cvl-log", daemon=True).start()

    def close(self) -> None:
        """Stop reading, from any thread."""
        self._scope.cancel(Cause.STOPPED)
        if stream := self._stream:
            stream.end()

    def _read(self) -> None:
        with suppress(Cancelled):
            self._follow()
        self.done = True

    def _follow(self) -> None:
        missed = 0
        for attempt in self._scope.attempts(PAUSES):
            final = self.over  # asked first: all that was written by then is read below
            before = self._mark
            try:
                self._once(final=final)
                missed = 0
                if self.ending or (final and self._mark == before and not self._stalled):
                    return  # a stream may end before its log does: nothing new is the proof
            except NotYet:
                pass
            except Missing:
                missed += 1
                if missed == UNSEEN:
                    self._emit_kept()
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
        tail = tail_after(self._mark, self._first) if self._stalled else 0
        if tail:
            query["tailLines"] = str(tail + self._spare)
        elif since := self._mark.since:
            query["sinceTime"] = since
        start, lines, entries = self._mark, self._lines(), Entries(self._mark, strict=bool(tail))
        try:
            with self._client.stream(f"{self.pod}/log", SILENCE, **query) as stream:
                self._stream, self._kept = stream, None
                for block in stream.blocks():
                    self._emit(lines.feed(entries.feed(block)))
                    if lines.ending or self._scope.cause or (tail and entries.lost):
                        break
                else:
                    self._emit(lines.feed(entries.end()))
                    self._kept = lines.end()
                    if final and self._mark == start and not entries.seeking:
                        self._emit_kept()  # asked twice: nothing follows
        finally:
            # one that broke off before it came to where we are would do so again and again
            self._stalled = entries.seeking and entries.began
            late = self._stalled and entries.lost
            self._spare = self._spare * 2 if late else SPARE
        self._heed(entries)
        self.ending = lines.ending

    def _first(self, lines: int) -> str:
        """Return the time of the first of so many last entries, "" where there is none."""
        query = {"container": CONTAINER, "timestamps": "true", "limitBytes": str(STAMP)}
        with self._client.stream(f"{self.pod}/log", SILENCE, tailLines=str(lines), **query) as head:
            match = TIME.match(b"".join(head.blocks()))
        return match[0][:-1].decode() if match else ""

    def _emit(self, piece: Piece | None) -> None:
        if piece and not self._scope.cause:
            self._put(piece)
            self._mark = piece.after

    def _emit_kept(self) -> None:
        """Hand on, once, what was kept back in the last stream."""
        kept, self._kept = self._kept, None
        self._emit(kept)

    def _heed(self, entries: Entries) -> None:
        """Say what the kubelet itself wrote into the stream, and what it has no more."""
        if entries.lost and not entries.seeking:
            self._tell(
                "warning",
                "the node has put the log away while the connection was broken: "
                "some output may be missing",
            )
        for line in entries.strays:
            self._complain(CvlError(f"the node says: {line.decode(errors='replace').strip()}"))

    def _complain(self, error: CvlError) -> None:
        if str(error) != self._complaint and not self._scope.cause:
            self._complaint = str(error)
            self._tell("waiting", f"the output cannot be read now: {error}")


def written(marks: Mapping[int, Mark]) -> str:
    """Return the cursor that says how far each node's log was read."""
    return json.dumps(marks, separators=(",", ":"))


def read(cursor: str) -> dict[int, Mark]:
    """Return a cursor's marks."""
    rows = json.loads(cursor) if cursor.startswith("{") else {}
    return {
        int(node): Mark(str(time), *map(int, numbers)) for node, (time, *numbers) in rows.items()
    }
