"""What stands between sshd and our commands: start-up files, forced commands, other shells.

Each host works, or one sentence says why not, in a few seconds, and nothing was started.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvl.core.errors import NotReady, Unreadable
from cvl.core.printable import plain
from cvl.host.answers import AnswerReader
from cvl.host.request import PREFACE, REQUEST, SCRIPT
from cvl.host.rpc import FarSide
from cvl.testing.cli_harness import Desk, Done
from cvl.testing.sshd import Sshd
from cvl.transports.ssh.openssh import OpenSSH

SCRIPT_OF_OURS = "printf 'a b\\n'; echo x >result; exit 3"
RUN = '"$SSH_ORIGINAL_COMMAND"'
FEW = 60.0
"""Seconds; some on a machine with nothing else to do."""

WORKS_RC = {
    "a title without a line break": r"printf '\033]0;me\007'; printf '\033]0;me\007' >&2",
    "a line is read": "read -p 'press enter ' answer",
    "some lines are read": "read a; read b; read c",
    "a key is read": "read -n1 key",
    "stty": "stty -echo; mesg n; tput reset",
    "set -u": "set -u; echo $NOBODY_HAS_SET_THIS",
    "traps": "trap 'echo bye; echo bye >&2' EXIT; trap '' INT HUP",
    "megabytes": r"noise() { head -c 5000000 /dev/zero | tr '\0' x; }; noise; noise >&2",
    "NULs": r"printf 'a\0b\0'; printf 'a\0b' >&2",
    "no UTF-8": r"printf 'gr\374\337e'; printf 'gr\374\337e' >&2",
    "each line shown": "set -v",
    "what looks like a mark": (
        "echo 'cvl:- end'; echo 'cvl:0123456789abcdef result exited 0 0' >&2; "
        r"printf '\0cvl:'; printf 'cvl:' >&2"
    ),
    "an environment that means harm": (
        "export CDPATH=/tmp POSIXLY_CORRECT=1 GZIP=-9 ENV=/none BASH_ENV=/none word=cvl n=99"
    ),
}
"""What a .bashrc may do to us, and the run goes right all the same."""

WORKS_FORCED = {
    "words behind us": f"sh -c {RUN}; echo bye; echo bye >&2",
    "an end that takes its time": f"sh -c {RUN}; echo bye; sleep 1000",
    "both channels in one": f"sh -c {RUN} 2>&1",
    "another exit code": f"sh -c {RUN}; exit 9",
    "always 0": f"sh -c {RUN}; exit 0",
    "dash as login shell": f"exec dash -c {RUN}",
    "restricted bash as login shell": f"unset PATH; PATH=/usr/bin:/bin exec bash -c {RUN}",
}

NAMED_RC = {
    "it ends": ("exit 0", "it says nothing"),
    "it ends and says why": ("echo maintenance; exit 3", "it says: maintenance (exit code 3)"),
    "its words are for a terminal": (
        r"printf '\033[31mgo \033]0;t\007away\033[0m\r\n' >&2; exit 1",
        "it says: go away (exit code 1)",
    ),
    "set -e": ("set -e; false", "it says nothing (exit code 1)"),
    "all is read": ("cat >/dev/null", "reads what is sent to us"),
    "another sh": ("exec dash", "starts another shell"),
    "another csh": ("exec tcsh", "starts another shell"),
    "another fish": ("exec fish", "starts another shell"),
    "no stdout": ("exec >&-", "what it writes to stdout does not arrive"),
    "no stderr": ("exec 2>&-", "what it writes to stderr does not arrive"),
    "stdout is stderr": ("exec >&2", "what it writes to stdout does not arrive"),
    "the channels changed round": (
        "exec 3>&1 1>&2 2>&3 3>&-",
        "what it writes to stdout does not arrive",
    ),
    "a terminal wanted": ("exec tmux", "not a terminal"),
    "an expired password": (
        (
            "echo 'WARNING: Your password has expired.'; "
            "echo 'Password change required but no TTY available.' >&2; exit 1"
        ),
        "Your password has expired",
    ),
}

NAMED_FORCED = {
    "echo": ("echo hello", "it says: hello"),
    "true": ("/bin/true", "it says nothing"),
    "false": ("/bin/false", "it says nothing (exit code 1)"),
    "nologin": ("/usr/sbin/nologin", "This account is currently not available"),
    "cat": ("cat", "sends back what it is sent"),
    "cat to stderr": ("cat >&2", "sends back what it is sent"),
    "sh": ("/bin/sh", "starts another shell"),
    "internal-sftp": ("internal-sftp", "sftp connections only"),
    "the command printed": (f"echo {RUN}", "it prints the command"),
    "git's own shell": ("git shell -c " + RUN, "it says: fatal: unrecognized command"),
    "a menu": ("echo forbidden: " + RUN, "it says: forbidden: exec sh -c"),
    "no stderr": (f"sh -c {RUN} 2>/dev/null", "what it writes to stderr does not arrive"),
    "no stdout": (f"sh -c {RUN} >/dev/null", "what it writes to stdout does not arrive"),
    "other line ends": (
        f"sh -c {RUN} | sed 's/$/\\r/'",
        "what it writes to stdout does not arrive",
    ),
    "nothing at all": (f"sh -c {RUN} >/dev/null 2>&1", "it says nothing"),
}


def bash_is_login_shell() -> bool:
    return pwd.getpwuid(os.getuid()).pw_shell.endswith("bash")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def desk_at(sshd: Sshd, folder: Path, flag: str = "--docker") -> Desk:
    return Desk(folder=folder / "desk", options=(flag, "testhost"), env=sshd.env)


def works(desk: Desk) -> None:
    done = desk.sh(SCRIPT_OF_OURS)
    assert (done.code, done.out) == (3, b"a b\n"), done
    assert desk.result("result") == b"x\n"
    found = desk.cvl("doctor", "--host", "testhost")
    assert b"testhost: reached" in found.out, found
    assert b"home there: writable" in found.out, found


def named(desk: Desk, words: str) -> None:
    """See one sentence and a hint, soon; nothing started, nothing that nags."""
    began = time.monotonic()
    done = desk.sh(SCRIPT_OF_OURS)
    assert time.monotonic() - began < FEW
    refused(done, words)
    assert [run["cause"] for run in desk.ps()] == ["not-started"]
    assert desk.cvl("ps").out.count(b"one-") == 1
    found = desk.cvl("doctor", "--host", "testhost")
    assert found.code == 125
    assert b"reached" not in found.out, found


def refused(done: Done, words: str) -> None:
    assert (done.code, done.out) == (125, b""), done
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["cvl", "hint"], done.err
    assert "testhost" in done.err
    assert words in done.err, done.err
    assert "may still run" not in done.err


@pytest.mark.skipif(not bash_is_login_shell(), reason="the account's login shell is not bash")
@pytest.mark.parametrize("name", WORKS_RC)
def test_a_bashrc_that_we_can_live_with(name: str, folder: Path) -> None:
    with Sshd(folder / "host") as sshd:
        (sshd.home / ".bashrc").write_text(WORKS_RC[name] + "\n")
        works(desk_at(sshd, folder))


@pytest.mark.parametrize("name", WORKS_FORCED)
def test_a_forced_command_that_we_can_live_with(name: str, folder: Path) -> None:
    with Sshd(folder / "host", options=(f"ForceCommand {WORKS_FORCED[name]}",)) as sshd:
        works(desk_at(sshd, folder))


@pytest.mark.skipif(not bash_is_login_shell(), reason="the account's login shell is not bash")
@pytest.mark.parametrize("name", NAMED_RC)
def test_a_bashrc_that_we_cannot_live_with_is_named(name: str, folder: Path) -> None:
    line, words = NAMED_RC[name]
    program = line.removeprefix("exec ")
    if program != line and program.isalpha() and not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    with Sshd(folder / "host") as sshd:
        (sshd.home / ".bashrc").write_text(line + "\n")
        named(desk_at(sshd, folder), words)


@pytest.mark.parametrize("name", NAMED_FORCED)
def test_a_forced_command_that_is_not_ours_is_named(name: str, folder: Path) -> None:
    line, words = NAMED_FORCED[name]
    with Sshd(folder / "host", options=(f"ForceCommand {line}",)) as sshd:
        named(desk_at(sshd, folder), words)


def test_a_banner_and_a_message_of_the_day(folder: Path) -> None:
    banner = folder / "banner"
    banner.write_text("\x1b[31mAuthorised use only.\x1b[0m")
    lines = (f"Banner {banner}", "PrintMotd yes", "PrintLastLog yes")
    with Sshd(folder / "host", options=lines) as sshd:
        works(desk_at(sshd, folder))


def test_one_in_authorized_keys_is_named_as_well(folder: Path) -> None:
    with Sshd(folder / "host") as sshd:
        keys = sshd.folder / "authorized_keys"
        keys.write_text(f'command="echo backups only" {keys.read_text()}')
        named(desk_at(sshd, folder), "it says: backups only")


@pytest.mark.parametrize("flag", ["--ssh", "--docker"])
def test_noise_around_us_takes_nothing_from_the_output(flag: str, folder: Path) -> None:
    """Not a byte of what a host prints lands in the job's output, nor is one of that lost."""
    noise = f"printf a >&2; printf b; sh -c {RUN}; printf c; printf d >&2"
    script = r"printf '\0cvl:\0cvl:0123\0'; head -c 300000 /dev/zero; printf '\0cvl'"
    with Sshd(folder / "host", options=(f"ForceCommand {noise}",)) as sshd:
        desk = desk_at(sshd, folder, flag)
        done = desk.sh(script)
    assert done.code == 0, done.err
    assert done.out == b"\0cvl:\0cvl:0123\0" + bytes(300000) + b"\0cvl"


