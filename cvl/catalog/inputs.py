"""Which local files an argument list names, so that they can be sent along.

Only arguments that the preset declares under `path_args` are looked at, and never those whose flag
speaks of output. What lies in or below the working directory keeps its place; anything else is
put into `cvl-inputs/`, and its argument is changed to that, since no other machine has its path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

from cvl.catalog.preset import PathArg, Preset
from cvl.core.frozen import dataclass

ELSEWHERE = "cvl-inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """`files` maps paths below the work folder to local files that exist.

    `args` is the argument list for a machine where only those exist; it is the one given, byte
    for byte, unless a file had to move. `folders` says, of those of `files` that no argument names
    itself, which folder they were found in.
    """

    files: Mapping[str, Path]
    args: tuple[str, ...]
    folders: Mapping[str, Path] = field(default_factory=dict)


def find_inputs(preset: Preset, args: Sequence[str], cwd: Path) -> Inputs:
    """Find the files that exist here and that `args` names as inputs, one by one or by folder.

    A folder that holds `cwd` is left alone: it names where we are rather than what to send.
    """
    cwd = cwd.absolute()
    places: dict[str, Path] = {}
    changed = list(args)
    for argument in _named(preset.path_args, args):
        local = Path(os.path.abspath(cwd / argument.value))  # noqa: PTH100 - links are kept
        if cwd.is_relative_to(local) or not _is_there(local, folder=argument.flag):
            continue
        place = _place(local, cwd, places)
        places[place] = local
        if argument.value.startswith("/") or ".." in argument.value.split("/"):
            changed[argument.index] = argument.prefix + place
    files: dict[str, Path] = {}
    folders: dict[str, Path] = {}
    for place, local in places.items():
        contents = dict(_files(place, local))
        files |= contents
        folders |= dict.fromkeys(contents, local)
    for place in places.keys() & files.keys():
        del folders[place]
    return Inputs(files=MappingProxyType(files), args=tuple(changed), folders=folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A path in an argument list: at which index, behind what, after a flag or alone."""

    index: int
    value: str
    prefix: str = ""
    flag: bool = False


def _named(path_args: Sequence[PathArg], args: Sequence[str]) -> Iterator[_Named]:
    flags = {flag: _is_input(arg) for arg in path_args for flag in arg.flags if flag[:1] == "-"}
    alone = any(arg.positional for arg in path_args)
    last = ""
    for index, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if arg == "--" or not arg.startswith("-") or arg == "-":
            if flags.get(last):
                yield _Named(index=index, value=arg, flag=True)
            elif alone and last not in flags:
                yield _Named(index=index, value=arg)
            # An input may be several files; an output is one.
            last = last if flags.get(last) and arg != "--" else ""
            continue
        last = "" if equals else arg
        if equals and flags.get(flag):
            yield _Named(index=index, value=value, prefix=f"{flag}=", flag=True)


def _is_input(arg: PathArg) -> bool:
    return not any("output" in flag.lower() for flag in arg.flags)


def _is_there(local: Path, *, folder: bool) -> bool:
    """Tell whether it is a file, or a folder where one may be meant. Pipes are neither."""
    isfile, isdir = os.path.isfile, os.path.isdir  # unlike Path's, they never raise
    return isfile(local) or (folder and isdir(local))


def _place(local: Path, cwd: Path, taken: Mapping[str, Path]) -> str:
    """Return where below the work folder it goes: as here, or to a free place in `ELSEWHERE`."""
    if local.is_relative_to(cwd):
        return local.relative_to(cwd).as_posix()
    place, number = f"{ELSEWHERE}/{local.name}", 1
    while taken.get(place, local) != local or (cwd / place).exists():
        number += 1
        place = f"{ELSEWHERE}/{number}/{local.name}"
    return place


def _files(place: str, local: Path) -> Iterator[tuple[str, Path]]:
    if not local.is_dir():
        yield place, local
    for folder, _, names in os.walk(local):
        for name in names:
            file = Path(folder, name)
            if file.is_file():
                yield f"{place}/{file.relative_to(local).as_posix()}", file
