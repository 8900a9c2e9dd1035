"""One node's log over whatever the API answers: nothing is shown twice, and nothing is given up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import cast

from cvl.core.errors import CvlError, Missing, Unreachable
from cvl.core.scope import silent
from cvl.providers.kubernetes.client import Client, Stream
from cvl.providers.kubernetes.exit_line import Lines
from cvl.providers.kubernetes.log import BEGINNING, Piece
from cvl.providers.kubernetes.log_reader import Reader
from cvl.testing.cli_harness import wait_for
from cvl.tests.fakes import FakeClock

LIMIT = 20.0
RUN = "one-1125-000000-0123456789"
LINE = b"2026-11-25T00:00:01Z a line\n"
HALF = b"2026-11-25T00:00:02Z half a line"
NEXT = b"2026-11-25T00:00:03Z the next\n"
END = b"2026-11-25T00:00:04Z [cvl] " + RUN.encode() + b": exit code 0\n"


class Api:
    """Answers each question for the log as it was told, and the last one for ever."""

    def __init__(self, *answers: bytes | CvlError) -> None:
        self.clock, self._answers = FakeClock(), list(answers)
        self.open = Event()

    @contextmanager
    def stream(self, _path: str, _limit: float, **_query: str) -> Iterator[Stream]:
        self.open.wait(LIMIT)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, CvlError):
            raise answer
        yield cast("Stream", Blocks([answer]))


class Blocks:
    def __init__(self, blocks: Sequence[bytes]) -> None:
        self._blocks = blocks

    def blocks(self) -> Iterator[bytes]:
        yield from self._blocks

    def end(self) -> None:
        pass


def shown(*answers: bytes | CvlError, over: bool = True) -> bytes:
    """Return what a reader hands on until it is done."""
    got: list[Piece] = []
    api = Api(*answers)
    reader = Reader(cast("Client", api), "/pod", BEGINNING, partial(Lines, RUN), got.append, silent)
    reader.over = over
    api.open.set()
    wait_for(lambda: reader.done)
    return b"".join(each.data for each in got)


def test_half_a_line_of_a_pod_that_vanishes_is_shown_once() -> None:
    there = LINE + HALF
    for reads in range(1, 5):
        assert shown(*[there] * reads, Missing("no pod")) == b"a line\nhalf a line"


def test_a_pod_that_is_missed_now_and_then_is_read_to_its_end() -> None:
    gone, broken = Missing("no pod"), Unreachable("broke")
    whole = LINE + NEXT
    answers = (LINE, gone, gone, LINE, gone, broken, whole, gone, whole + END)
    assert shown(*answers, over=False) == b"a line\nthe next\n"