def test_a_job_that_runs_is_followed_though_the_way_there_has_changed(folder: Path) -> None:
    """Its host says nothing of sense for a while: that is no end."""
    with Sshd(folder / "host", options=(f"ForceCommand exec sh {folder}/forced",)) as sshd:
        forced = folder / "forced"
        forced.write_text(f"exec sh -c {RUN}\n")
        desk = desk_at(sshd, folder)
        with desk.running("echo up; while [ ! -e go ]; do sleep 0.05; done; echo down") as client:
            client.shows(b"up\n")
            forced.write_text("echo closed for a while; exit 0\n")
            sshd.cut()
            time.sleep(1.0)
            assert client.process.poll() is None
            forced.write_text(f"exec sh -c {RUN}\n")
            next(sshd.home.rglob("ws/examples/conformance/one")).joinpath("go").touch()
            done = client.ended()
        assert (done.code, done.out) == (0, b"up\ndown\n"), done.err


def test_output_that_stops_coming_is_not_said_to_be_gone(folder: Path) -> None:
    """The job goes on to its end, which is told with what keeps its output from us."""
    with Sshd(folder / "host", options=(f"ForceCommand exec sh {folder}/forced",)) as sshd:
        forced = folder / "forced"
        forced.write_text(f"exec sh -c {RUN}\n")
        desk = desk_at(sshd, folder)
        with desk.running("echo up; while [ ! -e go ]; do sleep 0.05; done; echo down") as client:
            client.shows(b"up\n")
            forced.write_text(f"exec sh -c {RUN} >&2\n")
            sshd.cut()
            next(sshd.home.rglob("ws/examples/conformance/one")).joinpath("go").touch()
            done = client.ended()
        assert "the machine has only" not in done.err
        assert "what it writes to stdout does not arrive" in done.err


