"""What a person sees on a terminal, a second later: not which bytes were sent, but what stands."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.cli_harness import FOLDER, Desk, wait_for
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.sshd import Sshd
from cvl.tests.screens import Seen, is_status, seen, status

WIDE = 300
"""Columns on which no message of ours is broken into two lines."""
QUESTION = "go ahead? [y/N]:"
QUESTION_LINE = f"cvl: {QUESTION}"
RENTING = ("--remote", "lambda", "--gpu-type", "gpu_8x_h100_sxm5")


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=("--ssh", "testhost"), env=host.env)


@pytest.fixture
def here(tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=("--local",))


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as cloud:
        yield cloud


@pytest.fixture
def renting(cloud: LambdaCloud, tmp_path: Path) -> Desk:
    env = {**cloud.env, "LAMBDA_API_RPS": "0", "LAMBDA_SETTLE": "0.5"}
    return Desk(folder=tmp_path, options=RENTING, env=env)


def asked(it: Seen) -> list[str]:
    """Wait for the question, and a second longer; return what stands then."""
    it.shows(QUESTION)
    *_, last = it.over(1.2)
    return last


# --- questions


def test_the_price_and_the_question_stay(renting: Desk, cloud: LambdaCloud) -> None:
    with seen(renting, "run", *RENTING, "one", "sh", "true") as it:
        lines = asked(it)
        assert lines[-1].endswith(QUESTION)
        assert any("an hour" in line for line in lines)
        assert status(lines) == ""
        assert (it.screen.cursor.y, it.cursor_is_seen) == (len(lines) - 1, True)
        it.resize(70, 20)
        *_, lines = it.over(0.7)
        assert any(QUESTION in line for line in lines)
        it.type("n\n")
        assert it.ended() == 125
        assert it.shown[-1] == "cvl: not agreed; nothing was rented"
    assert cloud.alive() == []


@pytest.mark.parametrize(("keys", "code"), [("\x03", 130), ("\x04", 125), ("no\n", 125)])
def test_whoever_does_not_agree_is_told_that_nothing_was_rented(
    keys: str, code: int, renting: Desk, cloud: LambdaCloud
) -> None:
    with seen(renting, "run", *RENTING, "one", "sh", "true") as it:
        asked(it)
        it.type(keys)
        assert it.ended() == code
        assert it.shown[-1] == "cvl: not agreed; nothing was rented"
        assert any(line.startswith("cvl: go ahead?") for line in it.shown)
    assert (cloud.alive(), cloud.keys(), renting.runs()) == ([], [], [])


def test_what_is_no_answer_is_asked_again(renting: Desk) -> None:
    with seen(renting, "run", *RENTING, "one", "sh", "true") as it:
        asked(it)
        it.type("perhaps\n")
        it.until(lambda lines: sum(QUESTION in line for line in lines) == 2)
        it.type("\n")
        assert it.ended() == 125


def test_a_question_is_there_again_after_ctrl_z(renting: Desk) -> None:
    with seen(renting, "run", *RENTING, "one", "sh", "true") as it:
        asked(it)
        stopped(it, signal.SIGSTOP)
        it.screen.reset()  # what a shell has written meanwhile
        it.process.send_signal(signal.SIGCONT)
        assert it.shows(QUESTION)[-1].startswith("cvl: go ahead?")
        it.type("\n")
        assert it.ended() == 125


@pytest.mark.parametrize("keys", ["\x03", "\x04", "n\n"])
def test_other_questions_say_what_was_not_done(keys: str, here: Desk) -> None:
    (here.repo / "cvl.toml").write_text('[runner.ssh]\nhost = "box"\n')
    with seen(here, "trust") as it:
        it.shows("trust this, as it is now? [y/N]:")
        it.type(keys)
        assert it.ended() == (130 if keys == "\x03" else 125)
        assert it.shown[-1] == "cvl: not agreed; nothing is trusted"


def test_nobody_can_be_asked_without_a_standard_input(renting: Desk) -> None:
    command = 'exec "$@" <&-'
    words = ("sh", "-c", command, "sh", sys.executable, "-m", "cvl", "run", *RENTING)
    it = Seen([*words, "one", "sh", "true"], renting.environment, renting.repo)
    assert it.ended() == 2
    assert any("nobody is there to ask" in line for line in it.shown)


def test_a_question_of_a_command_in_the_background_is_there_in_front(renting: Desk) -> None:
    """By key, in a shell: asked behind it, brought in front, sent back, and brought again."""
    env = {**renting.environment, "PS1": "$ ", "HISTFILE": ""}
    it = Seen(["bash", "--norc", "--noediting", "-i"], env, renting.repo, columns=WIDE)
    it.shows("$")
    it.type(f"{sys.executable} -m cvl run {' '.join(RENTING)} one sh true &\n")
    it.shows(QUESTION)
    for key in ("", "\x1a", "\x1a"):
        it.type(key)
        for _ in it.over(1):  # the shell is there again
            pass
        it.screen.reset()
        it.type("fg\n")
        it.until(lambda lines: lines and lines[-1] == QUESTION_LINE)
    it.type("n\n")
    it.shows("not agreed; nothing was rented")
    it.type("exit\n")
    assert it.ended() == 125


def stopped(it: Seen, number: int) -> None:
    """Stop cvl, and wait until it is."""
    it.process.send_signal(number)
    stat = Path(f"/proc/{it.process.pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    for _ in it.over(0.1):
        pass


# --- the status line


def test_it_stands_below_the_output_and_goes_with_the_run(desk: Desk) -> None:
    with seen(desk, "run", *desk.options, "one", "sh", "echo one; sleep 3; echo two") as it:
        lines = it.until(lambda lines: "one" in lines and "running" in status(lines))
        assert lines.index("one") < lines.index(status(lines)) == len(lines) - 1
        assert it.cursor_is_seen
        assert it.ended() == 0
        assert status(it.shown) == ""
        assert [line for line in it.shown if not line.startswith("cvl:")] == ["one", "two"]


def test_it_does_not_blink_while_a_job_prints_once_a_second(desk: Desk) -> None:
    loop = "for i in 1 2 3 4 5; do echo tick $i; sleep 1; done"
    with seen(desk, "run", *desk.options, "one", "sh", loop) as it:
        it.until(lambda lines: "tick 1" in lines and "running" in status(lines))
        for lines in it.over(3.2):
            assert "running" in status(lines), "\n".join(lines)
        assert "tick 4" in it.shown
        assert it.ended() == 0


def test_after_ctrl_z_all_is_as_it_was(desk: Desk, host: Sshd) -> None:
    """By key, in a shell that has it stand in front again."""
    env = {**desk.environment, "PS1": "$ ", "HISTFILE": ""}
    it = Seen(["bash", "--norc", "--noediting", "-i"], env, desk.repo, columns=WIDE)
    options, python = " ".join(desk.options), sys.executable
    loop = "echo one; while [ ! -e $CVL_WORK_DIR/go ]; do sleep .1; done; echo two; sleep 1.5"
    it.shows("$")
    it.type(f"{python} -m cvl run {options} one sh '{loop}'\n")
    it.until(lambda lines: "one" in lines and "running" in status(lines))
    it.type("\x1a")
    it.until(lambda lines: "Stopped" in lines[-2] and lines[-1] == "$")
    assert (status(it.shown), it.cursor_is_seen) == ("", True)
    it.type("fg\n")
    it.until(lambda lines: "running" in status(lines))
    assert len([line for line in it.shown if " · " in line]) == 1
    (run,) = desk.runs()
    (host.home / ".cvl/jobs" / run / "work/go").touch()
    it.shows("two")
    it.until(lambda lines: lines[-1] == "$")
    assert (status(it.shown), it.cursor_is_seen) == ("", True)
    it.type("exit\n")
    assert it.ended() == 0


def test_after_a_stop_without_a_word_it_goes_on(desk: Desk, host: Sshd) -> None:
    script = 'echo one; until [ -e "$CVL_WORK_DIR/go" ]; do sleep .1; done; echo two; sleep 1.5'
    with seen(desk, "run", *desk.options, "one", "sh", script, columns=WIDE) as it:
        it.until(lambda lines: "one" in lines and "running" in status(lines))
        stopped(it, signal.SIGSTOP)
        assert it.cursor_is_seen
        it.process.send_signal(signal.SIGCONT)
        it.until(lambda lines: "running" in status(lines))
        (run,) = desk.runs()
        (host.home / ".cvl/jobs" / run / "work/go").touch()
        it.shows("two")
        assert it.ended() == 0
        assert [line for line in it.shown if not line.startswith("cvl:")] == ["one", "two"]


def test_attach_counts_from_the_start_of_the_job(here: Desk) -> None:
    run = here.sh("sleep 1000", "-d").out.decode().strip()
    time.sleep(2.1)
    with seen(here, "attach", run) as it:
        line = status(it.until(lambda lines: "running" in status(lines)))
        found = re.search(r" · (\d+)s", line)
        assert found
        assert int(found[1]) >= 2
        assert "$" not in line, "a machine of one's own has no price"
        it.type("\x03")
        assert it.ended() == 0


def test_only_the_jobs_bytes_count(here: Desk) -> None:
    with seen(here, "run", "--local", "one", "sh", "sleep 2; echo 123456789; sleep 5") as it:
        for lines in it.over(1.5):
            assert "B/s" not in status(lines)
        line = status(it.until(lambda lines: "B/s" in status(lines)))
        found = re.search(r"(\d+) B/s", line)
        assert found
        assert int(found[1]) <= 5
        it.type("\x03")
        assert it.ended() == 130


@pytest.mark.parametrize("columns", [10, 20, 40])
def test_a_narrow_terminal(columns: int, here: Desk) -> None:
    script = "echo one; sleep 2; echo two; sleep 1"
    with seen(here, "run", "--local", "one", "sh", script, columns=columns) as it:
        it.until(lambda lines: "one" in lines)
        rows = {len(list(filter(is_status, lines))) for lines in it.over(1)}
        assert rows <= {0, 1}
        assert it.ended() == 0
        assert status(it.shown) == ""
        assert "two" in it.shown


def test_a_window_that_becomes_narrower_leaves_nothing_behind(here: Desk) -> None:
    with seen(here, "run", "--local", "one", "sh", "echo one; sleep 3; echo two") as it:
        it.until(lambda lines: "one" in lines and "running" in status(lines))
        it.resize(30)
        *_, lines = it.over(0.8)
        assert "running" in status(lines)
        it.resize(100)
        assert it.ended() == 0
        assert [line for line in it.shown if not line.startswith("cvl:")] == ["one", "two"]


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_can_nothing_is_sent_nothing_but_lines(term: str, here: Desk) -> None:
    with seen(here, "run", "--local", "one", "sh", "echo one; sleep 1", env={"TERM": term}) as it:
        assert it.ended() == 0
        assert b"\x1b" not in it.bytes


def test_no_colours_are_sent(here: Desk) -> None:
    with seen(here, "run", "--local", "one", "sh", "echo one; sleep 1") as it:
        assert it.ended() == 0
        assert not re.search(rb"\x1b\[[0-9;]*m", it.bytes)


# --- whose line it is


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$", "true"])
@pytest.mark.parametrize("wait", ["", "sleep 1;"])
def test_a_message_is_never_glued_to_a_line_of_the_job(end: str, wait: str, desk: Desk) -> None:
    script = f"echo x >made; printf half; {wait} {end}"
    with seen(desk, "run", *desk.options, "one", "sh", script, columns=WIDE) as it:
        it.ended()
        assert "half" in it.shown, "\n".join(it.shown)
        assert all(line.startswith("cvl: ") or line == "half" for line in it.shown)


@pytest.mark.parametrize("keys", ["\x03", "\x03\x03"])
def test_nor_is_what_answers_ctrl_c(keys: str, desk: Desk) -> None:
    script = "printf half; trap '' INT TERM; sleep 1000"
    words = ("run", "--grace", "1s", *desk.options, "one", "sh", script)
    with seen(desk, *words, columns=WIDE) as it:
        it.shows("half")
        for key in keys:
            it.type(key)
            for _ in it.over(0.2):
                pass
        assert it.ended() == 130
        first, *others = it.shown
        assert first.startswith("half")
        assert all(line.startswith("cvl: ") for line in others), "\n".join(it.shown)


KINDS = (
    "console.say('one')",
    "console.warn('one')",
    "console.phase('fetched', 'one')",
    "console.phase('warning', 'one')",
    "console.ended(ExitStatus(3, run_id='one'))",
    "terminal.say('one')",
    "terminal.complain('one', 'two')",
    "terminal.say_json({'one': 1})",
    "terminal.show('one')",
    "terminal.show_text('one')",
    "terminal.show_json(['one'])",
    "terminal.show_table([['one', 'two']])",
    "cli.main(['no-such-command'])",
    "cli.main(['attach', 'no-such-run'])",
    "terminal.agree('one', 'two')",
)
ODD_ENDS = (
    *("half", "half\\033[31m", "line\\nhalf", "100%\\r", "\\033[Khalf"),
    *("half\\033", "half\\033[3", "half\\033]0;a title", "half\\303"),
)
"""Some end within a sequence, which would take our words for its rest, or within a character."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ODD_ENDS)
def test_no_kind_of_message_is_glued_to_it(kind: str, end: str, here: Desk) -> None:
    program = (
        "from cvl import cli; from cvl.cli import terminal;"
        "from cvl.cli.console import Console; from cvl.core.spec import ExitStatus, LogChunk;"
        "console = Console();"
        f"console.output(LogChunk(data=b'{end}', cursor='')); {kind}"
    )
    it = Seen([sys.executable, "-c", program], here.environment, here.repo)
    ends = time.monotonic() + 30
    while it.process.poll() is None and "[y/N]" not in "".join(it.shown):
        assert time.monotonic() < ends
        it.look()
    it.type("\n")
    it.ended()
    (line,) = [line for line in it.shown if "half" in line or "100%" in line]
    assert line in {"half", "half\ufffd", "100%"}
    assert len(it.shown) > it.shown.index(line) + 1


