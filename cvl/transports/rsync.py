"""Copies files from a machine with rsync over ssh: resumable, and only what has changed.

The machine is not trusted: only what was asked for is taken, only regular files, and nothing is
written through a link that lies here already (rsync replaces it). Needs rsync 3.1 on both sides.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shlex
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO

from cvl.core.child_process import Leashed
from cvl.core.errors import Blocked, CvlError, FetchError, NotReady, Unreachable
from cvl.core.scope import Scope
from cvl.core.staging import EVERYWHERE
from cvl.transports.programs import needed
from cvl.transports.ssh.errors import lost, verdict

OPTIONS = (
    "--times",
    "--omit-dir-times",
    "--no-links",
    "--partial-dir=.cvl-partial",
    "--from0",
    "--files-from=-",
    "--protect-args",
    "--blocking-io",  # else `cat` below finds that its stdout does not wait
    "--info=progress2",
    "--no-human-readable",
    "--timeout=30",  # what reads our words over there, as a .bashrc may, would wait for ever
)
TICK = 0.1
"""Seconds between two looks at the scope."""
REST = 0.02
"""Seconds between two looks at the progress: rsync tells it after each file."""
END_LIMIT = 3.0
"""Seconds that rsync has to keep what has arrived of a file when it is told to stop."""
NOT_FOUND = 127
CONNECTION_CODES = frozenset({10, 12, 30, 35, 255})
"""rsync(1), EXIT VALUES: socket, protocol stream, time-outs; 255 is ssh's own."""
OWN = re.compile(rb"^rsync.*\[(?:[Rr]eceiver|generator|client)[]=]")
"""What our own rsync says: of the other one it knows no more than that it has gone."""
HERE = re.compile(rb"(?:write failed on|mkstemp|mkdir|rename|open|failed to) .*: ([^:]+) \((\d+)\)")
PROGRESS = re.compile(rb"(?<!\d)(\d{1,18}+)\s++(\d{1,4}+)%\s++(\S++)(?<=/s)")

# rsync's stdout over there comes after whatever the login shell prints: a line of ours stands
# between. `read` takes single bytes, so that `cat` goes on right behind it. The exit status is
# that of ssh, not of the filter.
REMOTE_SHELL = """\
exec 4>&1
status=$({{ {{ {ssh} "echo; echo {mark}; $*" 3>&- 4>&-; echo $? >&3; }} |
  {{ while IFS= read -r line && [ "$line" != {mark} ]; do :; done; exec cat >&4; }}; }} 3>&1)
exit $status
"""


def pull(
    source: str, files: Sequence[bytes], into: Path, scope: Scope, *, ssh: Sequence[str], where: str
) -> None:
    """Copy `files` below `source` into `into`; `ssh` is argv up to where the command follows.

    Raises as `Transport.pull`, and as `scope` does when that is over: what has arrived stays.
    """
    if not files:
        return
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as errors:
        names.write(b"".join(b"./" + relative(name) + b"\0" for name in files))
        names.seek(0)
        code = _run(_start(source, into, ssh, names, errors), scope)
        errors.seek(0)
        if code and (error := _judge(where, code, errors.read(1 << 16))):
            raise error


def relative(name: bytes) -> bytes:
    """Return `name` if it stays below the folder that it is relative to, or raise `FetchError`."""
    if not name or name.startswith(b"/") or b".." in name.split(b"/") or b"\0" in name:
        raise FetchError(f"refused to fetch {os.fsdecode(name)!r}: it lies outside of the results")
    return name


def _start(
    source: str, into: Path, ssh: Sequence[str], names: IO[bytes], errors: IO[bytes]
) -> Leashed:
    """Start rsync. It puts a host's name before the command: a host `exec` is what sh needs."""
    script = REMOTE_SHELL.format(ssh=shlex.join(ssh), mark=f"cvl:{secrets.token_hex(8)}")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RSYNC_")}
    shell = ("--rsh", "sh -c 'eval \"$CVL_RSH\"' sh")
    needed("rsync")
    return Leashed(
        ["rsync", *OPTIONS, *shell, f"exec:{source.rstrip('/')}/", f"{into.absolute()}/"],
        stdin=names,
        stderr=errors,
        env={**ours, "LC_ALL": "C", "CVL_RSH": script},
    )


def _run(child: Leashed, scope: Scope) -> int:
    """Report progress until rsync has ended; end it when the scope is over."""
    assert child.stdout is not None
    try:
        with child.stdout as out:
            while True:
                scope.checkpoint()
                if not select.select([out], [], [], TICK)[0]:
                    continue
                data = os.read(out.fileno(), 1 << 16)
                if not data:
                    return child.wait(END_LIMIT)
                scope.heard()
                _tell(data, scope)
                scope.sleep(REST)
    finally:
        _end(child)


def _tell(data: bytes, scope: Scope) -> None:
    reports = PROGRESS.findall(data)
    if reports:
        done, percent, rate = reports[-1]
        scope.tell("fetch", f"{int(done) / 1e6:.1f} MB, {int(percent)} %, {rate.decode()}")


def _end(child: Leashed) -> None:
    """End rsync and its ssh, if they still run. TERM lets it keep a half-received file."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        os.killpg(child.pid, number)
        try:
            child.wait(END_LIMIT)
        except TimeoutExpired:
            continue


def _judge(where: str, code: int, stderr: bytes) -> CvlError | None:
    lines = [line for line in stderr.splitlines() if line.strip()]
    words = b"\n".join(line for line in lines if not OWN.search(line))
    if fault := _here(lines):
        return fault
    if code == NOT_FOUND or _missing(stderr):
        return NotReady(f"rsync is not installed on {where}", "on that machine: apt install rsync")
    if code in CONNECTION_CODES:
        known = verdict(where, words) or lost(where, 255, words)
        return known or Unreachable(f"the connection to {where} ended")
    said = "; ".join(line.decode(errors="replace") for line in lines[:3])
    return FetchError(
        f"not everything could be fetched from {where} (rsync {code}: {said[:400]})",
        "what was fetched is here; fetching again gets the rest",
    )


def _here(lines: Sequence[bytes]) -> Blocked | None:
    """Return what our own rsync could not write, if that was because of this machine's disk."""
    for line in lines:
        match = HERE.search(line) if OWN.search(line) else None
        if match and int(match[2]) in EVERYWHERE:
            return Blocked(
                f"no room for the results, or no right to write: {match[1].decode()}",
                "make room, or name a folder on another disk with `cvl fetch RUN -o DIR`",
            )
    return None


def _missing(stderr: bytes) -> bool:
    """Return whether a shell over there says that it knows no rsync."""
    lines = (line.partition(b"rsync")[2] for line in stderr.split(b"\n"))
    unknown = re.search(rb"Unknown command:? *+'?rsync", stderr)
    return unknown is not None or any(b"not found" in line for line in lines)
