"""Reaches a machine with the system's own `ssh`, over one connection that is kept.

All of the user's ssh_config holds: aliases, agents, ProxyJump, certificates, known_hosts. The
connection stays open (ControlMaster, ControlPersist) for the next command, of this process or
another; the first ssh makes it and runs the command at once. See docs/decisions/openssh.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from cvl.core.errors import AuthError, CvlError, MissingTool, Unreachable, UsageError
from cvl.core.interfaces import Process
from cvl.core.scope import Scope
from cvl.transports.ssh import mux, sockets
from cvl.transports.ssh.address import command, parse
from cvl.transports.ssh.aliases import overruled
from cvl.transports.ssh.connect_lock import LOOK, Turn
from cvl.transports.ssh.errors import lost

ANSWER_LIMIT = 5.0
"""Seconds that a kept connection has to open a session; then another connection is made."""
TURN_LIMIT = 2.0
"""Seconds to wait while another process makes the connection that this one wants too."""
CONNECTIONS = 8
"""How many kept connections to one host are tried: sshd opens 10 sessions on each (MaxSessions)."""
LOGIN_LIMIT = 120.0
"""Seconds for a person to type; sshd's own LoginGraceTime is as long."""


class OpenSSH:
    """A `Transport` to `host`: alias, `user@host`, `host:port`, `ssh://…`, IPv6.

    `key` is a private key file. `config` is another ssh_config (else `$CVL_SSH_CONFIG`, else the
    user's). An unknown host key is refused unless the user's ssh_config or `accept_new` says
    otherwise; with `known_hosts` that file, and it alone, says who the host is. A connection is
    kept `control_persist` seconds after its last use (0: not kept). A dead peer is noticed after
    `alive[0]` times `alive[1]` seconds. Raises `UsageError` for what is wrong on this side.
    """

    def __init__(
        self,
        host: str,
        *,
        key: str | Path | None = None,
        user: str | None = None,
        port: int | None = None,
        config: str | Path | None = None,
        known_hosts: str | Path | None = None,
        accept_new: bool = False,
        control_persist: float = 600,
        connect_timeout: float = 15,
        alive: tuple[int, int] = (5, 3),
    ) -> None:
        self._to = parse(host)
        self._where = host
        options = ["-Tax"]  # no terminal, no agent, no X11 over there
        config = config or os.environ.get("CVL_SSH_CONFIG")
        self._config = _readable(config, "ssh_config") if config else None
        options += ["-F", self._config] if self._config else []
        if key is not None:
            options += [*_option("IdentityFile", _key(key)), *_option("IdentitiesOnly", "yes")]
        if known_hosts is not None:
            options += _pinned(str(Path(known_hosts).absolute()), new=accept_new)
        elif accept_new:
            options += _option("StrictHostKeyChecking", "accept-new")
        login = self._to.user if user is None else user
        options += [] if login is None else ["-l", login]
        door = self._to.port if port is None else port
        options += [] if door is None else ["-p", str(door)]
        seconds, count = alive
        self._options = [
            *options,
            *_option("BatchMode", "yes"),
            *_option("ConnectTimeout", str(max(1, round(connect_timeout)))),
            *_option("ServerAliveInterval", str(seconds)),
            *_option("ServerAliveCountMax", str(count)),
            *_option("ClearAllForwardings", "yes"),
            *_option("RemoteCommand", "none"),
            *_option("PermitLocalCommand", "no"),  # it would read what we send, as scp knows
            *_option("Tunnel", "no"),
            *(word for name, value in overruled(self._config) for word in _option(name, value)),
        ]
        self._connect_timeout = connect_timeout
        self._persist = round(control_persist)
        self._frozen: set[str] = set()
        self._ready: tuple[str, Process] | None = None
        self._loud = False

    @property
    def where(self) -> str:
        """The host as it was given."""
        return self._where

    def start(self, argv: Sequence[str]) -> Process:
        """Run `argv` there, with pipes: over a kept connection if there is one.

        Otherwise one ssh connects, runs it and leaves the connection behind. Waits for nothing
        but a kept connection's answer. Raises `MissingTool`, and `ValueError` for what cannot be
        quoted for every login shell.
        """
        line = command(argv)
        if self._ready and self._ready[0] == line:
            (_, process), self._ready = self._ready, None
            return process
        return self._start(line)

    def get_ready(self, argv: Sequence[str]) -> None:
        """Start `argv` ahead of time: the next `start` of the same gets it, already connecting.

        For a command that waits for its standard input. What nobody starts, `unready` ends.
        """
        self.unready()
        line = command(argv)
        self._ready = line, self._start(line)

    def unready(self) -> None:
        """End what was started ahead of time, and not asked for since."""
        ready, self._ready = self._ready, None
        if ready is None:
            return
        process = ready[1]
        process.kill()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        process.wait(ANSWER_LIMIT)

    def _start(self, line: str) -> Process:
        for path in self._sockets():
            process = self._over(path, line)
            if process is not None:
                return process
        return self._spawn(line, None)

    def failure(self, code: int, stderr: bytes) -> CvlError | None:
        error = lost(self._where, code, stderr)
        self._loud = type(error) is Unreachable
        return error

    def check(self) -> None:
        """Raise `MissingTool` unless ssh is installed here: by PATH, as `shutil.which`.

        That one loads in 3 ms.
        """
        places = (Path(folder or ".", "ssh") for folder in os.get_exec_path())
        if not any(place.is_file() and os.access(place, os.X_OK) for place in places):
            raise MissingTool("ssh is not installed here", "apt install openssh-client")

    def login(self) -> None:
        """Let ssh itself ask on our terminal for what a key or the host needs; keep the connection.

        For a program that speaks with a person, after an `AuthError`: `start` never asks. Waits
        for `LOGIN_LIMIT` at most. Raises as `failure` judges.
        """
        from subprocess import DEVNULL, PIPE, TimeoutExpired, run

        path = next(self._sockets(), None)
        asking = ["ssh", *_option("BatchMode", "no"), *self._ssh(self._keep(path))[1:]]
        try:  # the first value that ssh reads of an option holds
            words = [*asking, "exec true"]
            done = run(words, stdout=DEVNULL, stderr=PIPE, timeout=LOGIN_LIMIT, check=False)
        except TimeoutExpired:
            raise AuthError(f"nobody logged in to {self._where}") from None
        if error := self.failure(done.returncode, done.stderr):
            raise error

    def _over(self, path: str, line: str) -> Process | None:
        """Run over the connection kept at `path`, or leave one there; None: try another path."""
        turn, taken = Turn(path), False
        for attempt in Scope(seconds=TURN_LIMIT).attempts((LOOK,)):
            try:
                process: Process | None = mux.start(path, line, ANSWER_LIMIT)
            except mux.TooLarge:
                process = self._spawn(line, path)
            except (FileNotFoundError, ConnectionRefusedError):
                if taken:
                    break
                if taken := turn.take():
                    attempt.at_once()  # the one before us may have connected
                continue
            except (mux.Refused, OSError) as error:
                if isinstance(error, TimeoutError):
                    self._frozen.add(path)
                process = None
            turn.release()
            return process
        return self._connect(line, path, turn)

    def _connect(self, line: str, path: str, turn: Turn) -> Process:
        """Start an ssh that connects; it is the next one's turn once that has, or has failed."""
        try:
            child = self._spawn(line, path)
        except BaseException:
            turn.release()
            raise
        connected = Path(path).exists
        turn.release_when(lambda: connected() or child.poll() is not None, self._connect_timeout)
        return child

    def _spawn(self, line: str, path: str | None) -> Process:
        from cvl.core.child_process import Leashed

        self.check()
        # After a cut, once: much of what ends a connection is no error to ssh, and one that keeps
        # its connection does not pass on what a ProxyCommand or a jump host says.
        loud, self._loud = self._loud, False
        words = self._ssh(self._keep(None if loud else path), "INFO" if loud else "ERROR")
        # its own session: the terminal's Ctrl-C is not for it
        process = cast("Process", Leashed([*words, line]))
        mux.widen(process.stdout.fileno())
        return process

    def _ssh(self, more: Sequence[str], level: str = "ERROR") -> list[str]:
        words = _option("LogLevel", level)
        return ["ssh", *self._options, *words, *more, "--", self._to.name]

    def _keep(self, path: str | None) -> list[str]:
        """The options that leave a connection behind at `path`."""
        if path is None:
            return ["-S", "none", *_option("ControlMaster", "no")]
        persist = _option("ControlPersist", str(self._persist))
        return ["-S", path.replace("%", "%%"), *_option("ControlMaster", "auto"), *persist]

    def _sockets(self) -> Iterator[str]:
        """Yield where kept connections listen, in the order in which they are to be tried."""
        if not self._persist:
            return
        for path in sockets.paths((*self._options, self._to.name), self._config, CONNECTIONS):
            if path not in self._frozen:
                yield path


