"""What we look for in the user's ssh_config ourselves; all else of it is ssh's to read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cvl.core.regular_file import start_of

LIMIT = 1 << 20
"""Bytes of one file that are read."""
FILES, DEPTH = 100, 16
"""Files that are read; how deep they may include each other (ssh_config(5): 16)."""
SYSTEM = Path("/etc/ssh/ssh_config")
OVERRULED = (("StdinNull", "no"), ("ForkAfterAuthentication", "no"), ("SessionType", "default"))
"""What keeps ssh from running a command with our input, and what does not."""
LINE = re.compile(
    r"\s*(host|include|stdinnull|forkafterauthentication|sessiontype)(?:\s*=\s*|\s+)(.*)",
    re.IGNORECASE,
)
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
    return frozenset(
        word
        for keyword, words in _read([first], home)
        if keyword == "host"
        for word in words
        if not re.search(r"[*?!]", word)
    )


def overruled(config: str | None) -> list[tuple[str, str]]:
    """Return the options that ssh is to be given against what the user's ssh_config says.

    Only those that it names: an ssh before 8.7 knows none of them, and refuses them all. `config`
    is the one file that is read, if not those that ssh reads by itself.
    """
    home = os.environ.get("HOME", "")
    files = [Path(config)] if config else [Path(home, ".ssh/config"), SYSTEM]
    named = {keyword for keyword, _ in _read(files, home)}
    return [(name, value) for name, value in OVERRULED if name.lower() in named]


def _read(files: list[Path], home: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines that we look for, of these files and of those that they include."""
    todo, seen = [(path, 0) for path in files], set[Path]()
    while todo and len(seen) < FILES:
        path, depth = todo.pop()
        if path in seen or depth > DEPTH:
            continue
        seen.add(path)
        for keyword, words in _lines(path):
            if keyword == "include":
                todo += [(each, depth + 1) for word in words for each in _included(word, home)]
            else:
                yield keyword, words


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    for line in _text(path).splitlines():
        if match := LINE.fullmatch(line):
            words = [quoted or bare for quoted, bare in WORD.findall(match[2])]
            comment = next((at for at, word in enumerate(words) if word[:1] == "#"), None)
            yield match[1].lower(), words[:comment]


def _text(path: Path) -> str:
    """Read a file; "" for a pipe, a device, or what cannot be read."""
    try:
        return start_of(path, LIMIT, links=True).decode("utf-8", "replace")
    except OSError:
        return ""


def _included(word: str, home: str) -> list[Path]:
    """Return the files of an `Include`: a pattern, relative to `~/.ssh` in a user's file."""
    from glob import iglob

    path = f"{home}/{word[2:]}" if word.startswith("~/") else os.path.join(home, ".ssh", word)  # noqa: PTH118 - a pattern
    return [Path(each) for each in sorted(iglob(path))[:FILES]]  # noqa: PTH207 - absolute patterns
