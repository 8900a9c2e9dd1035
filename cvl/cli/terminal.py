"""The only place that makes lines of ours; `screen.py` puts them where there is room for them.

Whatever a line holds may have come from outside, so each is cleaned here: of secrets
(`core/secrets.py`) and of what acts on a terminal (`core/printable.py`). None fails because the
terminal's encoding lacks a character. Lines for a person and for a pipe are the same. JSON is
exact: it escapes by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from cvl.cli.screen import SCREEN
from cvl.core.errors import NotAgreed, UsageError
from cvl.core.printable import LINE, many_lines, one_line
from cvl.core.secrets import clean

YES, NO = frozenset({"y", "yes"}), frozenset({"n", "no", ""})
CELL = 256
"""Characters of one cell of a table that are shown; the last cell of a row may fill a line."""


def say(line: str) -> None:
    """Write one line to stderr; that nobody can read it, as after a hang-up, does not matter."""
    with suppress(OSError):
        SCREEN.line(sys.stderr, one_line(clean(line)))


def complain(message: str, hint: str = "") -> None:
    """Say on stderr what went wrong, in one sentence, and what to do now."""
    say(f"cvl: {message}")
    if hint:
        say(f"hint: {hint}")


def show(line: str) -> None:
    """Write one line to stdout. Raises `OSError` where that has no place."""
    SCREEN.line(sys.stdout, one_line(clean(line)))


def show_text(text: str) -> None:
    """Write a text of several lines to stdout. Raises `OSError` as `show` does."""
    SCREEN.line(sys.stdout, many_lines(clean(text)))


def show_exact(text: str) -> None:
    """Write what a program reads to stdout as it is. Raises `OSError` as `show` does."""
    SCREEN.line(sys.stdout, text)


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows of equally many cells to stdout, in columns. Raises `OSError` as `show` does."""
    limits = [*[CELL] * (len(rows[0]) - 1), LINE] if rows else []
    shown = [list(map(one_line, map(clean, row), limits)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        SCREEN.line(sys.stdout, "  ".join(cells).rstrip())


def show_json(value: object) -> None:
    """Write a value to stdout as JSON, in ASCII; what JSON does not know as text. `OSError`."""
    SCREEN.line(sys.stdout, _json(value, indent=2))


def say_json(value: object) -> None:
    """Write a value to stderr as one line of JSON, as `say` does."""
    with suppress(OSError):
        SCREEN.line(sys.stderr, _json(value))


def agree(question: str, otherwise: str, *, nobody: str = "nobody is there to ask") -> None:
    """Ask on the terminal whether to go on; no is the default.

    Raises `NotAgreed`, which says `otherwise` was done, for a no, the end of the input or Ctrl-C;
    `UsageError` where nobody can answer.
    """
    if not (_terminal(sys.stdin) and _terminal(sys.stderr)):
        raise UsageError(nobody, "agree with -y")
    try:
        while (answer := SCREEN.ask(f"cvl: {one_line(clean(question))} [y/N]:").lower()) not in YES:
            if answer in NO:
                raise NotAgreed(f"not agreed; {otherwise}")
    except KeyboardInterrupt:
        raise NotAgreed(f"not agreed; {otherwise}", interrupted=True) from None


def spelt(text: str) -> str:
    """Return a text as stderr can show it, a character each for those that it cannot."""
    encoding = (sys.stderr and sys.stderr.encoding) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def never_fail_on_encoding() -> None:
    """Let what others write here (`--help`, a prompt) never fail for want of a character.

    In UTF-8 mode Python takes the terminal for one that reads UTF-8, too: it has the locale's.
    """
    encoding = None
    if "utf8" in sys._xoptions and "PYTHONIOENCODING" not in os.environ:  # noqa: SLF001
        from locale import getencoding

        encoding = getencoding()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # not a file of ours
            stream.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]


def _json(value: object, indent: int | None = None) -> str:
    from json import dumps

    # DEL is the one control character that JSON lets pass
    return dumps(value, indent=indent, default=str).replace("\x7f", "\\u007f")


def _terminal(stream: TextIO | None) -> bool:
    """Return whether a person is at the other end of one of the standard files."""
    return stream is not None and not stream.closed and stream.isatty()
