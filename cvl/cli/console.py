"""Everything a person sees while a run goes on: the job's bytes, our lines, one status line.

The job's output goes to stdout byte for byte, with nothing of ours in between. Our own words go
to stderr. Only when both are a terminal does a status line (phase, elapsed, rate) stand below
the output; it steps aside whenever the job writes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from errno import EIO, EPIPE
from itertools import cycle
from typing import TYPE_CHECKING

from cvl.cli.screen import SCREEN, columns
from cvl.cli.terminal import say, spelt
from cvl.core.errors import CvlError
from cvl.core.printable import one_line
from cvl.core.scope import BACK, SILENT, WARNING, Cancelled, Scope, SystemClock
from cvl.core.secrets import clean
from cvl.core.spec import EXIT_CODES, Cause, ExitStatus, LogChunk
from cvl.core.units import elapsed, priced, size
from cvl.run.nodes import prefix

if TYPE_CHECKING:
    from rich.text import Text

QUIET_SPELL = 0.4
"""Seconds after which the status line comes: what is over by then needs none."""
TURN = 0.25
"""Seconds between two looks of it."""
MARKS = "|/-\\"
"""What turns at its beginning: that it does shows that we are alive."""
AGAIN = 60.0
"""Seconds after which the same line is worth being said again."""
RUNNING = "running"
PAID = frozenset({"booting", RUNNING})
"""Phases from the first of which on a rented machine costs money."""
LASTING = frozenset({"building", "pushing", "fetched", "left", "cost"})
"""Phases worth a line of their own: what they say is still wanted afterwards."""
SHOWN = LASTING | {"waiting", "renting", "booting", "upload", "stopping", "fetch", SILENT, BACK}
"""Those worth one where no status line can stand."""
MOVING = frozenset({"upload", "fetch"})
"""Those that are told over and over, how far they are: a line each `PACE` seconds says enough."""
PACE = 10.0
OVER = frozenset({"fetching", "left", "releasing"})
"""Phases of a job that writes no more."""
DUMB = frozenset({"", "dumb", "unknown"})
"""What TERM names a terminal that cannot move its cursor, or of which nothing is known."""
SPINNER = 2
"""Columns before the status line's words."""
NARROW = 8
"""Columns with less than which nothing can be said."""
STATUS = 200
"""Characters of what the status line tells, beside its numbers."""


class Console:
    """The `Observer` of the command line."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        output: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`quiet`: only output, warnings and errors. `output` False: not even the output."""
        self._clock = clock or SystemClock().monotonic
        self._quiet, self._shows_output = quiet, output
        self._lock = threading.Lock()
        self._out_closed = False
        self._many = False
        self._told = "", 0.0
        self._doing = "", ""
        self._moved: dict[str, float] = {}
        self._column_zero: dict[int, bool] = {}
        able = os.isatty(1) and os.isatty(2) and os.environ.get("TERM", "") not in DUMB
        self._status = StatusLine() if able and not quiet else None

    def phase(self, name: str, text: str) -> None:
        if name == WARNING:
            self.warn(text)
            return
        if name in OVER:
            SCREEN.job_over()
        if name not in {SILENT, BACK}:
            self._doing = name, text
        if self._status:
            self._status.phase(*(self._doing if name == BACK else (name, text)))
        if (self._quiet and name not in {SILENT, BACK}) or (name in MOVING and not self._due(name)):
            return
        if name in (LASTING if self._status else SHOWN):
            self._tell(f"{name}: {text}" if text else name)

    def _due(self, name: str) -> bool:
        """Return whether a phase has moved long enough, at first or since its last line."""
        now = self._clock()
        if now - self._moved.setdefault(name, now) < PACE:
            return False
        self._moved[name] = now
        return True

    def _tell(self, line: str) -> None:
        """Say a line, but the same again only after a while."""
        now = self._clock()
        if line != self._told[0] or now - self._told[1] >= AGAIN:
            self._told = line, now
            self.say(line)

    def price(self, rate: Decimal, currency: str = "USD", seconds: float | None = None) -> None:
        """Let the status line tell what is spent, at so much an hour, since so many seconds."""
        if self._status:
            self._status.price(rate, currency, seconds)

    def since(self, seconds: float) -> None:
        """Let the status line count from so many seconds ago."""
        if self._status:
            self._status.since(seconds)

    def output(self, chunk: LogChunk) -> None:
        if self._status:
            self._status.heard(len(chunk.data))
        if not self._shows_output:
            return
        with self._lock:
            self._many = self._many or chunk.node > 0
            self._write(self._prefixed(chunk) if self._many else chunk.data)

    def warn(self, text: str) -> None:
        self.say(text)

    def say(self, text: str) -> None:
        """Write one line of our own to stderr."""
        say(f"cvl: {text}")

    def ended(self, status: ExitStatus) -> None:
        """Say how the run ended, unless it simply succeeded; a failure of ours always."""
        self.close()
        simply = status.cause is Cause.EXITED and int(status) == 0 and not status.detail
        ours = EXIT_CODES.get(status.cause) == CvlError.exit_code
        if not simply and status.cause is not Cause.DETACHED and (ours or not self._quiet):
            detail = f" ({status.detail})" if status.detail else ""
            cause = status.cause.value.replace("-", " ")
            self.say(f"{status.run_id}: {cause}, exit code {int(status)}{detail}")

    def close(self) -> None:
        """Take the status line away, and what the job has left on the terminal; idempotent."""
        if self._status:
            self._status.close()
        SCREEN.job_over()

    def _prefixed(self, chunk: LogChunk) -> bytes:
        mark = prefix(chunk.node)
        start = mark if self._column_zero.get(chunk.node, True) else b""
        self._column_zero[chunk.node] = chunk.data.endswith(b"\n")
        body = chunk.data[:-1].replace(b"\n", b"\n" + mark) + chunk.data[-1:]
        return start + body

    def _write(self, data: bytes) -> None:
        if self._out_closed:
            return
        try:
            SCREEN.job(data)
        except OSError as error:
            # whoever read us has gone; the run goes on, its log is complete
            self._out_closed = True
            if error.errno not in {EPIPE, EIO}:
                say(f"cvl: cannot write the output here: {error.strerror}; `cvl logs` has it")


