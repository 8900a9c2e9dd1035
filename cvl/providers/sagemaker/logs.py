"""A training job's output, from CloudWatch Logs: every stream of every node, each event once.

CloudWatch keeps lines: one appears when it is complete. Our entry script writes a last line that
tells the exit code (`ENDING`); it is not shown, and proves that a stream is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cvl.core.errors import Missing, Rejected
from cvl.core.octets import octets
from cvl.core.spec import LogChunk
from cvl.providers.aws.session import Account
from cvl.run.nodes import NodeEnd

MOST = ((1 << 18) - 26, (1 << 20) - 26)
"""Bytes that one event takes: 256 KB and, since 2025, 1 MB, where it is counted as 26 more."""
LONGEST = 4
"""Bytes of one character in UTF-8: none is cut in two."""
GROUP = "/aws/sagemaker/TrainingJobs"
NODE = re.compile(r"/algo-(\d+)-(\d+)")
ENDING = re.compile(r"\[cvl\] (?P<run>[a-z0-9-]+): exit code (?P<code>\d+)\s*\Z")


class Mark(NamedTuple):
    """How far a stream was read: CloudWatch's token (good for 24 hours), and how many events."""

    token: str = ""
    events: int = 0


class LogReader:
    """Reads on from a cursor."""

    def __init__(self, account: Account, job: str, run_id: str, cursor: str) -> None:
        """`cursor` is "" or one that an earlier chunk carried."""
        self._endings: dict[str, NodeEnd] = {}
        self._account, self._job, self._run_id = account, job, run_id
        rows = json.loads(cursor) if cursor.startswith("{") else {}
        self._marks = {name: Mark(str(token), int(count)) for name, (token, count) in rows.items()}
        self._streams: list[str] = []

    def look(self) -> Iterator[LogChunk]:
        """Yield all that is there now and was not read. Raises `Unreachable` and the like."""
        self._streams = self._list_streams()
        for stream in self._streams:
            yield from self._stream(stream)

    @property
    def endings(self) -> tuple[NodeEnd, ...]:
        """How the nodes ended, as far as this reader has seen it: each in its last attempt."""
        latest = {node_of(stream): stream for stream in self._streams}
        return tuple(self._endings[each] for each in latest.values() if each in self._endings)

    def heard(self, nodes: int) -> bool:
        """Return whether every node has written something."""
        return len({*map(node_of, self._streams)}) >= nodes

    def complete(self, nodes: int) -> bool:
        """Return whether every node's latest stream was read to its last line."""
        return len(self.endings) >= max(nodes, len({*map(node_of, self._streams)}))

    def _list_streams(self) -> list[str]:
        """Return the job's streams, those of a node in the order in which they began."""
        streams: list[str] = []
        more = {"logGroupName": GROUP, "logStreamNamePrefix": f"{self._job}/"}
        while True:
            try:
                page = self._account.call("logs", "describe_log_streams", **more)
            except Missing:
                return streams  # nothing was ever logged in this region
            streams += [str(each["logStreamName"]) for each in page["logStreams"]]
            if not page.get("nextToken"):
                return sorted(streams, key=_order)
            more["nextToken"] = page["nextToken"]

    def _stream(self, stream: str) -> Iterator[LogChunk]:
        request = {"logGroupName": GROUP, "logStreamName": stream, "startFromHead": True}
        skip = 0
        mark = self._marks.get(stream, Mark())
        while True:
            try:
                token = {"nextToken": mark.token} if mark.token else {}
                page = self._account.call("logs", "get_log_events", **request, **token)
            except Missing:
                return
            except Rejected:
                if not mark.token:
                    raise
                skip, mark = mark.events, Mark()  # the token is too old: count instead
                continue
            events = page["events"]
            fresh = events[skip:]
            skip -= len(events) - len(fresh)
            count = mark.events + len(events)
            end = page["nextForwardToken"] == mark.token
            mark = Mark(page["nextForwardToken"], count)
            if count:  # a token of a stream that was still empty may be good for nothing
                self._marks[stream] = mark
            if data := self._data(stream, fresh):
                yield LogChunk(data=data, cursor=self._cursor(), node=node_of(stream))
            if end:
                return

    def _data(self, stream: str, events: Sequence[dict[str, Any]]) -> bytes:
        parts = []
        for event in events:
            message = str(event["message"])
            ending = ENDING.search(message)
            if ending and ending["run"] == self._run_id:
                self._endings[stream] = NodeEnd(
                    node=node_of(stream), code=int(ending["code"]), time=int(event["timestamp"])
                )
                parts.append(message[: ending.start()])  # a last line that was not ended
            else:
                parts.append(message if message.endswith("\n") or cut(message) else message + "\n")
        return octets("".join(parts))

    def _cursor(self) -> str:
        return json.dumps(self._marks, separators=(",", ":"))


def cut(message: str) -> bool:
    """Return whether a line goes on in the next event, for all that one takes is in this."""
    size = len(octets(message))
    return any(most - LONGEST < size <= most for most in MOST)


def node_of(stream: str) -> int:
    """Return which node wrote a stream, from 0: `<job>/algo-<n>-<epoch>`."""
    match = NODE.search(stream)
    return int(match[1]) - 1 if match else 0


def _order(stream: str) -> tuple[int, str]:
    match = NODE.search(stream)
    return (int(match[2]) if match else 0, stream)
