r"""Text from outside, made fit for a terminal: what would act is shown as an escape instead.

A host, a repository or a provider may put anything into a name or a message: sequences that
colour, move the cursor or set the window's title, marks that turn the order of what follows, a
line break that begins a line that looks like ours. Such a character is shown as Python writes
it in a string (`\x1b`, `\u202e`, `\n`); a byte of a file name that is no UTF-8 as that byte
(`\xff`). Everything else stays as it is. What is too long loses its middle.
"""

from __future__ import annotations

from collections.abc import Sequence

LINE = 4000
"""Characters of a line that are shown."""
TEXT = 100_000
"""Characters of a text of several lines that are shown."""
ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what acts on its surroundings: controls, formats, halves, breaks."""
BYTES = range(0xDC80, 0xDD00)
"""How `os.fsdecode` passes on bytes that are no UTF-8."""


def one_line(text: str, limit: int = LINE) -> str:
    """Return `text` as one line of at most about `limit` characters, escapes not counted."""
    return _inert(_short(text, limit))


def many_lines(text: str) -> str:
    """Return `text` with its line breaks and tabs, else as `one_line` does."""
    lines = _short(text, TEXT).replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(_inert, line.split("\t"))) for line in lines)


def first_of(names: Sequence[str], most: int) -> str:
    """Return `names` as one list of at most `most`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plain(text: str) -> str:
    """Return the words of `text` alone: no colours, titles, controls; line breaks stay."""
    import re

    text = re.sub(
        r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*.?)", "", text
    )
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text).strip()


def _short(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} … {text[-tail:]}"


def _inert(text: str) -> str:
    if text.isprintable():
        return text
    from unicodedata import category  # nearly every text does without

    return "".join(_escape(each) if category(each) in ACTING else each for each in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code in BYTES:
        return f"\\x{code & 0xFF:02x}"
    return character.encode("unicode_escape").decode("ascii")
