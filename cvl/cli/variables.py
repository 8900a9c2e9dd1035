"""`-e` and `--env-file`: the variables that are forwarded. No message ever holds a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cvl.core.errors import UsageError
from cvl.core.secrets import whole
from cvl.providers.arguments import NAMES, is_name

EXPORT = re.compile(r"\Aexport[ \t]+")


def environment(words: Sequence[str], files: Sequence[Path]) -> dict[str, str]:
    """Return the variables to forward. Raises `UsageError`, never with a value in it."""
    variables: dict[str, str] = {}
    for file in files:
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{file} cannot be read: {reason(error)}", "one NAME=VALUE a line, in UTF-8"
            ) from error
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                variables.update(variable(unquoted(line.strip()), f"{file}:{number}: "))
    for word in words:
        variables.update(variable(word, "-e "))
    return variables


def unquoted(line: str) -> str:
    """Return a line without a leading `export`, and its value without quotes around it."""
    name, equals, value = EXPORT.sub("", line, 1).partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return f"{name}{equals}{value[1:-1] if quoted else value}"


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return an error's words without what it could not read."""
    return error.strerror or "" if isinstance(error, OSError) else "it is not UTF-8"


def variable(word: str, place: str) -> dict[str, str]:
    """Return one `NAME=VALUE`; a bare `NAME` takes its value from our own environment."""
    name, equals, value = word.partition("=")
    if not is_name(name):
        raise UsageError(f"{place}not NAME or NAME=VALUE", NAMES)
    if "\0" in value:
        raise UsageError(f"{place}{name} holds a NUL byte", "no program can be given one")
    if equals:
        return {name: value}
    ours = whole()
    if name not in ours:
        raise UsageError(f"{place}{name} is not set here", f"set it, or give {name}=VALUE")
    return {name: ours[name]}
