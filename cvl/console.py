"""Everything a person sees while a run goes on: the job's bytes, our lines, one status line.

The job's output goes to stdout byte for byte, with nothing of ours in between. Our own words go
to stderr. Only when both are a terminal does a status line (phase, elapsed, rate) stand below
the output; it steps aside whenever the job writes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from errno import EIO, EPIPE
from select import select
from typing import TYPE_CHECKING

from cvl.errors import CvlError
from cvl.hidden import clean
from cvl.nodes import prefix
from cvl.scope import BACK, SILENT, WARNING
from cvl.spec import EXIT_CODES, ExitStatus, LogChunk
from cvl.terminal import say
from cvl.units import elapsed, priced, size
from cvl.visible import one_line

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

QUIET_SPELL = 0.4
"""Seconds without output after which the status line comes back."""
AGAIN = 60.0
"""Seconds after which the same line is worth being said again."""
PAID = frozenset({"booting", "running"})
"""Phases from the first of which on a rented machine costs money."""
LASTING = frozenset({"building", "pushing", "fetched", "left", "cost"})
"""Phases worth a line of their own: what they say is still wanted afterwards."""
SHOWN = LASTING | {"waiting", "renting", "booting", "upload", "stopping", "fetch", SILENT, BACK}
"""Those worth one where no status line can stand."""
MOVING = frozenset({"upload", "fetch"})
"""Those that are told over and over, how far they are: a line each `PACE` seconds says enough."""
PACE = 10.0
SPINNER = 2
"""Columns before the status line's words."""
STATUS = 200
"""Characters of what the status line tells, beside its numbers."""


class Console:
    """The `Observer` of the command line."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        output: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`quiet`: only output, warnings and errors. `output` False: not even the output."""
        self._clock = clock
        self._quiet, self._shows_output = quiet, output
        self._lock = threading.Lock()
        self._out_closed = False
        self._many = False
        self._told = "", 0.0
        self._doing = "", ""
        self._moved: dict[str, float] = {}
        self._column_zero: dict[int, bool] = {}
        live = not quiet and os.isatty(1) and os.isatty(2) and os.environ.get("TERM") != "dumb"
        self._status = StatusLine() if live else None

    def phase(self, name: str, text: str) -> None:
        if name == WARNING:
            self.warn(text)
            return
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

    def price(self, rate: Decimal, currency: str = "USD") -> None:
        """Let the status line tell what is spent, at so much an hour."""
        if self._status:
            self._status.price(rate, currency)

    def output(self, chunk: LogChunk) -> None:
        if not self._shows_output:
            return
        if self._status:
            self._status.aside(chunk.data)
        with self._lock:
            self._many = self._many or chunk.node > 0
            self._write(self._prefixed(chunk) if self._many else chunk.data)

    def warn(self, text: str) -> None:
        self.say(text)

    def say(self, text: str) -> None:
        """Write one line of our own to stderr."""
        if self._status:
            self._status.aside(b"\n")
        with self._lock:
            say(f"cvl: {text}")

    def ended(self, status: ExitStatus) -> None:
        """Say how the run ended, unless it simply succeeded; a failure of ours always."""
        self.close()
        if status and (not self._quiet or EXIT_CODES.get(status.cause) == CvlError.exit_code):
            detail = f" ({status.detail})" if status.detail else ""
            cause = status.cause.value.replace("-", " ")
            self.say(f"{status.run_id}: {cause}, exit code {int(status)}{detail}")

    def close(self) -> None:
        """Take the status line away; idempotent."""
        if self._status:
            self._status.close()

    def _prefixed(self, chunk: LogChunk) -> bytes:
        mark = prefix(chunk.node)
        start = mark if self._column_zero.get(chunk.node, True) else b""
        self._column_zero[chunk.node] = chunk.data.endswith(b"\n")
        body = chunk.data[:-1].replace(b"\n", b"\n" + mark) + chunk.data[-1:]
        return start + body

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left and not self._out_closed:
            try:
                left = left[os.write(1, left) :]
            except BlockingIOError:  # somebody else has made it so
                select([], [1], [])
            except OSError as error:
                # whoever read us has gone; the run goes on, its log is complete
                self._out_closed = True
                if error.errno not in {EPIPE, EIO}:
                    say(f"cvl: cannot write the output here: {error.strerror}; `cvl logs` has it")


class StatusLine:
    """One line at the bottom of the terminal, drawn by rich, away while the job writes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._phase, self._text, self._bytes = "", "", 0
        self._rate, self._currency, self._rented = Decimal(0), "USD", 0.0
        self._last, self._at_line_start = 0.0, True
        self._lock = threading.Lock()
        self._line: Status | None = None
        self._shown = False
        self._closed = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def phase(self, name: str, text: str) -> None:
        """Show another phase."""
        self._phase, self._text = name, text
        if name in PAID and not self._rented:
            self._rented = time.monotonic()

    def price(self, rate: Decimal, currency: str = "USD") -> None:
        """Show what is spent, at so much an hour, once it begins."""
        self._rate, self._currency = rate, currency

    def aside(self, data: bytes) -> None:
        """Step aside for output that ends in `data`."""
        with self._lock:
            self._bytes += len(data)
            self._last = time.monotonic()
            self._at_line_start = data.endswith(b"\n")
            self._hide()

    def close(self) -> None:
        """Go away for good."""
        self._closed.set()
        with self._lock:
            self._hide()

    def _keep(self) -> None:
        while not self._closed.wait(QUIET_SPELL / 2):
            with self._lock:
                idle = time.monotonic() - self._last > QUIET_SPELL
                if self._closed.is_set() or not (idle and self._at_line_start):
                    continue
                self._show()

    def _show(self) -> None:
        if self._line is None:
            from rich.console import Console as RichConsole
            from rich.status import Status

            self._line = Status("", console=RichConsole(stderr=True))
        self._line.update(self._words(self._line.console.width))
        if not self._shown:
            self._line.start()
            self._shown = True

    def _hide(self) -> None:
        if self._line and self._shown:
            self._line.stop()
            self._shown = False

    def _words(self, width: int) -> Text:
        from rich.text import Text  # a string would be read as markup

        spent = max(time.monotonic() - self._began, 0.1)
        rate = f" · {size(int(self._bytes / spent))}/s" if self._bytes else ""
        told = Text(one_line(clean(f"{self._phase} {self._text}"), STATUS))
        numbers = Text(f" · {elapsed(spent)}{rate}{self._cost()}")
        told.truncate(max(width - SPINNER - numbers.cell_len, 1), overflow="ellipsis")
        words = told + numbers  # on one line: what a terminal wraps otherwise than we think stays
        words.no_wrap, words.overflow = True, "crop"
        return words

    def _cost(self) -> str:
        if not (self._rate and self._rented):
            return ""
        hours = Decimal(str(time.monotonic() - self._rented)) / 3600
        return f" · {priced(self._rate * hours, self._currency)}"
