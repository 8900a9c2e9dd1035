"""Before a job's last byte has left this machine nothing can run: what went wrong is said at once.

No doubt without cause: exit code 125 (or 2), the words of ssh, `not-started`, nothing that nags.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvl.core.scope import BACK, SILENT, Scope
from cvl.host.silence import AFTER, STALE, Silence
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd
from cvl.tests.fakes import FakeClock
from cvl.transports.ssh.openssh import OpenSSH

SOON = 10.0
"""Seconds in which what cannot pass is said, on a busy machine."""
RETRIED = 60.0
"""The same for what may pass."""

OWN_FAILURES = {
    "another OpenSSL": (
        "echo 'OpenSSL version mismatch. Built against 30000020, you have 30500010' >&2; exit 255",
        "OpenSSL version mismatch",
        125,
    ),
    "no such user": ("echo 'No user exists for uid 4711' >&2; exit 255", "No user exists", 125),
    "no library": (
        "echo 'ssh: error while loading shared libraries: libcrypto.so.3: none' >&2; exit 127",
        "libcrypto.so.3",
        125,
    ),
    "a user that is none": (
        "echo 'remote username contains invalid characters' >&2; exit 255",
        "remote username contains invalid",
        2,
    ),
    "an option that it does not know": (
        "echo 'command-line: line 0: Bad configuration option: nonsense' >&2; exit 255",
        "Bad configuration option",
        2,
    ),
    "a wrapper that forbids it": ("echo 'use the portal' >&2; exit 1", "use the portal", 125),
    "an account that has expired": (
        (
            "echo 'Your account has expired; please contact your system administrator.' >&2; "
            "echo 'Connection closed by 127.0.0.1 port 22' >&2; exit 255"
        ),
        "Your account has expired",
        125,
    ),
    "a jump host that passes nobody on": (
        (
            "echo 'channel 0: open failed: administratively prohibited: open failed' >&2; "
            "echo 'stdio forwarding failed' >&2; echo 'Connection closed by UNKNOWN' >&2; "
            "exit 255"
        ),
        "administratively prohibited",
        125,
    ),
    "a firewall here": (
        "echo 'ssh: connect to host 127.0.0.1 port 22: Operation not permitted' >&2; exit 255",
        "Operation not permitted",
        125,
    ),
}
"""What ssh itself says, and with which code cvl ends: none of it passes by itself."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "host") as sshd:
        yield sshd


def desk_at(sshd: Sshd, folder: Path, **env: str) -> Desk:
    return Desk(folder=folder / "desk", options=("--docker", "testhost"), env={**sshd.env, **env})


def never_sent(desk: Desk, words: str, *, code: int = 125, limit: float = SOON) -> str:
    """See a run that was not started, and said so; return what was said."""
    began = time.monotonic()
    done = desk.sh("touch ~/it-ran")
    took = time.monotonic() - began
    assert (done.code, done.out) == (code, b""), done
    assert words in done.err, done.err
    assert "may still run" not in done.err
    assert "attach" not in done.err
    assert took < limit, (took, done.err)
    assert [(run["state"], run["cause"]) for run in desk.ps()] in ([("ended", "not-started")], [])
    return done.err


def fake_ssh(folder: Path, script: str) -> str:
    """Make an ssh that does this; return the PATH on which it is."""
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", OWN_FAILURES)
def test_what_ssh_says_of_itself_is_said_at_once(name: str, host: Sshd, tmp_path: Path) -> None:
    script, words, code = OWN_FAILURES[name]
    path = fake_ssh(tmp_path / "bin", script)
    said = never_sent(desk_at(host, tmp_path, PATH=path), words, code=code)
    assert said.count("\n") <= 2


@pytest.mark.parametrize("number", ["SEGV", "KILL", "ABRT"])
def test_an_ssh_that_crashes_is_named(number: str, host: Sshd, tmp_path: Path) -> None:
    path = fake_ssh(tmp_path / "bin", f"kill -{number} $$")
    never_sent(desk_at(host, tmp_path, PATH=path), f"SIG{number}", limit=RETRIED)


