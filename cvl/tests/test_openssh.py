"""The OpenSSH transport on a real sshd."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvl.core.errors import (
    AuthError,
    CvlError,
    HostKeyError,
    MissingTool,
    NotConnected,
    Unreachable,
    UsageError,
)
from cvl.core.interfaces import Process, Transport
from cvl.testing.fault_proxy import Cable
from cvl.testing.sshd import Sshd
from cvl.transports.ssh import mux, openssh
from cvl.transports.ssh.address import Destination, command, parse
from cvl.transports.ssh.connect_lock import Turn
from cvl.transports.ssh.errors import lost
from cvl.transports.ssh.mux import MuxProcess
from cvl.transports.ssh.openssh import OpenSSH

LIMIT = 20.0
SHELLS = {
    "dash": ("dash",),
    "bash": ("bash",),
    "fish": ("fish",),
    "tcsh": ("tcsh",),
    "busybox": ("busybox", "sh"),
}


def until(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def finish(process: Process, data: bytes = b"") -> tuple[int, bytes, bytes]:
    """Feed a process, read all that it says, return how it ended and both outputs."""
    errors: list[bytes] = []
    feeder = threading.Thread(target=_feed, args=(process, data))
    listener = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    for thread in (feeder, listener):
        thread.start()
    out = process.stdout.read()
    for thread in (feeder, listener):
        thread.join(LIMIT)
    code = process.wait(LIMIT)
    process.stdout.close()
    process.stderr.close()
    return code, out, errors[0]


def _feed(process: Process, data: bytes) -> None:
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:
        pass


def close_masters(transport: OpenSSH) -> None:
    """End the kept connections, and with them all that runs over them."""
    for path in transport._sockets():
        subprocess.run(["ssh", "-S", path, "-O", "exit", "any"], capture_output=True, check=False)


def run(transport: Transport, *argv: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    return finish(transport.start(argv), data)


def child(process: object) -> subprocess.Popen[bytes]:
    """The ssh that was started here for a command: there was no kept connection."""
    assert isinstance(process, subprocess.Popen)
    return process


def trouble(transport: Transport) -> CvlError:
    """Run a command that cannot be; return what the transport makes of it."""
    code, _, errors = run(transport, "true")
    failure = transport.failure(code, errors)
    assert isinstance(failure, CvlError), (code, errors)
    return failure


def masters(host: Sshd) -> list[int]:
    """The processes that keep connections to this host."""
    found = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True, check=True)
    lines = (line.split(maxsplit=1) for line in found.stdout.splitlines())
    return [int(pid) for pid, args in lines if host.env["XDG_RUNTIME_DIR"] in args]


def logins(host: Sshd) -> int:
    return host.log.read_text().count("Accepted publickey")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host with spaces")) as host:
        yield host


@pytest.fixture
def ssh(box: Sshd, monkeypatch: pytest.MonkeyPatch) -> OpenSSH:
    """A transport whose connection is shared by the tests that do it no harm."""
    return reach(box, monkeypatch)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """A host for one test alone."""
    with Sshd(tmp_path / "host") as host:
        use(host, monkeypatch)
        yield host


def use(host: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in host.env.items():
        monkeypatch.setenv(name, value)


def reach(host: Sshd, monkeypatch: pytest.MonkeyPatch) -> OpenSSH:
    use(host, monkeypatch)
    return OpenSSH(host.name)


def direct(host: Sshd, port: int | None = None, **more: object) -> OpenSSH:
    """Reach `host` without its ssh_config, maybe through another port."""
    return OpenSSH(
        f"{host.user}@[{host.address}]:{port or host.port}",
        config=os.devnull,
        key=host.key,
        **more,  # type: ignore[arg-type]
    )


# Commands, for any login shell


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(
        st.text(
            st.sampled_from("\\'!\"$`*?~#%&;|<>(){}[]^=@ \t\r")
            | st.characters(codec="utf-8", exclude_characters="\0\n"),
            max_size=12,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_shell_reads_the_same_words(shell: str, words: list[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    line = command(["printf", r"%s\0", *words])
    done = subprocess.run([*SHELLS[shell], "-c", line], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in words]


@pytest.mark.parametrize("word", ["a\nb", "\n", "a\0b"])
def test_what_no_shell_can_be_told_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        command(["echo", word])


def test_exec_is_said_once() -> None:
    assert command(["exec", "sh", "-c", "true"]) == command(["sh", "-c", "true"])
    assert command(("sh", "-c", "a b")) == "exec sh -c 'a b'"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_login_shell_that_is_not_sh(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    login = " ".join([program, *SHELLS[shell][1:]])
    with Sshd(tmp_path / "host", shell=login, noise="Welcome!\n") as host:
        line = 'read -r a; printf "%s|" "$a" "$1"; exit 9'
        done = run(reach(host, monkeypatch), "sh", "-c", line, "sh", "it's \\ !1", data=b"x y\n")
    assert done == (9, b"Welcome!\nx y|it's \\ !1|", b"")


# Hosts


@pytest.mark.parametrize(
    ("host", "name", "user", "port"),
    [
        ("gpu", "gpu", None, None),
        ("me@gpu", "gpu", "me", None),
        ("me@gpu:2222", "gpu", "me", 2222),
        ("ssh://gpu", "gpu", None, None),
        ("ssh://me@gpu:22/", "gpu", "me", 22),
        ("ssh://me%40corp@gpu", "gpu", "me@corp", None),
        ("me@corp@gpu", "gpu", "me@corp", None),
        ("::1", "::1", None, None),
        ("fe80::1%eth0", "fe80::1%eth0", None, None),
        ("[::1]", "::1", None, None),
        ("[::1]:2222", "::1", None, 2222),
        ("ssh://me@[::1]:2222", "::1", "me", 2222),
        ("me@::1", "::1", "me", None),
    ],
)
def test_forms_of_a_host(host: str, name: str, user: str | None, port: int | None) -> None:
    assert parse(host) == Destination(name=name, user=user, port=port)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=id",
        "me@-oProxyCommand=id",
        "-l@gpu",
        "@gpu",
        "me@",
        "a b",
        "gpu\n",
        "gpu\0",
        "gpu:/path",
        "gpu:",
        "gpu:0",
        "gpu:65536",
        "ssh://",
        "ssh://gpu/path",
        "[::1",
        "[::1]:x",
        "\u2028gpu",
    ],
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(UsageError):
        OpenSSH(host)


@given(st.text())
def test_a_host_is_read_or_refused(host: str) -> None:
    try:
        found = parse(host)
    except UsageError:
        return
    assert found.name
    assert not found.name.startswith("-")
    assert not set(found.name) & set("\0\n \t/[]")


# One connection


def test_the_first_ssh_connects_and_runs_and_the_next_goes_over_it(own: Sshd) -> None:
    transport = OpenSSH(own.name)
    process = transport.start(["sh", "-c", "cat; echo wrong >&2; exit 3"])
    assert child(process)
    assert finish(process, b"first") == (3, b"first", b"wrong\n")
    process = OpenSSH(own.name).start(["sh", "-c", "cat; echo wrong >&2; exit 4"])
    assert isinstance(process, MuxProcess)
    assert finish(process, b"second") == (4, b"second", b"wrong\n")
    assert logins(own) == 1


def test_closing_leaves_nothing_behind(own: Sshd) -> None:
    transport = OpenSSH(own.name)
    assert run(transport, "true")[0] == 0
    assert masters(own)
    close_masters(transport)
    until(lambda: not masters(own), "the master to end", 1)
    folder = Path(own.env["XDG_RUNTIME_DIR"], "cvl")
    until(lambda: not list(folder.iterdir()), "an empty folder", 1)
    close_masters(transport)


def test_nothing_is_kept_when_nothing_is_to_be_kept(own: Sshd) -> None:
    assert run(OpenSSH(own.name, control_persist=0), "true")[0] == 0
    assert not masters(own)


@pytest.mark.parametrize("spoil", ["public", "long", "file"])
def test_without_a_fit_folder_for_sockets_it_still_works(
    spoil: str, own: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30 if spoil == "long" else "short")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    if spoil == "file":
        folder.write_text("")
    else:
        (folder / "cvl").mkdir(parents=True)
        (folder / "cvl").chmod(0o755 if spoil == "public" else 0o700)
    transport = OpenSSH(own.name)
    for _ in range(2):
        assert run(transport, "echo", "here") == (0, b"here\n", b"")
    assert logins(own) == 2


def test_another_key_config_or_option_is_another_connection(own: Sshd, tmp_path: Path) -> None:
    shutil.copyfile(own.key, tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    for transport in (OpenSSH(own.name), OpenSSH(own.name, key=tmp_path / "key")):
        assert run(transport, "true")[0] == 0
    os.utime(own.ssh_config, ns=(1, 1))
    assert run(OpenSSH(own.name), "true")[0] == 0
    assert logins(own) == 3


def test_more_sessions_than_one_connection_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sshd(tmp_path / "host", max_sessions=2) as host:
        transport = reach(host, monkeypatch)
        open_ones: list[Process] = []
        for number in range(5):
            process = transport.start(["cat"])
            process.stdin.write(b"%d\n" % number)
            process.stdin.flush()
            assert process.stdout.readline() == b"%d\n" % number
            open_ones.append(process)
        assert [finish(process)[0] for process in open_ones] == [0] * 5
        assert logins(host) == 3


def test_twenty_at_once(ssh: OpenSSH) -> None:
    ends: list[tuple[int, bytes, bytes]] = []
    data = [str(number).encode() * 5000 for number in range(20)]
    threads = [
        threading.Thread(target=lambda data=data: ends.append(run(ssh, "cat", data=data)))
        for data in data
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(out for code, out, _ in ends if code == 0) == sorted(data)


def test_many_that_start_at_once_share_what_the_first_connects(own: Sshd) -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(run(OpenSSH(own.name), "true")[0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert codes == [0] * 8
    assert logins(own) == 1


def test_nobody_waits_long_for_another_s_turn(own: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "TURN_LIMIT", 0.1)
    transport = OpenSSH(own.name)
    turn = Turn(next(transport._sockets()))
    assert turn.take()
    assert run(transport, "echo", "here") == (0, b"here\n", b"")
    turn.release()


def test_a_frozen_master_costs_a_moment_only(own: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "ANSWER_LIMIT", 0.3)
    transport = OpenSSH(own.name)
    assert run(transport, "true")[0] == 0
    (pid,) = masters(own)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert run(transport, "echo", "here") == (0, b"here\n", b"")
        began = time.monotonic()
        assert run(transport, "echo", "again") == (0, b"again\n", b"")
        assert time.monotonic() - began < 0.3
    finally:
        os.kill(pid, signal.SIGCONT)
    assert logins(own) == 2


def test_a_killed_master_is_replaced(own: Sshd) -> None:
    transport = OpenSSH(own.name)
    assert run(transport, "true")[0] == 0
    (pid,) = masters(own)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not masters(own), "the master to die")
    assert run(transport, "echo", "here") == (0, b"here\n", b"")
    assert len(masters(own)) == 1


def test_a_socket_that_speaks_something_else(own: Sshd) -> None:
    transport = OpenSSH(own.name)
    path = next(transport._sockets())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def babble() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"\0\0\0\x08\0\0\0\x01\0\0\0\x63")

        thread = threading.Thread(target=babble)
        thread.start()
        assert run(transport, "echo", "here") == (0, b"here\n", b"")
        thread.join(LIMIT)


def test_both_ways_send_the_same_environment(own: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    own.ssh_config.write_text(own.ssh_config.read_text() + "    SendEnv LC_CVL_*\n")
    monkeypatch.setenv("LC_CVL_TEST", "sent along")
    monkeypatch.setenv("LC_OTHER", "not sent")
    transport = OpenSSH(own.name)
    ask = ("sh", "-c", 'echo "$LC_CVL_TEST|$LC_OTHER"')
    assert [run(transport, *ask)[1] for _ in range(2)] == [b"sent along|\n"] * 2


def test_an_environment_too_large_for_the_master(
    ssh: OpenSSH, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(ssh, "true")[0] == 0
    for number in range(3):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 100_000)
    assert run(ssh, "echo", "here") == (0, b"here\n", b"")


# Bytes


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=4096))
def test_bytes_come_back_as_they_went(data: bytes, box: Sshd) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert run(reach(box, patch), "cat", data=data) == (0, data, b"")


@pytest.mark.parametrize("persist", [0, 600])
def test_many_bytes_come_back_as_they_went(
    persist: int, box: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(box, monkeypatch)
    data = os.urandom(8_000_000)
    code, out, _ = run(OpenSSH(box.name, control_persist=persist), "cat", data=data)
    assert code == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("code", [0, 1, 124, 254])
def test_exit_codes(code: int, ssh: OpenSSH) -> None:
    done = run(ssh, "sh", "-c", f"exit {code}")
    assert done == (code, b"", b"")
    assert ssh.failure(*done[::2]) is None


def test_output_comes_as_it_is_produced(ssh: OpenSSH) -> None:
    process = ssh.start(["sh", "-c", "printf one; read -r x; printf two"])
    assert os.read(process.stdout.fileno(), 100) == b"one"
    assert process.poll() is None
    assert finish(process, b"\n")[:2] == (0, b"two")
    assert process.poll() == 0


def test_waiting_has_an_end(ssh: OpenSSH) -> None:
    run(ssh, "true")
    process = ssh.start(["cat"])
    assert isinstance(process, MuxProcess)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    assert finish(process)[0] == 0


def test_letting_go_wakes_who_waits(ssh: OpenSSH) -> None:
    run(ssh, "true")
    process = ssh.start(["cat"])
    assert isinstance(process, MuxProcess)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(process.wait(LIMIT)))
    waiter.start()
    process.kill()
    process.kill()
    waiter.join(LIMIT)
    assert codes == [-9]
    assert finish(process)[1] == b""


def test_what_is_ours_is_not_ssh_s(own: Sshd) -> None:
    """No descriptor of ours and no Ctrl-C of the terminal's reaches the child."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    process = OpenSSH(own.name).start(["cat"])
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert os.getsid(child(process).pid) == child(process).pid
    assert finish(process)[0] == 0


