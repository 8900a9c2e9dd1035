"""What the environment and the configuration files say, read once for each command."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvl.cli import config
from cvl.cli.config_file import display
from cvl.core.errors import UsageError
from cvl.core.printable import first_of
from cvl.providers import BUILT_IN, load, names
from cvl.providers.common import OPTIONS, SETTINGS

if TYPE_CHECKING:
    import click

    from cvl.cli.config_file import Key, Value
    from cvl.providers.runner import Runner

ALONE = ("cache_dir", "config_dir", "ssh_config", "state_dir")
"""What the environment alone says: commands need it that read no file."""
RUNS = frozenset({"CVL_NODE", "CVL_OUTPUTS"})
"""What runs are given, and is not misspelt."""
EMPTY = "give a value, or leave it out"
"""What is to be done about an option that says nothing."""
ALIKE = 0.9
"""One letter more or less in ten."""
SHOWN = 12
"""Unknown options of one file that are named."""


@cache
def settings() -> config.Config:
    """Return the configuration; read once for each command. Raises `UsageError`."""
    found = config.load(Path.cwd(), os.environ)
    for each in found.files:
        refuse([key for key in each.values if len(key) == 1 and key[0] not in SETTINGS], each.path)
        refuse([("runner", name) for name in each.runners if name not in known(name)], each.path)
    return found


def known(name: str) -> Collection[str]:
    """Return the runners among which `name` is looked for: entry points only on a miss."""
    return BUILT_IN if name in BUILT_IN else names()


def refuse_unknown(name: str, runner: type[Runner], found: config.Config) -> None:
    """Raise `UsageError` for what stands below `[runner.NAME]` and is no option of that one."""
    own = own_names(runner)
    for each in found.files:
        keys = [key for key in each.values if key[:-1] == ("runner", name) and key[2] not in own]
        refuse(keys, each.path, own)


def own_names(runner: type[Runner]) -> list[str]:
    """Return the names of a runner's own options."""
    from cvl.cli.options import parameters

    return [each.name for each in parameters(runner)]


def refuse(unknown: Sequence[Key], path: Path, own: Collection[str] = ()) -> None:
    """Raise `UsageError` for what is unknown, if anything is, with what may be meant."""
    if not unknown:
        return
    first, *others = unknown
    more = first_of([*map(display, others)], SHOWN)
    hints = (meant(first, own), f"nor is there {more}" if others else "")
    raise UsageError(f"{path}: there is no {display(first)}", "; ".join(filter(None, hints)))


def meant(key: Key, own: Collection[str]) -> str:
    """Return what may be meant by a key that there is not, "" if nothing is near."""
    name = key[-1]
    match key:
        case ("runner", _):
            return near(name, names()) or f"there are: {', '.join(names())}"
        case ("runner", _, _):
            return f"{name} stands at the top of the file" if name in SETTINGS else near(name, own)
    if name in ALONE:
        return f"no file says it: set CVL_{name.upper()}"
    if tables := [f"[runner.{runner}]" for runner in BUILT_IN if name in own_names(load(runner))]:
        return f"it stands below {' or '.join(tables)}"
    is_flag = any(row.name == name for row in OPTIONS)
    flag = f"only a flag says it: --{name.replace('_', '-')}" if is_flag else ""
    return near(name, SETTINGS) or flag


def nearly(environ: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable that is nearly one that counts, and so does not."""
    words = [(word, key) for key, row in SETTINGS.items() for word in (row.name, key)]
    ours = {f"CVL_{word.upper()}": f"CVL_{key.upper()}" for word, key in words}
    for name in environ:
        if name.startswith("CVL_") and name not in {*ours.values(), *RUNS}:
            from difflib import get_close_matches

            for close in get_close_matches(name, ours, 1, ALIKE):
                yield f"${name} is not read: did you mean {ours[close]}?"


def near(name: str, names: Collection[str]) -> str:
    """Return a question about the nearest name, "" if none is near."""
    from difflib import get_close_matches

    found = get_close_matches(name.replace("-", "_"), names, 1)
    return f"did you mean {found[0]}?" if found else ""


def configured_root(found: config.Config) -> Path | None:
    """Return the root that a configuration file names; the environment comes before it."""
    setting = found.configured("root")
    return setting.path() if setting else None


def value_of(setting: config.Setting, option: click.Option) -> Any:
    """Return a setting as its flag would read it. Raises `UsageError`, which says whose it is."""
    words = setting.value
    if not option.multiple:
        return _read(setting, option, words)
    if isinstance(words, str) and setting.origin.startswith("$"):
        words = tuple(words.split())
    return tuple(
        _read(setting, option, each) for each in (words if isinstance(words, tuple) else (words,))
    )


def _read(setting: config.Setting, option: click.Option, value: Value) -> object:
    import click

    if isinstance(value, tuple) or (
        isinstance(value, bool) and option.type.name != click.BOOL.name
    ):
        raise setting.wrong("text")
    if option.type.name == "path":
        return setting.path()
    if value == "":
        raise UsageError(f"{setting.origin}: {setting.name} is empty", EMPTY)
    try:
        return option.type.convert(str(value), None, None)
    except click.UsageError as error:
        raise UsageError(f"{setting.origin}: {setting.name}: {error.message}") from error