class StatusLine:
    """What the bottom line says: phase, elapsed, the job's bytes a second, what is spent."""

    def __init__(self) -> None:
        self._scope = Scope()
        self._now = self._scope.clock.monotonic
        self._began = self._now()
        self._phase, self._text = "preparing", ""
        self._bytes, self._heard_since = 0, self._began
        self._rate: Decimal | None = None
        self._currency = "USD"
        self._rented: float | None = None
        SCREEN.give_way()
        threading.Thread(target=self._keep, daemon=True).start()

    def phase(self, name: str, text: str) -> None:
        """Show another phase."""
        self._phase, self._text = name, text
        if name in PAID and self._rented is None:
            self._rented = self._now()
        if name == RUNNING and self._bytes == 0:
            self._heard_since = self._now()

    def since(self, seconds: float) -> None:
        """Count from so many seconds ago: the run began before we did."""
        self._began = self._now() - max(seconds, 0.0)

    def price(self, rate: Decimal, currency: str = "USD", seconds: float | None = None) -> None:
        """Show what is spent, at so much an hour, once it begins, or since so many seconds."""
        self._rate, self._currency = rate, currency
        if seconds is not None:
            self._rented = self._now() - max(seconds, 0.0)

    def heard(self, count: int) -> None:
        """Count bytes of the job."""
        self._bytes += count

    def close(self) -> None:
        """Go away for good."""
        self._scope.cancel(Cause.STOPPED)
        SCREEN.bottom("", 0)

    def _keep(self) -> None:
        with suppress(Cancelled):
            self._scope.sleep(QUIET_SPELL)
            for mark in cycle(MARKS):
                words = self._words(columns())
                SCREEN.bottom(spelt(f"{mark} {words.plain}"), SPINNER + words.cell_len)
                if self._scope.cause:
                    SCREEN.bottom("", 0)
                self._scope.sleep(TURN)

    def _words(self, width: int) -> Text:
        from rich.text import Text  # a string would be read as markup

        now = self._now()
        words = Text(one_line(clean(f"{self._phase} {self._text}".rstrip()), STATUS))
        numbers = Text(f" · {elapsed(now - self._began)}{self._speed(now)}{self._cost(now)}")
        most = width - SPINNER - 1  # a line that ends in the last column may wrap
        words.truncate(max(most - numbers.cell_len, 1), overflow="ellipsis")
        words += numbers
        if most >= NARROW:
            words.truncate(most)
        words.no_wrap, words.overflow = True, "crop"
        return words

    def _speed(self, now: float) -> str:
        if self._bytes == 0:
            return ""
        spent = max(now - self._heard_since, 0.1)
        return f" · {size(int(self._bytes / spent))}/s"

    def _cost(self, now: float) -> str:
        if self._rate is None or self._rented is None:
            return ""
        hours = Decimal(str(now - self._rented)) / 3600
        return f" · {priced(self._rate * hours, self._currency)}"