@pytest.mark.parametrize("place", ["file", "pipe"])
def test_nor_where_both_streams_go_to_one_place(place: str, here: Desk, tmp_path: Path) -> None:
    words = f"{sys.executable} -m cvl run --local one sh 'printf half; exit 3'"
    into = (
        f"{words} >{tmp_path}/all 2>&1"
        if place == "file"
        else f"{words} 2>&1 | cat >{tmp_path}/all"
    )
    it = Seen(["sh", "-c", into], here.environment, here.repo)
    it.ended()
    lines = (tmp_path / "all").read_text().splitlines()
    assert lines[0] == "half"
    assert all(line.startswith("cvl: ") for line in lines[1:])


def test_the_output_alone_is_exact(here: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "printf 'a\\033[31mb'; sleep 1; printf '\\033[?25lc'"
    with seen(here, "run", "--local", "one", "sh", script, redirect={1: out}) as it:
        assert it.ended() == 0
        assert out.read_bytes() == b"a\x1b[31mb\x1b[?25lc"
        assert b"\x1b" not in it.bytes


def said_between(one: str, two: str, here: Desk) -> Seen:
    """Return what is seen of a message of ours that comes within the output of a job."""
    chunks = [f"console.output(LogChunk(data=b'{each}', cursor=''));" for each in (one, two)]
    program = (
        "from cvl.cli.console import Console; from cvl.core.spec import LogChunk;"
        "console = Console();"
        f"{chunks[0]} console.say('ours'); {chunks[1]} console.close(); print('after')"
    )
    it = Seen([sys.executable, "-c", program], here.environment, here.repo)
    assert it.ended() == 0
    return it


def test_a_sequence_goes_on_after_a_message_of_ours(here: Desk) -> None:
    it = said_between("one\\033[3", "1mred\\n", here)
    assert it.shown == ["one", "cvl: ours", "red", "after"]
    assert [plain(it, line) for line in range(4)] == [True, True, False, True]
    it = said_between("one\\033]0;a ti", "tle\\007two\\n", here)
    assert (it.shown, it.screen.title) == (["one", "cvl: ours", "two", "after"], "a title")


@pytest.mark.parametrize("size", [3, 100, 100_000])
def test_a_title_that_does_not_end_swallows_nothing(size: int, here: Desk) -> None:
    it = said_between("one\\n\\033]0;", f"'+b'x'*{size}+b'\\n", here)
    assert it.shown[-1] == "after"
    assert "cvl: ours" in it.shown


def test_the_end_of_a_mode_that_moves_the_cursor_writes_nothing_over(here: Desk) -> None:
    it = said_between("\\033[?6h\\033[4hone\\n", "two\\n", here)
    assert [line for line in it.shown if line] == ["cvl: ours", "two", "after"], it.bytes
    assert b"\x1b[4l" in it.bytes


# --- a job that paints


def test_a_progress_bar_is_left_alone(here: Desk) -> None:
    bar = "for i in 1 2 3; do printf '\\r%s0%%|###' $i; sleep .6; done; echo; echo done; sleep 1"
    with seen(here, "run", "--local", "one", "sh", bar) as it:
        it.shows("30%|###")
        assert status(it.shown) == ""
        it.until(lambda lines: "done" in lines and "running" in status(lines))
        assert it.ended() == 0
        assert [line for line in it.shown if not line.startswith("cvl:")] == ["30%|###", "done"]


@pytest.mark.parametrize("left", ["\\033[31m", "\\033[1;44m", "\\033[0;7m"])
def test_colours_that_a_job_leaves_on(left: str, here: Desk) -> None:
    script = f"printf '{left}loud\\n'; sleep 1; echo still; sleep 1"
    with seen(here, "run", "--local", "one", "sh", script) as it:
        it.until(lambda lines: "still" in lines and "running" in status(lines))
        line = it.shown.index(status(it.shown))
        assert plain(it, line), "ours is not in the job's colours"
        assert not plain(it, it.shown.index("still")), "and the job's are still its own"
        assert it.ended() == 0
        it._stream.feed(b"after\r\n")
        assert plain(it, it.shown.index("after"))


def plain(it: Seen, line: int) -> bool:
    """Return whether a line of the screen begins in no colours."""
    first = it.screen.buffer[line][0]
    return (first.fg, first.bg, first.reverse, first.bold) == ("default", "default", False, False)


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$"])
@pytest.mark.parametrize("how", [("--local",), ("--local", "-q")])
def test_a_screen_that_a_job_takes_and_dies_over(
    how: tuple[str, ...], end: str, here: Desk
) -> None:
    script = (
        f"printf '\\033[?1049h\\033[?25l\\033[?1000h\\033(0\\033[2;5r\\033[31mqq'; sleep 1; {end}"
    )
    with seen(here, "run", *how, "one", "sh", script) as it:
        for lines in it.over(1):
            assert status(lines) == ""
        it.ended()
        for undone in (b"[?1049l", b"[?25h", b"[?1000l", b"(B", b"[r", b"[0m"):
            assert b"\x1b" + undone in it.bytes
        assert it.cursor_is_seen
        it._stream.feed(b"\r\nqq\r\n")
        assert "qq" in it.shown


def test_logs_leave_no_colours_behind(here: Desk) -> None:
    assert here.sh("printf '\\033[31m\\033[?25lred'; exit 3").code == 3
    with seen(here, "logs", here.runs()[0]) as it:
        assert it.ended() == 0
        assert it.bytes.startswith(b"\x1b[31m\x1b[?25lred")
        assert it.cursor_is_seen
        it._stream.feed(b"\r\nafter\r\n")
        assert plain(it, it.shown.index("after"))


def test_names_that_are_wide(here: Desk) -> None:
    folder = "examples/conformance/\u65e5\u672c\U0001f600" + "\u8a9e" * 30
    (here.repo / folder).mkdir()
    for file in (here.repo / FOLDER).iterdir():
        (here.repo / folder / file.name).write_bytes(file.read_bytes())
    with seen(here, "run", "--local", folder, "sh", "echo one; sleep 2", columns=40) as it:
        for lines in it.over(1.5):
            assert len(list(filter(is_status, lines))) <= 1
        assert it.ended() == 0
        assert status(it.shown) == ""
