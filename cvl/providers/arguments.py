"""What a caller gives a runner, from Python above all: checked before anything is done with it."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from cvl.core.errors import UsageError
from cvl.core.octets import octets
from cvl.core.secrets import learn_variables
from cvl.providers.common import OPTIONS, RunOption

OURS = frozenset({"CVL_RUN_ID", "CVL_WORK_DIR", "CVL_CONTAINER_NAME"})
"""Variables by which a run's processes, containers and results are found."""
NAMES = "a name has letters, digits and _, no digit first"


def words(args: Sequence[str] | None, name: str = "args") -> tuple[str, ...]:
    """Return a list of texts. Raises `UsageError` for what no program can be given."""
    if isinstance(args, (str, bytes)):
        raise UsageError(f"{name} is a list of texts, not one text", f"{name}=['--epochs', '3']")
    return tuple(_text(word, "an argument") for word in args or ())


def variables(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return the variables for the job. Raises `UsageError`, never with a value in it."""
    variables = dict(env or {})
    for name, value in variables.items():
        if not is_name(name):
            raise UsageError(f"not a variable's name: {name!r}", NAMES)
        _text(value, f"the variable {name}", secret=True)
    free(variables)
    learn_variables(variables)
    return variables


def sensible(common: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a value that an option of every run does not have."""
    for row in OPTIONS:
        if (value := common.get(row.name)) is not None and (domain := _domain(row, value)):
            raise UsageError(f"{row.name} is {domain}, not {value!r}")


def _domain(row: RunOption, value: object) -> str:
    """Return what values the option has, "" if this may be one."""
    if row.choices and value not in row.choices:
        return f"one of {', '.join(row.choices)}"
    match row.kind:
        case "duration" | "pause" if not isinstance(value, float | int):
            return "a number of seconds"
        case "count" if not (isinstance(value, int) and value >= 1):
            return "a number from 1 on"
        case "money" if not (
            isinstance(value, Decimal | int) and not Decimal(value).is_nan() and value >= 0
        ):
            return "a Decimal from 0 on"
        case "path" if not isinstance(value, str | os.PathLike):
            return "a path"
    return ""


def free(names: Mapping[str, object]) -> None:
    """Raise `UsageError` for a variable that nobody but cvl may set."""
    for name in sorted(OURS & set(names)):
        hint = "leave it out of -e, --env-file and example.yaml"
        raise UsageError(f"{name} is set by cvl itself", hint)


def is_name(name: object) -> bool:
    """Return whether this is a name that every shell takes for a variable's."""
    return isinstance(name, str) and name.isidentifier() and name.isascii()


def seconds(value: float, what: str) -> float:
    """Return a number of seconds that is not negative, nor without end. Raises `UsageError`."""
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{what} is not a number of seconds: {value}", "0 or more")
    return float(value)


def results(value: str | Path) -> Path:
    """Return where results are to land, if anything can. Raises `UsageError`."""
    folder = path(value, "output_dir").absolute()
    parent = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not parent.is_dir():
        raise UsageError(f"{parent} is no folder: results cannot land there", "name one: -o DIR")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"you may not write to {parent}: results cannot land there", "-o DIR")
    return folder


def path(value: str | Path, what: str) -> Path:
    """Return a path as the system has it here, whatever the locale. Raises `UsageError`."""
    return Path(os.fsdecode(octets(_text(os.fspath(value), what))))


def only(keywords: Mapping[str, object], names: Collection[str]) -> None:
    """Raise `TypeError`, as Python does, for a keyword that is none of `names`."""
    for name in sorted(set(keywords) - set(names)):
        raise TypeError(f"run() got an unexpected keyword argument {name!r}")


def _text(value: object, what: str, *, secret: bool = False) -> str:
    quotation = "" if secret else f": {value!r}"
    if not isinstance(value, str):
        kind = type(value).__name__
        raise UsageError(f"{what} is no text but {kind}{quotation}", "str(...) makes one")
    if "\0" in value:
        raise UsageError(f"{what} holds a NUL byte{quotation}", "no program can be given one")
    try:
        octets(value)
    except UnicodeEncodeError:
        raise UsageError(f"{what} holds half a character{quotation}", "it has no bytes") from None
    return value