def _option(name: str, value: str) -> tuple[str, str]:
    return "-o", f"{name}={value}"


def _pinned(path: str, *, new: bool) -> Iterator[str]:
    """That file says who the host is, and no other; `new`: an unknown host is added to it."""
    yield from _option("UserKnownHostsFile", _word(path))
    yield from _option("GlobalKnownHostsFile", "/dev/null")
    yield from _option("StrictHostKeyChecking", "accept-new" if new else "yes")
    yield from _option("UpdateHostKeys", "no")
    yield from _option("VerifyHostKeyDNS", "no")


def _word(path: str) -> str:
    """Write a path for a line of ssh_config: with its spaces, without its `%` codes."""
    return '"' + path.replace("%", "%%") + '"'


def _readable(path: str | Path, what: str) -> str:
    full = Path(path).expanduser().absolute()
    if full != Path(os.devnull) and not (full.is_file() and os.access(full, os.R_OK)):
        raise UsageError(f"cannot read the {what} {full}", "check the path and its permissions")
    return str(full)


def _key(path: str | Path) -> str:
    """Check a private key as ssh would, but before anything is sent."""
    full = _readable(path, "SSH key")
    if full.endswith(".pub"):
        raise UsageError(f"{full} is the public key", f"give the private one: {full[:-4]}")
    status = Path(full).stat()
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(f"others can read the SSH key {full}", f"chmod 600 {full}")
    return _word(full)
