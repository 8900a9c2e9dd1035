"""A log read over streams that break off anywhere is, byte for byte, what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cvl.providers.kubernetes.exit_line import LONG, Lines
from cvl.providers.kubernetes.log import TIME, Entries, Mark, Piece, instant, tail_after
from cvl.providers.kubernetes.log_reader import read, written

RUN = "one-1125-000000-0123456789"
LINE = 16384
"""Bytes at which Docker and containerd cut a line."""
START = 1_790_000_000 * 10**9


@dataclass(frozen=True, slots=True)
class Entry:
    time: int
    data: bytes


def shown(nanoseconds: int, *, fixed: bool = False) -> bytes:
    """A time as Go's RFC3339Nano: no zeros at its end; or with nine digits, as kubelets have it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    fraction = f".{rest:09}" if fixed else f".{rest:09}".rstrip("0").rstrip(".")
    return (datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction).encode()


def kubelet(entries: Sequence[Entry], since: str, *, modern: bool) -> bytes:
    """What the log endpoint sends: before 1.22 or so a time before each piece of a line."""
    start = int(datetime.fromisoformat(since).timestamp()) * 10**9 if since else 0
    out, fresh = [], True
    for entry in entries:
        if entry.time >= start:
            prefix = shown(entry.time, fixed=modern) + b"Z " if fresh or not modern else b""
            out.append(prefix + entry.data)
        fresh = entry.data.endswith(b"\n")
    return b"".join(out)


def logged(chunks: Sequence[bytes], gaps: Sequence[int]) -> list[Entry]:
    """Cut what a job writes as a runtime does; each piece bears a time."""
    *lines, rest = b"".join(chunks).split(b"\n")
    entries: list[Entry] = []
    now = START
    for line in [*(each + b"\n" for each in lines), rest]:
        for at in range(0, len(line), LINE):
            now += gaps[len(entries) % len(gaps)]
            entries.append(Entry(now, line[at : at + LINE]))
    return entries


def times(text: bytes) -> int:
    """The latest time in a text: in a long line an old kubelet's own cannot be told from it."""
    found = [0]
    for each in TIME.findall(text):
        with suppress(ValueError):
            found.append(instant(each[:-1].decode()))
    return max(found)


STRANGE = [b"\n", b"\n\n", b"10%\r20%\r", b"\xff", b"9999-99-99T99:99:99Z "]
TEXT = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([*STRANGE, b"2020-11-25T00:00:00.5Z no time\n"]),
    st.integers(1, 3).map(lambda n: b"x" * (n * LINE)),
    st.integers(LINE - 2, LINE + 2).map(lambda n: b"y" * n + b"\n"),
)
WRITTEN = st.lists(TEXT, max_size=12)
GAPS = st.lists(st.sampled_from([0, 0, 1, 999, 10**6, 10**9, 7 * 10**9]), min_size=1, max_size=9)


@given(WRITTEN, GAPS, st.booleans(), st.lists(st.integers(1, 40_000), max_size=8), st.data())
def test_streams_that_break_anywhere_join_without_a_gap(
    written: list[bytes], gaps: list[int], modern: bool, breaks: list[int], data: st.DataObject
) -> None:
    there = b"".join(written)
    entries = logged(written, gaps)
    assume(not any(times(part) >= START for part in (there, *written)))
    mark, got = Mark(), b""
    for size in [*breaks, 10**9]:
        resumed = Entries(mark)
        stream = kubelet(entries, mark.since, modern=modern)[:size]
        block = data.draw(st.integers(100, 70_000), label="block")
        for at in range(0, len(stream), block):
            for piece in resumed.feed(stream[at : at + block]):
                got, mark = got + piece.data, piece.after
        assert not resumed.lost
        if size == 10**9:
            for piece in resumed.end():
                got, mark = got + piece.data, piece.after
        assert got == there[: len(got)]
    assert got == there


def test_a_growing_log_is_followed_from_any_mark() -> None:
    entries = [Entry(START + n * 10**8, b"line %d\n" % n) for n in range(100)]
    for at in range(1, 100):
        first = Entries(Mark())
        pieces = list(first.feed(kubelet(entries[:at], "", modern=True)))
        again = Entries(pieces[-1].after)
        stream = kubelet(entries, pieces[-1].after.since, modern=True)
        more = [piece.data for piece in again.feed(stream)]
        assert b"".join(more) == b"".join(entry.data for entry in entries[at:])


@pytest.mark.parametrize("back", [10**6, 9 * 10**8 + 1, 19 * 10**8 + 1])
def test_a_clock_that_was_set_back_a_little_repeats_nothing(back: int) -> None:
    """Wherever the stream breaks, and however often."""
    times = [START + n * 10**8 - (back if n >= 30 else 0) for n in range(60)]
    entries = [Entry(time, b"line %d\n" % n) for n, time in enumerate(times)]
    for cuts in ([each, each + 1] for each in range(1, 60)):
        mark, got = Mark(), b""
        for cut in [*cuts, 60]:
            resumed = Entries(next(iter(read(written({0: mark})).values())))
            for piece in resumed.feed(kubelet(entries[:cut], mark.since, modern=True)):
                got, mark = got + piece.data, piece.after
            assert not resumed.lost
        assert got == b"".join(entry.data for entry in entries)


def test_a_cursor_of_an_older_cvl_is_read() -> None:
    assert read('{"0":["t",2,7]}') == {0: Mark(time="t", number=2, at=7)}


