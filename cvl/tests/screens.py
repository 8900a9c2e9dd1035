"""A terminal as a person sees it: cvl in a pty, and an emulator that shows what its bytes make."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

from cvl.testing.cli_harness import LIMIT, Desk

LOOK = 0.02


class Seen:
    """A command on a terminal of its own; `shown` is what stands on it now."""

    def __init__(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        *,
        columns: int = 80,
        rows: int = 24,
        redirect: Mapping[int, Path] | None = None,
    ) -> None:
        """`redirect`: streams (1, 2) that lead to files instead."""
        self.master, slave = pty.openpty()
        self.bytes = b""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._size(columns, rows)
        files = {number: path.open("wb") for number, path in (redirect or {}).items()}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *words],
            stdin=slave,
            stdout=files.get(1, slave),
            stderr=files.get(2, slave),
            env={"TERM": "xterm", **env},
            cwd=cwd,
        )
        os.close(slave)
        for file in files.values():
            file.close()

    @property
    def shown(self) -> list[str]:
        """What stands on the screen: its lines down to the last that is not empty."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def cursor_is_seen(self) -> bool:
        return not self.screen.cursor.hidden

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def resize(self, columns: int, rows: int = 24) -> None:
        """As a window manager does: the kernel sends SIGWINCH."""
        self.screen.resize(rows, columns)
        self._size(columns, rows)

    def until(self, seen: Callable[[list[str]], object], limit: float = LIMIT) -> list[str]:
        """Read on until the screen is so; return it."""
        ends = time.monotonic() + limit
        while not seen(self.shown):
            assert time.monotonic() < ends, "\n".join(self.shown)
            assert self._read(LOOK) or self.process.poll() is None, "\n".join(self.shown)
        return self.shown

    def shows(self, words: str) -> list[str]:
        """Read on until a line of the screen holds `words`; return the screen."""
        return self.until(lambda lines: any(words in line for line in lines))

    def over(self, seconds: float) -> Iterator[list[str]]:
        """Yield what is seen whenever somebody looks, for so long."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._read(LOOK)
            yield self.shown

    def look(self) -> None:
        """Read what there is by now."""
        self._read(LOOK)

    def ended(self) -> int:
        """Read to the end; return the exit code."""
        ends = time.monotonic() + LIMIT
        while self._read(LOOK) or self.process.poll() is None:
            assert time.monotonic() < ends, "\n".join(self.shown)
        while self._read(LOOK):
            pass
        return self.process.wait(LIMIT)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, limit: float) -> bytes:
        data = read_from(self.master, limit)
        self.bytes += data
        self._stream.feed(data)
        return data


def read_from(terminal: int, limit: float) -> bytes:
    """Return what comes on a terminal within `limit` seconds, nothing at its end."""
    if not select.select([terminal], [], [], limit)[0]:
        return b""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


@contextmanager
def seen(desk: Desk, *words: str, **given: object) -> Iterator[Seen]:
    """Call `cvl WORDS` on a terminal; in the end neither it nor a job of its is left."""
    env = {**desk.environment, **given.pop("env", {})}  # type: ignore[dict-item]
    it = Seen([sys.executable, "-m", "cvl", *words], env, desk.repo, **given)  # type: ignore[arg-type]
    try:
        yield it
    finally:
        it.process.kill()
        it.process.wait(LIMIT)
        os.close(it.master)
        for run in desk.runs():
            if desk.left(run):
                desk.cvl("stop", "--grace", "0s", run)


def status(lines: Sequence[str]) -> str:
    """Return the status line of a screen, "" if it shows none."""
    return next(filter(is_status, lines), "")


def is_status(line: str) -> bool:
    return line[:2] in {"| ", "/ ", "- ", "\\ "}