def test_an_ssh_that_is_no_program(host: Sshd, tmp_path: Path) -> None:
    fake_ssh(tmp_path / "bin", "")
    (tmp_path / "bin" / "ssh").write_bytes(b"#!/nonexistent/interpreter\n")
    for name in ("sh", "git"):  # else a shell looks for the next one
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "/bin/false")
    desk = desk_at(host, tmp_path, PATH=str(tmp_path / "bin"))
    never_sent(desk, "ssh of this machine does not work")


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port where this answers instead of an sshd."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    taken, _ = server.accept()
                except OSError:
                    return
                with taken:
                    answer(taken)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def hang_up(_taken: socket.socket) -> None:
    """Close before the banner."""


def web(taken: socket.socket) -> None:
    taken.recv(4096)
    taken.sendall(b"HTTP/1.0 400 Bad Request\r\nServer: nginx\r\n\r\n<html>no</html>\r\n")


def garbage(taken: socket.socket) -> None:
    taken.sendall(bytes(range(256)) * 40)


@pytest.mark.parametrize("answer", [hang_up, web, garbage])
def test_what_listens_is_no_sshd(
    answer: Callable[[socket.socket], None], host: Sshd, tmp_path: Path
) -> None:
    with listener(answer) as port:
        config = host.ssh_config.read_text().replace(f"Port {host.port}", f"Port {port}")
        host.ssh_config.write_text(config)
        said = never_sent(desk_at(host, tmp_path), "", limit=RETRIED)
    assert "hangs up before it has said who it is" in said or "was cut" in said, said
    assert "trying again" in said, "it is said while it is tried again"


def test_an_sshd_that_is_too_busy_is_waited_for_a_little(tmp_path: Path) -> None:
    """It refuses the first connections, and the run goes right all the same."""
    with Sshd(tmp_path / "host") as sshd:
        refused, most = [0], 2

        def answer(taken: socket.socket) -> None:
            if refused[0] < most:
                refused[0] += 1
                return
            with socket.create_connection((sshd.address, sshd.port)) as way:
                there = threading.Thread(target=carry, args=(taken, way), daemon=True)
                there.start()
                carry(way, taken)
                there.join(5)

        with listener(answer) as port:
            config = sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {port}")
            sshd.ssh_config.write_text(config)
            sshd.known_hosts.write_text(sshd.host_line(port))
            done = desk_at(sshd, tmp_path).sh("echo yes; exit 3")
    assert (done.code, done.out) == (3, b"yes\n"), done.err
    assert "trying again" in done.err