@given(st.integers(1, 400), st.integers(0, 399), st.integers(0, 50))
def test_what_lies_within_one_second_is_found_from_the_end(total: int, at: int, more: int) -> None:
    """Whoever is cut off before a second is over cannot get on by asking for that second."""
    entries = [Entry(START + n, b"line %d\n" % n) for n in range(total)]
    goal = Mark(time=shown(entries[at % total].time).decode() + "Z", number=1, at=len(b"line "))
    grown = [*entries, *(Entry(START + 10**6 + n, b"new\n") for n in range(more))]
    asked: list[int] = []

    def first(lines: int) -> str:
        asked.append(lines)
        return shown(entries[-lines:][0].time).decode() + "Z"

    tail = tail_after(goal, first)
    assert len(asked) <= 60
    if tail == 0:
        assert at % total == 0  # nothing lies before it
        return
    resumed = Entries(goal, strict=True)
    got = b"".join(
        piece.data for piece in resumed.feed(kubelet(grown[-tail - more :], "", modern=True))
    )
    assert got == b"".join(entry.data for entry in grown[at % total :])[len(b"line ") :]


def test_a_tail_that_began_too_late_gives_nothing() -> None:
    resumed = Entries(Mark(time=shown(START).decode() + "Z", number=1, at=1), strict=True)
    assert not list(resumed.feed(kubelet([Entry(START + 1, b"later\n")], "", modern=True)))
    assert (resumed.lost, resumed.seeking) == (True, True)


def test_what_was_put_away_meanwhile_is_told() -> None:
    resumed = Entries(Mark(time="2026-11-25T00:00:00Z", number=1, at=5))
    later = [Entry(START * 2, b"later\n")]
    got = [piece.data for piece in resumed.feed(kubelet(later, "", modern=True))]
    assert (got, resumed.lost) == ([b"later\n"], True)


def test_the_kubelets_own_words_are_no_output() -> None:
    entries = Entries()
    said = b"unable to retrieve container logs for docker://0123456789abcdef\n"
    assert [piece.data for piece in entries.feed(shown(START) + b"Z one\n" + said)] == [b"one\n"]
    assert entries.strays == [said]


@pytest.mark.parametrize(("block", "size"), [(1, 50_000), (7, 100_000), (100_000, 1_000_000)])
def test_a_long_line_is_one_line(block: int, size: int) -> None:
    line = b"z" * size + b"\n"
    stream = kubelet(logged([line], [1000]), "", modern=False)
    entries = Entries()
    got = [
        piece.data
        for at in range(0, len(stream), block)
        for piece in entries.feed(stream[at : at + block])
    ]
    assert b"".join(got) == line


def test_nine_digits_may_end_in_zeros() -> None:
    entries = Entries()
    line = b"2026-11-25T00:00:00.120000000Z " + b"x" * 16384
    line += b"2026-11-25T00:00:00.500000000Z y\n"
    assert b"".join(piece.data for piece in entries.feed(line)) == b"x" * 16384 + b"y\n"


def test_a_date_that_is_none_is_output() -> None:
    entries = Entries()
    data = b"z" * 5000 + b"9999-99-99T99:99:99Z x\n"
    got = [piece.data for piece in entries.feed(shown(START) + b"Z " + data)]
    assert b"".join(got) == data


def test_times_are_exact_to_the_nanosecond() -> None:
    assert instant("2026-11-25T00:00:00.000000001Z") - instant("2026-11-25T00:00:00Z") == 1
    assert instant("2026-11-25T01:00:00.5+01:00") == instant("2026-11-25T00:00:00.5Z")


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[Piece]:
    at = 0
    for size in [*sizes, len(data)]:
        part = data[at : at + size]
        at += len(part)
        if part:
            yield Piece(data=part, after=Mark(time="t", number=1, at=at))


@given(
    st.lists(
        st.sampled_from([b"a", b"[cvl] ", b"[cvl] one-1125", b"\n", b": exit code 3", b"half"]),
        max_size=8,
    ),
    st.sampled_from([b"0", b"137 (out of memory)", b"143 (stopped)"]),
    st.lists(st.integers(1, 9), max_size=30),
)
def test_the_last_line_is_taken_out_and_nothing_else(
    output: list[bytes], code: bytes, sizes: list[int]
) -> None:
    last = Lines(RUN)
    whole = b"".join(output)
    line = f"[cvl] {RUN}: exit code ".encode() + code + b"\n"
    got, at = b"", 0
    for piece in pieces(whole + line, sizes):
        if passed := last.feed([piece]):
            got += passed.data
            at = passed.after.at
    assert got == whole
    assert at == len(whole)
    assert last.ending
    assert (last.ending.code, last.ending.why) == (
        int(code.split()[0]),
        code.decode().partition("(")[2].rstrip(")"),
    )


def test_what_only_looks_like_the_last_line_is_shown_in_the_end() -> None:
    last = Lines(RUN)
    word = Piece(data=f"[cvl] {RUN}: exit".encode(), after=Mark(time="t", number=1, at=30))
    assert last.feed([word]) is None
    assert last.end() == word
    assert last.ending is None


def test_a_cursor_is_read_as_it_was_written() -> None:
    marks = {0: Mark(time="2026-11-25T00:00:00.5Z", number=2, at=7), 11: Mark(time="t", number=1)}
    assert read(written(marks)) == marks
    assert read("") == {}


@given(st.lists(st.sampled_from([b"a", b"bc\n", b"\n", b"d\ne"]), max_size=20))
def test_where_several_write_only_whole_lines_pass(parts: list[bytes]) -> None:
    lines, whole, got = Lines(RUN, LONG), b"".join(parts), b""
    for piece in pieces(whole, [len(part) for part in parts]):
        if passed := lines.feed([piece]):
            got += passed.data
            assert passed.after.at == len(got)
        assert got == whole[: whole[: piece.after.at].rfind(b"\n") + 1]
    rest = lines.end()
    assert got + (rest.data if rest else b"") == whole
