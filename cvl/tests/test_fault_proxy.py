"""The cable that tests cut, and the host that they crash, do what they say."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvl.core.errors import MissingTool
from cvl.testing.fault_proxy import Cable
from cvl.testing.sshd import Sshd

LIMIT = 10.0


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that says everything back, once its client has stopped writing or as it comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener,))
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            try:
                while data := peer.recv(1 << 16):
                    peer.sendall(data)
            except OSError:
                continue


def plug(cable: Cable) -> socket.socket:
    return socket.create_connection(("127.0.0.1", cable.port), timeout=LIMIT)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(end: socket.socket, data: bytes) -> float:
    """Send, wait for all of it to come back; return the seconds that it took."""
    began, back = time.monotonic(), b""
    sender = threading.Thread(target=end.sendall, args=(data,))
    sender.start()
    while len(back) < len(data):
        back += end.recv(1 << 16)
    sender.join(LIMIT)
    assert back == data
    return time.monotonic() - began


def test_bytes_and_their_end_pass(echo: tuple[str, int]) -> None:
    with Cable(echo) as cable, plug(cable) as end:
        ask(end, os.urandom(2_000_000))
        end.shutdown(socket.SHUT_WR)
        assert end.recv(1) == b""
        until(lambda: cable.connections == 0)
        assert cable.passed == 4_000_000


def test_delay_and_rate(echo: tuple[str, int]) -> None:
    with Cable(echo) as cable, plug(cable) as end:
        cable.delay = 0.1
        assert ask(end, b"x") >= 0.2
        cable.delay, cable.rate = 0.0, 100_000.0
        assert ask(end, bytes(30_000)) >= 0.25


def test_silence_holds_back_and_lets_go(echo: tuple[str, int]) -> None:
    with Cable(echo) as cable, plug(cable) as end:
        ask(end, b"x")
        cable.silent = True
        end.settimeout(0.2)
        end.sendall(b"held back")
        with pytest.raises(TimeoutError):
            end.recv(1)
        cable.silent = False
        end.settimeout(LIMIT)
        assert end.recv(9, socket.MSG_WAITALL) == b"held back"


def test_reset_refuse_and_listen(echo: tuple[str, int]) -> None:
    with Cable(echo) as cable:
        with plug(cable) as end:
            ask(end, b"x")
            cable.cut()
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        with pytest.raises(ConnectionRefusedError):
            plug(cable)
        cable.listen()
        with plug(cable) as end:
            ask(end, b"x")


def test_a_crash_ends_all_that_sessions_started(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host") as host:
        ssh = ("ssh", "-F", str(host.ssh_config), host.name)
        line = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $HOME; exec sleep 1000"
        child = subprocess.Popen(
            [*ssh, line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == f"{host.home}\n".encode()
            until(lambda: len(host.processes()) == 2)
            host.cut()
            assert child.wait(LIMIT) == 255
        assert len(host.processes()) == 2
        host.crash()
        assert host.processes() == []
        assert subprocess.call([*ssh, "true"], stderr=subprocess.DEVNULL) == 255
        host.start()
        assert subprocess.call([*ssh, "true"]) == 0


def test_no_sshd_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(MissingTool) as caught, Sshd(tmp_path / "host"):
        pass
    assert "openssh-server" in caught.value.hint
