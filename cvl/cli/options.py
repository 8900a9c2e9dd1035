"""A runner's own options, read off its Python signature: declared once, there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from cvl.cli.parameter_types import KINDS, MONEY, PATH
from cvl.core.frozen import dataclass
from cvl.providers.arguments import SECRET
from cvl.providers.common import OPTIONS
from cvl.providers.runner import Runner

GIVEN = frozenset({"self", "example", "preset", "args", "command"})
"""Parameters that stand on the command line without an option."""
LIMITS = frozenset({"timeout_minutes", "max_run_minutes"})
"""Parameters that are `--timeout`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter that is an option, and where it goes: to `__init__` or to `run`."""

    name: str
    option: click.Option
    to_init: bool
    required: bool


Function = TypeVar("Function", bound=Callable[..., object])


def run_options(function: Function) -> Function:
    """Give a command the options of every run."""
    for row in reversed(OPTIONS):
        names, flag = ([row.short] if row.short else []), "--" + row.name.replace("_", "-")
        switch, many = row.kind == "switch", row.kind in {"paths", "texts"}
        click.option(
            *names,
            f"{flag}/--no-{flag[2:]}" if switch and row.key else flag,
            row.name,
            type=None if switch else click.Choice(row.choices) if row.choices else KINDS[row.kind],
            is_flag=switch or None,
            default=None,
            multiple=many,
            metavar=row.metavar,
            help=f"{row.help[:-1]} (default: {row.default})." if row.default else row.help,
        )(function)
    return function


def parameters(runner: type[Runner]) -> tuple[Parameter, ...]:
    """Return the runner's own options, in the order of its signature."""
    return _READ.get(runner) or _READ.setdefault(runner, _read(runner))


_READ: dict[type[Runner], tuple[Parameter, ...]] = {}


def _read(runner: type[Runner]) -> tuple[Parameter, ...]:
    return tuple(
        _parameter(parameter, hints, runner.options_help, to_init=to_init)
        for function, to_init in ((runner.run, False), (runner.__init__, True))
        for hints in (get_type_hints(function),)
        for parameter in inspect.signature(function).parameters.values()
        if _is_option(parameter, hints)
    )


def _is_option(parameter: inspect.Parameter, hints: dict[str, object]) -> bool:
    return (
        parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        and parameter.name not in GIVEN | LIMITS
        and (hints[parameter.name] is bool or not SECRET.search(parameter.name))
    )


def _parameter(
    parameter: inspect.Parameter,
    hints: Mapping[str, object],
    words: Mapping[str, str],
    *,
    to_init: bool,
) -> Parameter:
    flag = "--" + parameter.name.replace("_", "-")
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    kind, multiple = _kind(hints[parameter.name])
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool and default else [flag]
    option = click.Option(
        [*names, parameter.name],
        type=None if kind is bool else kind,
        default=None,
        multiple=multiple,
        is_flag=kind is bool or None,
        help=_help(words.get(parameter.name, ""), default),
        show_default=False,
    )
    return Parameter(name=parameter.name, option=option, to_init=to_init, required=required)


def _kind(hint: object) -> tuple[click.ParamType[Any] | type, bool]:
    """Return the click type of an annotation, and whether the option may be repeated."""
    if get_origin(hint) in {Union, UnionType}:
        choices = [choice for choice in get_args(hint) if choice is not NoneType]
        return _kind(Path if Path in choices else choices[0])  # a text that may be one is one
    if get_origin(hint) is Literal:
        return click.Choice([str(choice) for choice in get_args(hint)]), False
    if get_origin(hint) in {list, tuple, Sequence}:
        return _kind(get_args(hint)[0])[0], True
    if hint is Path:
        return PATH, False
    if hint is Decimal:
        return MONEY, False
    return hint if isinstance(hint, type) else str, False


def _help(words: str, default: object) -> str:
    shown = "yes" if default is True else default
    said = "" if default in {None, (), "", False} else f"default: {shown}"
    return "; ".join(part for part in (words, said) if part)