def carry(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_host_that_ends_as_ssh_does(tmp_path: Path) -> None:
    line = "ForceCommand echo maintenance; exit 255"
    with Sshd(tmp_path / "closed", options=(line,)) as sshd:
        never_sent(desk_at(sshd, tmp_path), "it says: maintenance", limit=RETRIED)


@pytest.mark.parametrize(
    "line", ["KexAlgorithms diffie-hellman-group14-sha1", "HostKeyAlgorithms ssh-rsa"]
)
def test_a_host_with_which_nothing_is_in_common(line: str, tmp_path: Path) -> None:
    """To ssh itself that is no error, so it has to be asked for more of its words."""
    with Sshd(tmp_path / "host", options=("KexAlgorithms curve25519-sha256",)) as sshd:
        sshd.ssh_config.write_text(f"{line}\n{sshd.ssh_config.read_text()}")
        said = never_sent(desk_at(sshd, tmp_path), "Unable to negotiate", limit=RETRIED)
        assert "no common way to encrypt" in said


PROXIES = {
    "ProxyCommand sh -c 'echo the VPN is down >&2; exit 3'": "the VPN is down",
    "ProxyCommand /no/such/program %h": "/no/such/program",
    "ProxyJump nobody@no-such-host.invalid": "no-such-host.invalid",
    "ProxyJump nobody@127.0.0.1:1": "port 1: Connection refused",
}


@pytest.mark.parametrize("line", PROXIES)
def test_what_the_way_to_a_host_says_is_said(line: str, host: Sshd, tmp_path: Path) -> None:
    host.ssh_config.write_text(f"{host.ssh_config.read_text()}{line}\n")
    desk = desk_at(host, tmp_path)
    never_sent(desk, PROXIES[line], limit=RETRIED)
    assert PROXIES[line].encode() in desk.cvl("doctor", "--host", "testhost").out


def test_a_host_that_lets_nobody_in_at_all(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host", options=("PubkeyAuthentication no",)) as sshd:
        never_sent(desk_at(sshd, tmp_path), "Authentication failed")


def test_a_host_that_opens_no_session(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host", max_sessions=0) as sshd:
        said = never_sent(desk_at(sshd, tmp_path), "opens no session", limit=SOON)
    assert "MaxSessions" in said


def test_a_host_that_opens_one_session(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host", max_sessions=1) as sshd:
        done = desk_at(sshd, tmp_path).sh("echo yes; exit 3")
    assert (done.code, done.out) == (3, b"yes\n"), done.err


def test_a_closed_port_and_a_name_that_is_none(host: Sshd, tmp_path: Path) -> None:
    host.stop()
    never_sent(desk_at(host, tmp_path), "refused the connection")
    host.ssh_config.write_text(host.ssh_config.read_text().replace("127.0.0.1", "no.such.invalid"))
    done = desk_at(host, tmp_path).sh("true")
    assert done.code == 125
    assert "no such host" in done.err


def test_a_connection_that_breaks_before_the_files_were_asked_for(
    host: Sshd, tmp_path: Path
) -> None:
    """The head of a request has arrived; that starts nothing, so there is nothing to doubt."""
    line = "ForceCommand sh -c 'head -c 100 >/dev/null; kill -9 $PPID'"
    with Sshd(tmp_path / "cut", options=(line,)) as sshd:
        never_sent(desk_at(sshd, tmp_path), "the connection to testhost", limit=RETRIED)


# ssh_config


WORKS = {
    "StdinNull": "StdinNull yes",
    "RequestTTY": "RequestTTY force",
    "RemoteCommand": "RemoteCommand echo no",
    "SessionType": "SessionType none",
    "ForkAfterAuthentication": "ForkAfterAuthentication yes",
    "all of them": "StdinNull=yes\nRequestTTY force\n  sessionTYPE  none",
    "words": "LogLevel DEBUG3",
    "no words": "LogLevel QUIET",
    "an own connection": "ControlMaster yes\nControlPath {folder}/%C\nControlPersist 10",
    "forwards that fail": "LocalForward 1 127.0.0.1:1\nExitOnForwardFailure yes",
    "X11": "ForwardX11 yes\nForwardX11Trusted yes\nForwardAgent yes",
    "an own command": "PermitLocalCommand yes\nLocalCommand cat >&2; echo noise",
    "a way with noise": "ProxyCommand sh -c 'printf noise >&2; exec busybox nc %h %p'",
    "what does not match": "Match exec false\n  Port 1\nMatch all",
    "a file that is not there": "Include {folder}/none",
    "variables": "SendEnv *",
    "an escape": "EscapeChar ~",
    "a tunnel": "Tunnel no",
}


@pytest.mark.parametrize("name", WORKS)
def test_what_a_user_may_have_in_ssh_config(name: str, host: Sshd, tmp_path: Path) -> None:
    lines = WORKS[name].replace("{folder}", str(tmp_path))
    if "busybox" in lines and not shutil.which("busybox"):
        pytest.skip("busybox is not installed")
    host.ssh_config.write_text(f"{host.ssh_config.read_text()}\nMatch all\n{lines}\n")
    done = desk_at(host, tmp_path).sh("echo yes; exit 3")
    assert (done.code, done.out) == (3, b"yes\n"), done.err


def test_options_that_an_old_ssh_does_not_know_are_given_only_where_they_are_named(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  Port 22\n# StdinNull yes\n")
    assert "StdinNull" not in " ".join(OpenSSH("h", config=config)._options)
    (tmp_path / "more").write_text("stdinnull yes\n")
    config.write_text(f"Include {tmp_path}/m*\n")
    assert "StdinNull=no" in OpenSSH("h", config=config)._options


# Silence


class Told:
    """What is told, phase by phase."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, phase: str, text: str) -> None:
        self.all.append((phase, text))


def test_a_silent_host_is_named_once_and_once_more_when_it_is_back() -> None:
    clock, told = FakeClock(), Told()
    scope, silence = Scope(clock, tell=told), Silence(lambda: "box")
    for _ in range(100):
        silence.wait(scope, "no route")
        clock.now += 1.0
    assert told.all == [(SILENT, f"box has given no answer for {AFTER:g} s: no route")]
    silence.heard()
    silence.heard()
    assert told.all[1:] == [(BACK, "box answers again")]
    for _ in range(int(AFTER) - 1):
        silence.wait(scope)
        clock.now += 1.0
    silence.heard()
    assert len(told.all) == 2, "it was not silent for long"


def test_time_in_which_nobody_asked_a_host_is_none_of_its_silence() -> None:
    clock, told = FakeClock(), Told()
    scope, silence = Scope(clock, tell=told), Silence(lambda: "box")
    silence.wait(scope)
    clock.now += STALE + 1
    silence.wait(scope)
    assert not told.all


@pytest.mark.parametrize("command", ["run", "doctor", "reap", "stop", "fetch", "attach", "logs"])
def test_every_command_names_a_host_that_hangs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    line = f'while [ -e {gate} ]; do sleep 0.05; done; exec sh -c "$SSH_ORIGINAL_COMMAND"'
    with Sshd(tmp_path / "host", options=(f"ForceCommand {line}",)) as sshd:
        patch = tmp_path / "sitecustomize.py"
        patch.write_text("import cvl.host.silence\ncvl.remote.silence.AFTER = 0.5\n")
        desk = desk_at(sshd, tmp_path, PYTHONPATH=str(tmp_path))
        if command in {"stop", "fetch", "attach", "logs"}:
            assert desk.sh("sleep 1000", "--detach").code == 0
        words = {
            "run": ("run", *desk.options, "one", "sh", "true"),
            "doctor": ("doctor", "--host", "testhost"),
            "reap": ("reap", "--host", "testhost"),
        }.get(command) or (command, desk.runs()[0])
        gate.touch()
        with desk.start(*words) as client:
            client.says("testhost has given no answer for")
            gate.unlink()
            client.says("testhost answers again")
            if command in {"attach", "logs"}:
                client.process.kill()
            else:
                client.ended()
        assert client.err.count("given no answer") == 1
        for run in desk.runs():
            desk.cvl("stop", "--grace", "0s", run)


def test_a_quiet_job_is_no_silent_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sshd(tmp_path / "host") as sshd:
        patch = tmp_path / "sitecustomize.py"
        patch.write_text("import cvl.host.silence\ncvl.remote.silence.AFTER = 0.5\n")
        done = desk_at(sshd, tmp_path, PYTHONPATH=str(tmp_path)).sh("sleep 3; echo yes")
    assert (done.code, done.out) == (0, b"yes\n")
    assert "no answer" not in done.err


# Once it was sent


CUTS = """\
session=$PPID
sh -c "$SSH_ORIGINAL_COMMAND" 2>&1 >&9 9>&- | while IFS= read -r line; do
    case $line in *started*) echo 'echo closed for today' >{forced}; kill -9 "$session" ;; esac
    printf '%s\\n' "$line" >&2
done
"""


def test_what_may_run_is_never_said_not_to(tmp_path: Path) -> None:
    """The answer to the last byte is lost, and then nobody is let in: only now is there doubt."""
    forced = tmp_path / "forced"
    line = f"ForceCommand exec sh {forced} 9>&1"
    with Sshd(tmp_path / "host", options=(line,)) as sshd:
        forced.write_text(CUTS.format(forced=forced))
        desk = desk_at(sshd, tmp_path)
        done = desk.sh("echo yes; exit 3")
        assert done.code == 125
        assert "closed for today" in done.err
        assert "cvl attach" in done.err
        assert [run["state"] for run in desk.ps()] != ["ended"]
        forced.write_text('exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
        found = desk.cvl("attach", desk.runs()[0])
    assert (found.code, found.out) == (3, b"yes\n"), found.err


def test_what_was_refused_at_the_end_is_in_no_doubt(tmp_path: Path) -> None:
    """All was sent, and there is no place for it: that is an answer."""
    with Sshd(tmp_path / "host") as sshd:
        (sshd.home / ".cvl").mkdir(mode=0o700)
        (sshd.home / ".cvl" / "runs").write_text("no folder")
        never_sent(desk_at(sshd, tmp_path), "testhost: ", limit=RETRIED)
