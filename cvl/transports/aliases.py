"""The hosts that the user's ssh_config names: its `Host` words without a pattern in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from glob import iglob
from pathlib import Path

LIMIT = 1 << 20
"""Bytes of one file that are read."""
FILES, DEPTH = 100, 16
"""Files that are read; how deep they may include each other (ssh_config(5): 16)."""
LINE = re.compile(r"\s*(host|include)(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)
WORD = re.compile(r'"([^"]*)"|(\S+)')


def aliases(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names in the file that our ssh reads: `$CVL_SSH_CONFIG`, else the user's own.

    A name with `*`, `?` or `!` in it names no host. What cannot be read names none.
    """
    home = environ.get("HOME", "")
    named = environ.get("CVL_SSH_CONFIG", "")
    if not (named or home):
        return frozenset()
    first = Path(named).expanduser() if named else Path(home, ".ssh/config")
    found = set[str]()
    todo, seen = [(first, 0)], set[Path]()
    while todo and len(seen) < FILES:
        path, depth = todo.pop()
        if path in seen or depth > DEPTH:
            continue
        seen.add(path)
        for keyword, words in _lines(path):
            if keyword == "host":
                found |= {word for word in words if not re.search(r"[*?!]", word)}
            else:
                todo += [(each, depth + 1) for word in words for each in _included(word, home)]
    return frozenset(found)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    for line in _text(path).splitlines():
        if found := LINE.fullmatch(line):
            words = [quoted or bare for quoted, bare in WORD.findall(found[2])]
            comment = next((at for at, word in enumerate(words) if word[:1] == "#"), None)
            yield found[1].lower(), words[:comment]


def _text(path: Path) -> str:
    """Read a file; "" for a pipe, a device, or what cannot be read."""
    try:
        if not path.is_file():
            return ""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            return opened.read(LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""


def _included(word: str, home: str) -> list[Path]:
    """Return the files of an `Include`: a pattern, relative to `~/.ssh` in a user's file."""
    path = f"{home}/{word[2:]}" if word.startswith("~/") else os.path.join(home, ".ssh", word)  # noqa: PTH118 - a pattern
    return [Path(each) for each in sorted(iglob(path))[:FILES]]  # noqa: PTH207 - absolute patterns
