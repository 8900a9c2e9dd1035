"""Reading one `cvl.toml`: its bytes once, bounded, never waiting; then what they say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cvl.core.errors import UsageError
from cvl.core.file_owner import judged
from cvl.core.frozen import dataclass
from cvl.core.regular_file import opened

FILE = "cvl.toml"
LIMIT = 1 << 16
"""Bytes that a file may have."""
DOTS = 100
"""Dots that a line may have: a key with ten thousand of them takes tomllib gigabytes (3.13)."""
TWICE = "say each name once; beside a [runner.NAME] the usual runner is default, below [runner]"

Key = tuple[str, ...]
"""Where a value stands: `("timeout",)`, or `("runner", "ssh", "host")`."""
Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file as it was read. `runners` has the names of its tables, those without options too."""

    path: Path
    values: Mapping[Key, Value]
    runners: frozenset[str]


def content(path: Path, *, also: int | None = None) -> bytes:
    """Return what stands in a file, read once. Raises `UsageError`.

    A pipe, a device or a folder is refused without opening it, so that nothing waits or acts. So
    is what others own, but for the user `also`, or may write to.
    """
    try:
        with opened(path, links=True) as file:
            if why := judged(os.fstat(file.fileno()), also):
                raise UsageError(f"{path}: not read: {why}", "take it over: chown and chmod go-w")
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > LIMIT:
        raise UsageError(f"{path}: cannot be read: more than {LIMIT >> 10} KiB")
    return data


def layer(path: Path, data: bytes) -> Layer:
    """Return what these bytes say. Raises `UsageError`, with path and line."""
    tables = _parsed(path, data)
    runners = tables.pop("runner", {})
    if isinstance(runners, str):
        runners = {"default": runners}
    if isinstance(runners, dict) and isinstance(runners.get("default"), str):
        tables["runner"] = runners.pop("default")
    if not isinstance(runners, dict) or not all(isinstance(own, dict) for own in runners.values()):
        raise UsageError(f"{path}: runner must hold one table for each runner", "[runner.NAME]")
    said: dict[Key, object] = {(name,): value for name, value in tables.items()}
    for runner, own in runners.items():
        said |= {("runner", runner, name): value for name, value in own.items()}
    return Layer(
        path=path,
        values={key: _value(path, ".".join(key), value) for key, value in said.items()},
        runners=frozenset(runners),
    )


def display(key: Key) -> str:
    """Return the name of a setting as it may be shown, without control characters."""
    return ".".join(part if re.fullmatch(r"[\w-]{1,60}", part) else repr(part[:60]) for part in key)


def _parsed(path: Path, data: bytes) -> dict[str, object]:
    import tomllib

    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > DOTS and not line.lstrip().startswith(b"#"):
            raise UsageError(f"{path}:{number}: more than {DOTS} dots in one line")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line_number = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line_number}: not UTF-8 text") from error
    except RecursionError as error:
        raise UsageError(f"{path}: too many brackets inside brackets") from error
    except ValueError as error:  # also for a number with thousands of digits
        # "what (at line 3, column 7)", or "what (at end of document)"
        what, _, place = str(error).rpartition(" (at ")
        word = place.removeprefix("line ").partition(",")[0]
        end = int(word) if word.isdigit() else len(data.splitlines())
        twice = what.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate"))
        hint = TWICE if twice else "the file must be TOML: name = value"
        raise UsageError(f"{path}:{end}: {what or error}", hint) from error


def _value(path: Path, name: str, value: object) -> Value:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if isinstance(value, str | int | float | bool):
        return value
    raise UsageError(f"{path}: {name} must be text, a number, true or false, or a list of texts")
