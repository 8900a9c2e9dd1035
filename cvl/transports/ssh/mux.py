"""Runs a command over a kept OpenSSH connection by speaking to the process that keeps it.

`ssh -S SOCKET host command` does the same, at the price of a process; the protocol is OpenSSH's
`PROTOCOL.mux`, version 4. The master reads and writes the command's pipes itself, so no byte
passes through here.
"""

from __future__ import annotations

import errno
import os
import struct
import threading

# The C part of `socket`: the whole costs 10 ms to import, three times the command itself.
from _socket import AF_UNIX, SCM_RIGHTS, SHUT_RDWR, SOCK_STREAM, SOL_SOCKET, socket
from collections.abc import Sequence
from contextlib import suppress
from fcntl import fcntl
from typing import IO

from cvl.core.scope import Scope

HELLO, NEW_SESSION = 1, 0x10000002
EXIT_MESSAGE, SESSION_OPENED = 0x80000004, 0x80000006
VERSION = 4
LOST = 255
"""The exit code when the master went away without one: what `ssh` itself ends with."""
MAX_PACKET = 200 * 1024
"""Bytes. The master takes 256 KiB at most."""
WORD = 4
"""Bytes of a packet's kind."""
PIPE_SIZE = 1 << 20
F_SETPIPE_SZ = 1031
"""Linux; elsewhere it is refused as unknown."""
NO_ESCAPE = 0xFFFFFFFF
EXIT = struct.Struct(">4I")


class Refused(Exception):
    """The master lives but opens no session: the host's `MaxSessions` is used up, as a rule."""


class TooLarge(Exception):
    """The environment does not fit into a request; `ssh -S` picks from it before it asks."""


class MuxProcess:
    """A command that a master runs for us. As `subprocess.Popen`, as far as `Process` goes."""

    def __init__(self, master: socket, stdin: int, stdout: int, stderr: int) -> None:
        self.stdin: IO[bytes] = os.fdopen(stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb")
        self.stderr: IO[bytes] = os.fdopen(stderr, "rb")
        self._master = master
        self._said = b""
        self._code: int | None = None
        self._reading = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code if there is one yet."""
        if self._reading.acquire(blocking=False):  # else another thread waits and will see it
            try:
                self._read(0.0)
            finally:
                self._reading.release()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        with self._reading:
            self._read(timeout)
        if self._code is None:
            from subprocess import TimeoutExpired

            raise TimeoutExpired("ssh", 0.0 if timeout is None else timeout)
        return self._code

    def kill(self) -> None:
        """Let go: the master closes the command's channel."""
        if self._code is None:
            self._code = -9
            with suppress(OSError):
                self._master.shutdown(SHUT_RDWR)  # wakes a thread that waits
        with self._reading:
            self._master.close()

    def _read(self, timeout: float | None) -> None:
        """Read until the master hangs up: only then has all output been handed over."""
        limit = Scope(seconds=timeout)
        while self._code is None:
            self._master.settimeout(limit.remaining())
            try:
                data = self._master.recv(4096)
            except (TimeoutError, BlockingIOError):
                return
            except OSError:
                data = b""
            self._said += data
            if not data or len(self._said) > MAX_PACKET:
                self._code = _exit_code(self._said) if self._code is None else self._code
                self._master.close()


def start(path: str, command: str, timeout: float) -> MuxProcess:
    """Run `command` over the master that listens at `path`; wait `timeout` s for its yes.

    Raises `FileNotFoundError` or `ConnectionRefusedError` if there is no master, `TimeoutError`
    if it does not answer, `Refused`, `TooLarge`, and other `OSError` if it speaks otherwise.
    The environment goes along: the master picks from it what the user's `SendEnv` allows.
    """
    inner, outer = _pipes()
    try:
        master = _connect(path, timeout)
        try:
            master.sendall(_packet(HELLO, VERSION) + _new_session(command))
            for descriptor in inner:
                rights = (SOL_SOCKET, SCM_RIGHTS, struct.pack("=i", descriptor))
                master.sendmsg([b"\0"], [rights])
            _answer(master)
        except BaseException:
            master.close()
            raise
    except BaseException:
        _close(outer)
        raise
    finally:
        _close(inner)
    return MuxProcess(master, *outer)


def _connect(path: str, timeout: float) -> socket:
    master = socket(AF_UNIX, SOCK_STREAM)
    try:
        master.settimeout(timeout)
        master.connect(path)
    except BaseException:
        master.close()
        raise
    return master


def _answer(master: socket) -> None:
    """Read the master's hello and its answer. Raises `Refused` if it opens no session."""
    kind, body = _receive(master)
    if kind != HELLO or body[:4] != struct.pack(">I", VERSION):
        raise OSError(errno.EPROTO, "not an ssh master that we understand")
    kind, body = _receive(master)
    if kind != SESSION_OPENED:
        raise Refused(body[8:].decode(errors="replace"))


def _receive(master: socket) -> tuple[int, bytes]:
    (size,) = struct.unpack(">I", _exactly(master, 4))
    if not WORD <= size <= MAX_PACKET:
        raise OSError(errno.EPROTO, "not an ssh master that we understand")
    packet = _exactly(master, size)
    return struct.unpack(">I", packet[:4])[0], packet[4:]


def _exactly(master: socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = master.recv(size - len(data))
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "the ssh master hung up")
        data += more
    return data


def _new_session(command: str) -> bytes:
    env = b"".join(_string(name + b"=" + value) for name, value in os.environb.items())
    no_tty_x11_agent_subsystem = (0, 0, 0, 0)
    numbers = struct.pack(">5I", *no_tty_x11_agent_subsystem, NO_ESCAPE)
    rest = _string(b"") + numbers + _string(b"") + _string(os.fsencode(command)) + env
    if len(rest) > MAX_PACKET:
        raise TooLarge
    return _packet(NEW_SESSION, 0, rest)


def _packet(kind: int, number: int, rest: bytes = b"") -> bytes:
    return struct.pack(">III", 8 + len(rest), kind, number) + rest


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _exit_code(said: bytes) -> int:
    """Find the exit message in all that the master said after it opened the session."""
    while len(said) >= EXIT.size:
        size, kind, _session, code = EXIT.unpack_from(said)
        if kind == EXIT_MESSAGE:
            return int(code)
        said = said[4 + size :]
    return LOST


def _pipes() -> tuple[Sequence[int], Sequence[int]]:
    """Return the ends of three pipes: stdin, stdout, stderr for the command, and for us."""
    (stdin, feed), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
    widen(out)
    return (stdin, stdout, stderr), (feed, out, err)


def widen(pipe: int) -> None:
    """Let a pipe hold 1 MiB, so that both ends are woken less often: a third less work for ssh.

    At best: the system may know no such thing, or a user may have too many wide ones (pipe(7)).
    """
    with suppress(OSError):
        fcntl(pipe, F_SETPIPE_SZ, PIPE_SIZE)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
