"""The logs of all nodes of a run at once: a reader each, what they read in one queue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import Empty, Full, Queue

from cvl.core.scope import Tell
from cvl.core.spec import LogChunk
from cvl.providers.kubernetes import api_paths
from cvl.providers.kubernetes.client import Client, Object
from cvl.providers.kubernetes.exit_line import Ending
from cvl.providers.kubernetes.log import Mark
from cvl.providers.kubernetes.log_reader import News, Reader
from cvl.providers.kubernetes.pods import over, started

WAITING = 256
"""Pieces that are read ahead of whoever takes them."""


class Logs:
    """Reads every node's log from a cursor on."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        run_id: str,
        cursor: str,
        tell: Tell,
        *,
        many: bool = False,
    ) -> None:
        """`cursor` is "" or one that an earlier chunk carried. `many`: there are several nodes."""
        self._client, self._run_id, self._tell, self._many = client, run_id, tell, many
        self._pods = api_paths.core("pods", namespace)
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
            path = f"{self._pods}/{pod['metadata']['name']}"
            reader = self._readers.get(node)
            if reader is None and started(pod):
                reader = self._readers[node] = Reader(
                    self._client,
                    path,
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
