"""How words of the command line are read that are no plain text: paths, durations, money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from cvl.core.errors import UsageError
from cvl.core.units import duration, money, pause

T = TypeVar("T")


class Parsed(click.ParamType[T]):
    """A word that `read` makes a value of, or raises `UsageError`; what is one already stays."""

    def __init__(self, name: str, kind: type[T], read: Callable[[str], T]) -> None:
        self.name, self._kind, self._read = name, kind, read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return value if isinstance(value, self._kind) else self._read(str(value))
        except UsageError as error:
            self.fail(f"{error}. {error.hint}" if error.hint else str(error), param, ctx)


def _path(text: str) -> Path:
    """Return a path; the empty one, which a variable that is not set leaves behind, is none."""
    if text == "":
        raise UsageError("it is empty")
    return Path(text)


PATH = Parsed("path", Path, _path)
DURATION = Parsed("duration", float, duration)
PAUSE = Parsed("duration", float, pause)
MONEY = Parsed("number", Decimal, money)
KINDS: Mapping[str, click.ParamType[Any]] = MappingProxyType(
    {
        "path": PATH,
        "paths": PATH,
        "duration": DURATION,
        "pause": PAUSE,
        "minutes": click.FLOAT,
        "money": MONEY,
        "count": click.IntRange(1),
        "text": click.STRING,
        "texts": click.STRING,
    }
)
"""How each kind of option is read."""
