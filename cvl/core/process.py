"""Who owns something: a process, named so that no other, here or elsewhere, is taken for it.

A pid alone is reused; with its start time it is not, within one boot of one machine and one pid
namespace. An owner is written as one line, `host:machine:boot:space:pid:start`, and judged by
one rule: it is dead only if that is provable from here. Whatever is unknown is not dead.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path

from cvl.core.digest import blake2b
from cvl.core.frozen import dataclass
from cvl.core.octets import octets

PROC = Path("/proc")
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
MOST_PID = 2**31 - 1
BOOT_ID = "kern.bootsessionuuid"


class Life(StrEnum):
    """What can be said from here about the process that an owner names."""

    ALIVE = "alive"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"
    """On another machine, in another container, or not to be known: never treated as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process. A field that this system does not tell is "".

    `machine` is a digest of the machine id and the host name: images are cloned together with
    their machine id, and homes are shared between such machines. `space` is the pid namespace.
    """

    host: str
    machine: str
    boot: str
    space: str
    pid: int
    start: str

    def __str__(self) -> str:
        return ":".join((self.host, self.machine, self.boot, self.space, str(self.pid), self.start))


def me() -> str:
    """Return this process as an owner."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> str:
    """Return a process of this machine as an owner; raises `ProcessLookupError` if it is gone."""
    start = _start(pid)
    if start is None:
        raise ProcessLookupError(pid)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", os.uname().nodename)
    identity = ProcessIdentity(
        host=host, machine=_machine(), boot=boot_id(), space=_space(), pid=pid, start=start
    )
    return str(identity)


def parse(owner: str) -> ProcessIdentity | None:
    """Return the parts of an owner, or None if it is not one that this version writes."""
    match owner.split(":"):
        case [host, machine, boot, space, pid, start] if _is_pid(pid):
            return ProcessIdentity(
                host=host, machine=machine, boot=boot, space=space, pid=int(pid), start=start
            )
    return None


def _is_pid(text: str) -> bool:
    """What is read may be damaged: no more digits than a pid has."""
    return text.isdecimal() and len(text) <= len(str(MOST_PID)) and 0 < int(text) <= MOST_PID


def life(owner: str) -> Life:
    """Judge an owner, as seen from here. Dead means provably so; a zombie is dead."""
    it = parse(owner)
    if it is None or not it.boot or not it.start:
        return Life.ELSEWHERE
    if it.boot != boot_id():
        earlier = it.machine != "" and it.machine == _machine()
        return Life.DEAD if earlier and boot_id() else Life.ELSEWHERE
    if it.space != _space():
        return Life.ELSEWHERE
    return Life.ALIVE if _start(it.pid) in {it.start, ""} else Life.DEAD


def boot_id() -> str:
    """Return what names this boot of this machine, "" where nothing does."""
    return _text(PROC / "sys/kernel/random/boot_id") or _output("sysctl", "-n", BOOT_ID)


def describe(owner: str) -> str:
    """Return an owner for a person: `process 123 on laptop`."""
    it = parse(owner)
    return f"process {it.pid} on {it.host}" if it else "an unknown process"


def _machine() -> str:
    """Return a digest: machine-id(5) asks that the id itself is not shown around."""
    for path in MACHINE_IDS:
        if machine_id := _text(path):
            text = f"cvl {machine_id} {os.uname().nodename}"
            return blake2b(octets(text), digest_size=8).hexdigest()
    return ""


def _space() -> str:
    try:
        return "".join(filter(str.isdigit, (PROC / "self/ns/pid").readlink().name))
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """Return when `pid` started, None if it has ended, "" if it is there but does not say.

    On Linux that is in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)), counted
    from the last `)`, for the name before it may hold anything.
    """
    stat = _text(PROC / str(pid) / "stat")
    if stat:
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else fields[19]
    if not _exists(pid):
        return None
    return "" if PROC.joinpath("self/stat").exists() else _start_by_ps(pid)


def _start_by_ps(pid: int) -> str:
    """The way of systems without /proc, to the second."""
    return _output("ps", "-p", str(pid), "-o", "lstart=").replace(":", ".").replace(" ", "")


def _exists(pid: int) -> bool:
    """Also for processes of other users, which /proc may hide (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _output(*argv: str) -> str:
    """Return what a small program prints, "" if it cannot be had."""
    import subprocess

    env = {**os.environ, "LC_ALL": "C", "TZ": "UTC0"}
    try:
        program = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return program.stdout.decode("ascii", "replace").strip() if program.returncode == 0 else ""
