"""What a host or a file says of a run's end is a value or `Unreadable`, whatever it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.errors import LostContact, NotReady, Unreadable
from cvl.core.interfaces import Process
from cvl.core.scope import Scope
from cvl.core.spec import EXIT_CODES, Cause, ExitStatus, JobSpec, Source
from cvl.host import launch
from cvl.host.job import RemoteJob
from cvl.host.launch import Setup
from cvl.host.record import CAUSES, SHOWN, ending, ending_in, shown, state_of
from cvl.host.rpc import FarSide
from cvl.host.shell_files import library
from cvl.host.stream import Answer
from cvl.operations import foreign_runs
from cvl.transports.local import Local

ANSWERS = (
    "while read -r word nonce _ && [ $word != cvl ]; do :; done; "
    'echo "cvl:$nonce"; sed "s/^/cvl:$nonce /" "$1" >&2; echo "cvl:$nonce end" >&2'
)
GARBAGE = (
    "",
    "exited",
    "exited 0",
    "exited 256 0",
    "exited -1 0",
    f"exited {'9' * 5000} 0",
    f"exited 0 {'9' * 19}",
    "exited 0 -1",
    "exited 00 0",
    "exited 0x0 0",
    "exited 1_0 0",
    "exited ٣ 0",
    "exited 0 ٣",
    "exited 0 0 \x00",
    "exited 0 0\n",
    "exited  0 0",
    "exited 0 0 disk-full and-more",
    "Exited 0 0",
    "detached 0 0",
    "out-of-memory 137 0",
    "timeout 0 0",
    "stopped 124 0",
    "lost 0 0",
    "x" * 10_000_000,
    "exited 0 0 " + "disk-full " * 1_000_000,
)
ALIKE = st.lists(
    st.one_of(
        st.sampled_from([*(cause.value for cause in Cause), "disk-full", "0", "255", "256", "-1"]),
        st.integers().map(str),
        st.text(),
    ),
    max_size=6,
).map(" ".join)


class Saying(Local):
    """A host that answers every request with these lines."""

    def __init__(self, folder: Path, *lines: str | bytes) -> None:
        self._file = folder / "answers"
        self._file.write_bytes(b"".join(_bytes(line) + b"\n" for line in lines))

    def start(self, argv: Sequence[str]) -> Process:
        del argv
        return super().start(("sh", "-c", ANSWERS, "sh", str(self._file)))


def _bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")


def job_at(folder: Path, *lines: str | bytes, patience: float = 600.0) -> RemoteJob:
    """Return a job on a host that answers this."""
    return RemoteJob(FarSide(Saying(folder, *lines)), {"run": "one"}, patience=patience)


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_what_the_shell_files_write_is_read(cause: Cause) -> None:
    code = EXIT_CODES.get(cause, 255)
    status = ending(f"{cause} {code} 7 disk-full", "one")
    assert (int(status), status.cause, status.log_bytes) == (code, cause, 7)
    assert (status.run_id, status.detail) == ("one", "disk-full")


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:20]))
def test_what_makes_no_sense_is_no_ending(text: str) -> None:
    with pytest.raises(Unreadable) as caught:
        ending(text, "one")
    assert len(str(caught.value)) < 2 * SHOWN
    assert "one" in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.one_of(st.text(), ALIKE))
def test_any_text_is_an_ending_that_we_know_or_unreadable(text: str) -> None:
    try:
        status = ending(text, "one")
    except Unreadable:
        return
    assert 0 <= int(status) <= 255
    assert status.cause is Cause.EXITED or int(status) == EXIT_CODES[status.cause]
    assert status.log_bytes is not None
    assert f"{status.cause} {int(status)} {status.log_bytes}" in text


@given(st.lists(st.tuples(st.sampled_from(["result", "unknown", "running", "x"]), ALIKE)))
def test_any_answers_are_a_state_or_unreadable(said: list[tuple[str, str]]) -> None:
    try:
        state_of([Answer(word, rest) for word, rest in said], "one")
    except Unreadable:
        return
    assert len({each for each in said if each[0] != "x"}) == 1


@given(st.binary(max_size=400))
def test_any_file_is_an_ending_or_unreadable(tmp_path_factory: object, data: bytes) -> None:
    factory = cast("pytest.TempPathFactory", tmp_path_factory)
    file = factory.getbasetemp() / f"record-{os.getpid()}"
    file.write_bytes(data)
    try:
        assert isinstance(ending_in(file, "one"), ExitStatus)
    except Unreadable:
        return


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "result"
    assert ending_in(file, "one") is None
    file.write_text(f"{'timeout 124 12':<99}\n")
    status = ending_in(file, "one")
    assert status is not None
    assert (int(status), status.cause) == (124, Cause.TIMEOUT)


@pytest.mark.parametrize("what", ["pipe", "folder", "link", "huge", "closed", "socket"])
def test_whatever_lies_in_the_place_of_a_file_is_unreadable(what: str, tmp_path: Path) -> None:
    file = tmp_path / "result"
    put(what, file)
    with pytest.raises(Unreadable):
        ending_in(file, "one")


def put(what: str, file: Path) -> None:
    """Put something else in the place of a small file."""
    match what:
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "link":
            file.symlink_to(file.with_name("elsewhere"))
            file.with_name("elsewhere").write_text("exited 0 0\n")
        case "huge":
            with file.open("wb") as out:
                out.truncate(10 << 30)
        case "closed":
            file.write_text("x")
            file.chmod(0)
        case _:
            os.mknod(file, 0o140600)


@given(st.text())
def test_what_is_shown_of_a_foreign_text_is_short_and_acts_on_nothing(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= SHOWN + 1


UNREADABLE: tuple[list[str | bytes], ...] = (
    ["result exited"],
    ["result"],
    [f"result exited {'9' * 9000} 0"],
    ["result exited 256 0"],
    ["result exited 0 0", "result exited 1 0"],
    ["result exited 0 0", "unknown"],
    ["running", "result exited 0 0"],
    [b"result \xff\xfe\x00 0 0"],
    [],
)


@pytest.mark.parametrize("lines", UNREADABLE, ids=str)
def test_an_answer_that_makes_no_sense_is_neither_the_end_nor_going_on(
    lines: list[str | bytes], tmp_path: Path
) -> None:
    job = job_at(tmp_path, *lines)
    for _ in range(2):
        with pytest.raises(Unreadable):
            job.poll()
        with pytest.raises(Unreadable):
            job.stop(0.0)


@pytest.mark.parametrize("lines", UNREADABLE, ids=str)
def test_following_has_patience_with_an_answer_that_makes_no_sense(
    lines: list[str | bytes], tmp_path: Path
) -> None:
    with pytest.raises(LostContact) as caught:
        list(job_at(tmp_path, *lines, patience=0.3).chunks())
    assert "cvl attach one" in caught.value.hint


def test_what_a_host_says_is_named_when_following_gives_up(tmp_path: Path) -> None:
    with pytest.raises(LostContact, match=r"'exited  \[2Jwords'") as caught:
        list(job_at(tmp_path, "result exited \033[2Jwords", patience=0.1).chunks())
    assert str(caught.value).isprintable()


def test_an_answer_that_is_mended_is_taken(tmp_path: Path) -> None:
    job = job_at(tmp_path, "result exited")
    with pytest.raises(Unreadable):
        job.poll()
    Saying(tmp_path, "result exited 3 0")
    assert job.poll() == 3


def test_following_ends_when_less_output_comes_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(LostContact, match="less output than there is"):
        list(job_at(tmp_path, f"result exited 0 {10**17}", patience=0.1).chunks())


def test_following_ends_when_a_host_wants_to_be_installed_for_ever(tmp_path: Path) -> None:
    with pytest.raises(LostContact, match="or loses it"):
        list(job_at(tmp_path, f"need lib {library().hash}", patience=0.1).chunks())


@pytest.mark.parametrize(
    "what", ["tree -", "tree ../../x", "tree \0", f"tree {'0' * 32}", f"tree {'x' * 5000}", "LIB"]
)
def test_a_start_that_is_always_refused_ends_in_a_sentence(what: str, tmp_path: Path) -> None:
    (tmp_path / "repo/ex").mkdir(parents=True)
    (tmp_path / "repo/ex/f").write_text("1")
    need = f"need {what.replace('LIB', f'lib {library().hash}')}"
    spec = JobSpec(run_id="one", argv=("x",), source=Source(root=tmp_path / "repo", folder="ex"))
    with pytest.raises(NotReady, match="asks again and again"):
        launch.start(FarSide(Saying(tmp_path, need)), spec, {"run": "one"}, Setup(), Scope())


GOOD = f"{'exited 3 0':<99}\n"


@pytest.mark.parametrize("what", ["pipe", "folder", "link", "huge", "socket"])
@pytest.mark.parametrize("name", ["result", "meta.json", "place"])
def test_a_bad_file_of_one_run_from_elsewhere_hides_no_other(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_runs, "base", lambda: tmp_path)
    monkeypatch.setattr(foreign_runs, "_ends", dict)
    for run in ("bad", "good"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        if run == "good" or name != "result":
            (tmp_path / "runs" / run / "result").write_text(GOOD)
    put(what, tmp_path / "runs/bad" / name)
    found = {run.id: run for run in foreign_runs.visitors(set)}
    assert found["good"].exit_code == 3
    assert found["bad"].exit_code == (None if name == "result" else 3)


def test_a_bad_line_of_one_run_from_elsewhere_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["a result exited", "b result exited 3 0", "c running", "d \udcff\x00", "e", "../f x"]
    for run in "abcde":
        (tmp_path / "runs" / run).mkdir(parents=True)

    def ask(*_: object) -> tuple[list[Answer], bytes]:
        return [], "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")

    monkeypatch.setattr(foreign_runs, "base", lambda: tmp_path)
    monkeypatch.setattr(FarSide, "ask", ask)
    found = {run.id: run for run in foreign_runs.visitors(set)}
    assert {name: found[name].exit_code for name in "abcde"} == {**dict.fromkeys("acde"), "b": 3}
    assert [name for name in "abcde" if found[name].detail] == ["a", "d", "e"]


@given(st.binary())
def test_any_listing_of_runs_from_elsewhere_is_read(data: bytes) -> None:
    for line in data.decode("ascii", "replace").split("\n"):
        foreign_runs._line(line)