# Whom we speak to


def test_an_unknown_host_is_refused_unless_asked_for(own: Sshd) -> None:
    own.known_hosts.unlink()
    config = own.ssh_config.read_text().replace("StrictHostKeyChecking yes", "")
    own.ssh_config.write_text(config)
    error = trouble(OpenSSH(own.name))
    assert isinstance(error, HostKeyError)
    assert "not known" in str(error)
    assert "--accept-new-host-key" in error.hint
    assert run(OpenSSH(own.name, accept_new=True), "true")[0] == 0
    assert run(OpenSSH(own.name, control_persist=0), "true")[0] == 0


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_host_key_is_never_accepted(accept_new: bool, own: Sshd, box: Sshd) -> None:
    stranger = box.host_line().split()[2]
    own.known_hosts.write_text(f"[{own.address}]:{own.port} ssh-ed25519 {stranger}\n")
    error = trouble(OpenSSH(own.name, accept_new=accept_new))
    assert isinstance(error, HostKeyError)
    assert "has changed" in str(error)
    assert "ssh-keygen" in error.hint
    assert "-R" in error.hint
    assert logins(own) == 0


def test_a_pinned_host_key_is_the_only_one(own: Sshd, box: Sshd, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right one", tmp_path / "wrong"
    right.write_text(own.host_line())
    stranger = box.host_line().split()[2]
    wrong.write_text(f"[{own.address}]:{own.port} ssh-ed25519 {stranger}\n")
    assert run(direct(own, known_hosts=right), "true")[0] == 0
    error = trouble(OpenSSH(own.name, known_hosts=wrong, accept_new=True))
    assert isinstance(error, HostKeyError)
    assert right.read_text() == own.host_line()


@pytest.mark.parametrize("option", ["GlobalKnownHostsFile", "UserKnownHostsFile"])
def test_no_other_file_says_who_a_pinned_host_is(option: str, own: Sshd, tmp_path: Path) -> None:
    known, pin = tmp_path / "known", tmp_path / "pin"
    known.write_text(own.host_line())
    pin.write_text("")
    own.known_hosts.unlink()
    own.ssh_config.write_text(f"{option} {known}\n{own.ssh_config.read_text()}")
    assert run(OpenSSH(own.name), "true")[0] == 0
    assert isinstance(trouble(OpenSSH(own.name, known_hosts=pin)), HostKeyError)
    assert pin.read_text() == ""


def test_a_wrong_key(own: Sshd, box: Sshd, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text(own.host_line())
    port = own.port
    wrong = OpenSSH(own.address, port=port, key=box.key, config=os.devnull, known_hosts=pin)
    error = trouble(wrong)
    assert isinstance(error, AuthError)
    assert "Authentication failed" in str(error)
    assert "ssh-copy-id" in error.hint


def test_a_key_that_ssh_would_not_use(own: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "key"
    with pytest.raises(UsageError, match="cannot read the SSH key"):
        OpenSSH(own.name, key=key)
    with pytest.raises(UsageError, match="is the public key"):
        OpenSSH(own.name, key=own.key.with_suffix(".pub"))
    shutil.copyfile(own.key, key)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="others can read") as caught:
        OpenSSH(own.name, key=key)
    assert "chmod 600" in caught.value.hint
    with pytest.raises(UsageError, match="ssh_config"):
        OpenSSH(own.name, config=tmp_path / "none")


def test_a_key_with_a_passphrase(
    own: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = ["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", str(own.key)]
    subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
    transport = OpenSSH(own.name)
    error = trouble(transport)
    assert isinstance(error, AuthError)
    assert "ssh-add" in error.hint
    person = tmp_path / "person"
    person.write_text("#!/bin/sh\necho $CVL_TEST_SAYS\n")
    person.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(person))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("CVL_TEST_SAYS", "wrong")
    with pytest.raises(AuthError):
        transport.login()
    monkeypatch.setenv("CVL_TEST_SAYS", "open sesame")
    transport.login()
    assert run(transport, "echo", "here") == (0, b"here\n", b"")
    assert logins(own) == 1


def test_a_key_and_a_config_in_odd_places(own: Sshd, tmp_path: Path) -> None:
    folder = tmp_path / "a %h b"
    folder.mkdir()
    key, pin = folder / "key", folder / "pin"
    shutil.copyfile(own.key, key)
    key.chmod(0o600)
    pin.write_text(own.host_line())
    host = f"ssh://{own.user}@{own.address}:{own.port}"
    transport = OpenSSH(host, key=key, config=os.devnull, known_hosts=pin)
    for _ in range(2):
        assert run(transport, "true") == (0, b"", b"")
    close_masters(transport)


def test_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with Sshd(tmp_path / "host", address="::1") as host:
            use(host, monkeypatch)
            transport = direct(host, known_hosts=host.known_hosts)
            assert run(transport, "echo", "six") == (0, b"six\n", b"")
    except OSError:
        pytest.skip("no IPv6 loopback here")


def test_through_another_host(own: Sshd, box: Sshd) -> None:
    inner = box.ssh_config.read_text().replace(f"Host {box.name}", "Host inner")
    own.ssh_config.write_text(own.ssh_config.read_text() + inner + f"    ProxyJump {own.name}\n")
    transport = OpenSSH("inner")
    assert run(transport, "sh", "-c", 'echo "$HOME"')[1] == f"{box.home}\n".encode()
    assert logins(own) == 1
    close_masters(transport)


# What can go wrong


def test_a_refused_port(own: Sshd) -> None:
    own.stop()
    error = trouble(OpenSSH(own.name))
    assert isinstance(error, Unreachable)
    assert "refused" in str(error)


def test_a_name_that_nobody_knows(own: Sshd) -> None:
    error = trouble(OpenSSH("no-such-host.invalid"))
    assert isinstance(error, Unreachable)
    assert "no such host" in str(error)


def test_a_host_that_never_answers(own: Sshd) -> None:
    own.freeze()
    error = trouble(OpenSSH(own.name, connect_timeout=1))
    own.freeze(False)
    assert isinstance(error, Unreachable)
    assert "does not answer" in str(error)


def test_a_full_queue_of_connections(own: Sshd, tmp_path: Path) -> None:
    """A port whose packets are dropped, as behind a firewall."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        error = trouble(OpenSSH("127.0.0.1", port=port, config=os.devnull, connect_timeout=1))
    assert isinstance(error, Unreachable)
    assert "does not answer" in str(error)


@pytest.mark.parametrize("warm", [False, True])
def test_a_connection_that_is_reset(warm: bool, own: Sshd) -> None:
    with cabled(own) as (cable, transport):
        if warm:
            run(transport, "true")
        process = transport.start(["sh", "-c", "echo here; cat"])
        assert process.stdout.readline() == b"here\n"
        cable.reset()
        code, _, errors = finish(process)
        assert isinstance(transport.failure(code, errors), Unreachable)
        assert run(transport, "echo", "again")[1] == b"again\n"


@pytest.mark.parametrize("warm", [False, True])
def test_a_dead_peer_is_noticed(warm: bool, own: Sshd) -> None:
    with cabled(own) as (cable, transport):
        if warm:
            run(transport, "true")
        process = transport.start(["sh", "-c", "echo here; cat"])
        assert process.stdout.readline() == b"here\n"
        cable.silent = True
        began = time.monotonic()
        code = process.wait(LIMIT)
        assert time.monotonic() - began < 6
        _, _, errors = finish(process)
        assert isinstance(transport.failure(code, errors), Unreachable)
        assert code == 255


@contextmanager
def cabled(host: Sshd) -> Iterator[tuple[Cable, OpenSSH]]:
    with Cable((host.address, host.port)) as cable:
        pin = host.folder / "pin"
        pin.write_text(host.host_line(cable.port))
        transport = direct(host, cable.port, known_hosts=pin, alive=(1, 2))
        yield cable, transport
        close_masters(transport)


def test_killed_ssh_is_a_broken_connection(own: Sshd) -> None:
    transport = OpenSSH(own.name)
    process = transport.start(["cat"])
    child(process).terminate()
    code, _, errors = finish(process)
    assert isinstance(transport.failure(code, errors), Unreachable)


def test_no_ssh_here(ssh: OpenSSH, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(MissingTool) as caught:
        ssh.start(["true"])
    assert "openssh-client" in caught.value.hint
    with pytest.raises(MissingTool, match="ssh is not installed"):
        ssh.check()
    (tmp_path / "ssh").symlink_to("/bin/true")
    ssh.check()


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (b"ssh: connect to host h port 22: Connection refused", NotConnected, "refused"),
        (b"ssh: connect to host h port 22: No route to host", NotConnected, "no route"),
        (b"ssh: connect to host h port 22: Connection timed out", NotConnected, "not answer"),
        (b"ssh: connect to host h port 22: Operation timed out", NotConnected, "not answer"),
        (b"Timeout, server h not responding.", Unreachable, "not answer"),
        (b"kex_exchange_identification: read: Connection reset by peer", Unreachable, "before"),
        (b"Connection closed by UNKNOWN port 65535", Unreachable, "cut"),
        (b"client_loop: send disconnect: Broken pipe", Unreachable, "cut"),
        (b"Host key verification failed.", HostKeyError, "not known"),
        (b"me@h: Permission denied (publickey,password).", AuthError, "Authentication failed"),
        (b'Load key "/k": invalid format\nme@h: Permission denied (publickey).', AuthError, "read"),
        (b"Permissions 0644 for '/k' are too open.", AuthError, "others can read"),
        (b"Received disconnect from h: Too many authentication failures", AuthError, "too many"),
        (b"/c: line 1: Bad configuration option: nonsense", UsageError, "configuration"),
        (b"Unable to negotiate with h port 22: no matching cipher found.", CvlError, "encrypt"),
        (b"something new", Unreachable, "something new"),
        (b"", Unreachable, "ended"),
    ],
)
def test_the_words_of_ssh(words: bytes, kind: type[CvlError], message: str) -> None:
    error = lost("box", 255, b"a word before\r\n" + words + b"\r\n" if words else b"")
    assert type(error) is kind or (kind is CvlError and error is not None)
    assert message in str(error)
    assert lost("box", 254, words) is None


def test_a_stranger_s_words_cannot_paint_the_terminal() -> None:
    assert "\x1b" not in str(lost("box", 255, b"\x1b[2J" + b"x" * 9999))
    assert len(str(lost("box", 255, b"\x1b[2J" + b"x" * 9999))) < 400


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_started_ahead_is_what_the_next_start_gets(own: Sshd, kept: bool) -> None:
    transport = OpenSSH(own.name)
    if kept:
        run(transport, "true")
    transport.get_ready(("cat",))
    ready = transport._ready
    assert ready
    process = transport.start(("cat",))
    assert process is ready[1]
    assert finish(process, b"hello")[:2] == (0, b"hello")
    again = transport.start(("cat",))
    assert again is not process, "once only"
    finish(again)
    close_masters(transport)


def test_another_command_does_not_get_what_was_started_ahead(own: Sshd) -> None:
    transport = OpenSSH(own.name)
    transport.get_ready(("cat",))
    assert run(transport, "echo", "hello")[:2] == (0, b"hello\n")
    transport.unready()
    close_masters(transport)


@pytest.mark.parametrize("kept", [False, True])
def test_what_nobody_asks_for_is_ended(own: Sshd, kept: bool) -> None:
    transport = OpenSSH(own.name)
    if kept:
        run(transport, "true")
    transport.get_ready(("sh", "-c", "read -r line && exec sleep 600"))
    ready = transport._ready
    assert ready
    transport.unready()
    assert ready[1].poll() is not None
    until(lambda: not [p for p in own.processes() if b"600" in command_line(p)], "its end there")
    transport.unready()  # idempotent
    close_masters(transport)


def test_a_host_that_cannot_be_reached_is_said_as_without_being_ahead(own: Sshd) -> None:
    own.stop()
    transport = OpenSSH(own.name)
    transport.get_ready(("true",))
    assert isinstance(trouble(transport), Unreachable)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="pipes can be widened on Linux only")
@pytest.mark.parametrize("kept", [False, True])
def test_output_comes_through_a_wide_pipe(own: Sshd, kept: bool) -> None:
    transport = OpenSSH(own.name)
    if kept:
        run(transport, "true")
    process = transport.start(("echo", "hello"))
    get_size = 1032
    assert fcntl.fcntl(process.stdout.fileno(), get_size) == mux.PIPE_SIZE
    assert finish(process)[:2] == (0, b"hello\n")
    close_masters(transport)
