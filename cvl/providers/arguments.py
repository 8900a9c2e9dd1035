"""What a caller gives a runner, from Python above all: checked before anything is done with it."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from cvl.core.errors import UsageError
from cvl.core.octets import octets
from cvl.core.secrets import learn_variables
from cvl.providers.common import OPTIONS, Common, RunOption

Made = TypeVar("Made")

OURS = frozenset({"CVL_RUN_ID", "CVL_WORK_DIR", "CVL_CONTAINER_NAME"})
"""Variables by which a run's processes, containers and results are found."""
SECRET = re.compile(r"(^|_)(key|token|password|secret)$")
"""Parameters that hold a secret: it stands neither in argv nor in a message."""
NAMES = "a name has letters, digits and _, no digit first"
HUGE = 10**18
"""A whole number that is no amount of anything, and may be too long for a float."""
SHOWN = 40
"""Characters of a value that are shown."""


COMMON = MappingProxyType(
    {name: each.__forward_arg__ for name, each in Common.__annotations__.items()}
)
"""The annotations of every run's keywords, as they are written."""


def _of(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < HUGE


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_observer(value: object) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("phase", "output", "warn"))


TYPES: Mapping[str, tuple[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "None": ("", lambda value: value is None),
        "bool": ("True or False", _of(bool)),
        "int": ("a whole number", _is_number),
        "float": ("a number", lambda value: isinstance(value, float) or _is_number(value)),
        "Decimal": ("a Decimal", lambda value: isinstance(value, Decimal) or _is_number(value)),
        "str": ("a text", _of(str)),
        "Path": ("a path", _of(str, os.PathLike)),
        "Sequence": ("a list of texts", _is_list),
        "Mapping": ("a dict of texts", _of(Mapping)),
        "Callable": ("a function", callable),
        "Observer": ("an Observer", _is_observer),
    }
)
"""What a parameter's annotation may begin with: in words, and whether a value is one."""
WORDS = MappingProxyType(
    {
        "duration": "a number of seconds",
        "pause": "a number of seconds",
        "count": "a number from 1 on",
        "money": "a Decimal from 0 on",
        "path": "a path",
    }
)
"""The same of an option, by its kind."""


def checked(function: Callable[..., Made]) -> Callable[..., Made]:
    """Return `function`, called only with what its annotations and those of `Common` ask for.

    None stands for nothing: what has a default gets it. Raises `UsageError` for another type, and
    `TypeError`, as Python does, for a keyword that is not known or lacks.
    """

    @wraps(function)
    def call(*args: object, **keywords: object) -> Made:
        from inspect import signature

        _in_utf8()
        given = signature(function).bind(*args, **keywords)
        for name, each in given.signature.parameters.items():
            if each.kind is each.VAR_KEYWORD:
                more = given.arguments.get(name, {}).items()
                said = {word: value for word, value in more if value is not None}
                given.arguments[name] = {
                    word: _taken(word, COMMON.get(word, ""), value) for word, value in said.items()
                }
            elif name in given.arguments and each.kind is not each.VAR_POSITIONAL:
                value = given.arguments[name]
                nothing = value is None and each.default is not each.empty
                given.arguments[name] = (
                    each.default if nothing else _taken(name, str(each.annotation), value)
                )
        return function(*given.args, **given.kwargs)

    return call


def _in_utf8() -> None:
    """Raise `UsageError` where Python reads names as anything else: `core/octets.py` says why."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UsageError(f"Python reads the names of files here as {encoding}", "set PYTHONUTF8=1")


def _taken(name: str, hint: str, value: object) -> object:
    """Return a value that is of its annotation. Raises `UsageError`."""
    kinds = [each.partition("[")[0] for each in hint.split(" | ")]
    if set(kinds) <= TYPES.keys() and not _is_any(kinds, value):
        value = _plain(value, kinds)
        if not _is_any(kinds, value):
            kind = next((row.kind for row in OPTIONS if row.name == name), "")
            wanted = WORDS.get(kind) or next(TYPES[kind][0] for kind in kinds)
            shown = type(value).__name__ if SECRET.search(name) else _shown(value, kinds[0])
            raise UsageError(f"{name} is {wanted}, not {shown}", _example(name, hint))
    if hint == "Sequence[str]":
        words(cast("Sequence[str]", value))
    return value


def _is_any(kinds: Collection[str], value: object) -> bool:
    return any(TYPES[kind][1](value) for kind in kinds)


def _plain(value: object, kinds: Collection[str]) -> object:
    """Return what is as good as a value of one of these kinds as such a value, else as it is.

    Whatever can be gone through once is a list, 0 and 1 are truth values, and other libraries
    have numbers of their own.
    """
    if "Sequence" in kinds and isinstance(value, Iterable):
        return value if isinstance(value, str | bytes | Mapping) else tuple(value)
    if isinstance(value, int):
        return bool(value) if "bool" in kinds and value in {0, 1} else value
    with suppress(ValueError, OverflowError):
        if isinstance(value, Integral):
            return int(value)
        if "float" in kinds and isinstance(value, Real | Decimal):
            return float(value)
    return value


def _example(name: str, hint: str) -> str:
    return f"{name}=['--epochs', '3']" if hint.startswith("Sequence") else ""


def _shown(value: object, word: str) -> str:
    """Return a value as it may be shown: short, and no variable of the job's."""
    if word == "Sequence" and isinstance(value, str | bytes):
        return "one text"
    text = repr(value) if isinstance(value, str | int | float | list) and word != "Mapping" else ""
    return text if 0 < len(text) <= SHOWN else type(value).__name__


def words(args: Sequence[str] | None) -> tuple[str, ...]:
    """Return a list of texts. Raises `UsageError` for what no program can be given."""
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


def _domain(row: RunOption, value: Any) -> str:
    """Return what values the option has, "" if this may be one."""
    if row.choices and value not in row.choices:
        return f"one of {', '.join(row.choices)}"
    match row.kind:
        case "count" if value < 1:
            return WORDS[row.kind]
        case "money" if Decimal(value).is_nan() or value < 0:
            return WORDS[row.kind]
        case "duration" if value <= 0:
            return f"{WORDS[row.kind]}, more than 0"
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
    """Return a path that the system can have. Raises `UsageError`."""
    return Path(_text(os.fspath(value), what))


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