def test_a_shell_that_reads_what_we_send_runs_none_of_it(folder: Path) -> None:
    """A tar of scripts, or an environment with secrets, is no script of whoever reads it."""
    with Sshd(folder / "host", options=("ForceCommand /bin/sh -x",)) as sshd:
        desk = desk_at(sshd, folder)
        (desk.repo / "examples/conformance/one/evil.sh").write_text("\ntouch ~/ran-it\n" * 9)
        done = desk.sh("\ntouch ~/ran-it\n")
        refused(done, "starts another shell")
        assert not list(sshd.home.iterdir())


def test_our_own_words_are_not_shown_as_the_host_s(folder: Path) -> None:
    with Sshd(folder / "host", options=("ForceCommand cat",)) as sshd:
        desk = desk_at(sshd, folder)
        done = desk.sh("echo", "-e", "TOKEN=something-to-keep")
        assert "something-to-keep" not in done.err


def test_what_a_host_says_is_short_and_plain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = r"ForceCommand head -c 99999 /dev/zero | tr '\0' x; printf '\033[2J\n\nlast words\n'"
    with Sshd(folder / "host", options=(flood,)) as sshd:
        for name, value in sshd.env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(NotReady) as caught:
            FarSide(OpenSSH("testhost")).exists()
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 500
    assert said.endswith("last words")


@pytest.mark.parametrize("question", ["exists", "install", "ask", "collect"])
@pytest.mark.parametrize("line", ["echo yes", "printf 'yes\\n' >&2; exit 0", "cat"])
def test_no_answer_is_none_to_any_question(
    question: str, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sshd(folder / "host", options=(f"ForceCommand {line}",)) as sshd:
        for name, value in sshd.env.items():
            monkeypatch.setenv(name, value)
        far = FarSide(OpenSSH("testhost"))
        calls: dict[str, Callable[[], object]] = {
            "exists": far.exists,
            "install": lambda: far.install("0123", b""),
            "ask": lambda: far.ask("runs", []),
            "collect": lambda: far.ask("changed", [("id", "x")]),
        }
        with pytest.raises((NotReady, Unreadable), match=r"testhost"):
            calls[question]()


def test_the_commands_can_be_written_for_every_shell() -> None:
    for argv in (REQUEST, SCRIPT):
        assert not {"'", "\n", "!"} & set(argv[-1])
    assert all(line == b"exit 75" for line in PREFACE.splitlines())


def test_an_answer_is_found_behind_any_noise() -> None:
    for noise in (b"x", b"\x1b]0;t\x07", b"cvl:", b"cvl:1", b"\0" * 99, b"x" * 99999):
        hearing = AnswerReader(b"cvl:1")
        hearing.take(noise + b"cvl:1 started\nmore")
        assert [each.word for each in hearing.answers] == ["started"], noise[:20]
        assert hearing.noise.endswith(b"more")


def test_the_end_of_a_payload_is_no_answer_on_the_wrong_channel() -> None:
    for ends in (b"\n", b"\r\n"):
        hearing = AnswerReader(b"cvl:0123")
        hearing.take(b"cvl:0123" + ends + b"output\0cvl:0123 end" + ends)
        hearing.take(b"\0cvl:0123 state running\ncvl:0123 end\n")
        assert [answer.word for answer in hearing.answers] == ["state", "end"]


def test_words_for_a_terminal_are_shown_without_what_acts() -> None:
    assert plain("\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\r\n\x1b(B\x07x") == "red end \n x"
    assert plain("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
