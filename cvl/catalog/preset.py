"""A preset: what a word after the example's name stands for, in all the forms that files use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from types import MappingProxyType

from cvl.core.frozen import dataclass

Say = Callable[[tuple[str, ...], str], None]
"""Takes the keys of a place in the file, and what is wrong there."""
LONGEST = 1 << 14
"""Characters of a line that is taken apart here: that takes the square of its words' lengths."""
FALSE = frozenset({"false", "no", "off"})
_TRUE = frozenset({"true", "yes", "on"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SCRIPT = re.compile(r"\S+\.(?:sh|bash|py)\Z")
_QUOTED = re.compile(r"'[^']*'|\"[^\"$`\\]*\"")
_SHELL = re.compile(r"[|&;<>()$`\n*?\[\]{}]|(?<!\S)[~#]|=~")
_LEAD = re.compile(
    r"(?P<env>(?:[A-Za-z_]\w*=\S*\s+)*)(?P<script>\S+\.(?:sh|bash|py))(?:\s+--)?(?!\S)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathArg:
    """An argument that names a file or folder: by one of its flags, or by standing alone."""

    flags: tuple[str, ...] = ()
    positional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One way to run an example.

    `script` is a file in the example's folder and beats `command`, which is a line for bash.
    `args` come before the user's; `env` is public and gives way to theirs. `docker` is False if
    the preset says that it needs none.
    """

    name: str
    script: str | None = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    path_args: tuple[PathArg, ...] = ()
    docker: bool = True


def read_presets(value: object, folder: str, say: Say) -> Mapping[str, Preset]:
    """Read the value of `presets`: a mapping, a list of names, one name. What is odd is said."""
    presets: dict[str, Preset] = {}
    for name, entry in _entries(value, say):
        if name:
            presets[name] = _preset(name, entry, folder, say)
    return MappingProxyType(presets)


def split_line(line: str) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """Split `NAME=value ... words`, or return None if only a shell can make sense of it."""
    if _SHELL.search(_QUOTED.sub("", line)):
        return None
    try:
        words = _words(line)
    except ValueError:
        return None
    env: dict[str, str] = {}
    while words and _ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    return env, tuple(words)


def _words(line: str) -> list[str]:
    """Split a line as a shell would. Raises ValueError if a quote is left open, or it is long."""
    if not any(mark in line for mark in "\"'\\"):
        return line.split()  # the same, in a hundredth of the time
    if len(line) > LONGEST:
        raise ValueError(f"more than {LONGEST} characters in one line")
    import shlex

    return shlex.split(line)


def texts(value: object) -> tuple[str, ...]:
    """Return a list's plain words, or the one word that stands instead of a list."""
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, str))


def _entries(value: object, say: Say) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()
        return
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield item, None
        elif isinstance(item, dict) and isinstance(item.get("name"), str):
            yield item["name"], item
        elif isinstance(item, dict):
            yield from item.items()
        elif item is not None:
            say(("presets",), "a preset without a name is left out")


def _preset(name: str, entry: object, folder: str, say: Say) -> Preset:
    fields = _fields(entry)
    keys = ("presets", name)
    if fields is None:
        say(keys, f"preset {name!r} is neither a script nor a mapping")
        fields = {}
    line = _line(name, fields, folder)
    return replace(
        line,
        command=line.command or _as_line(fields.get("command")) or None,
        args=line.args + _args(fields.get("args"), (*keys, "args"), say),
        env=MappingProxyType({**line.env, **_env(fields.get("env"), (*keys, "env"), say)}),
        description=stripped(fields.get("description")),
        path_args=tuple(_path_args(fields.get("path_args"))),
        docker=not is_false(fields.get("docker")),
    )


def _fields(entry: object) -> Mapping[str, object] | None:
    """Bring `x.sh`, `[x.sh]`, `[x.sh, --flag]` and null into the form of a mapping."""
    if entry is None or isinstance(entry, dict):
        return entry or {}
    if isinstance(entry, str):
        return {"script": entry}
    if isinstance(entry, list) and len(entry) == 1:
        return _fields(entry[0])
    words = list(texts(entry))
    if isinstance(entry, list) and len(words) == len(entry):
        return {"script": words[0], "args": words[1:]} if words else {}
    return None


def _line(name: str, fields: Mapping[str, object], folder: str) -> Preset:
    """Return the preset that the one line of a file makes which says what should run."""
    if line := _as_line(fields.get("script")):
        return _read_line(name, line, folder)
    if line := _as_line(fields.get("command")):
        return _read_line(name, line, folder, bare=False)
    return Preset(name=name, script=_by_convention(name, folder))


def _as_line(value: object) -> str:
    """Return a line as it is, and a list of words as the line that means it."""
    words = texts(value)
    if not isinstance(value, list) or not words:
        return stripped(value)
    import shlex

    return shlex.join(words)


def _read_line(name: str, line: str, folder: str, *, bare: bool = True) -> Preset:
    """Take a line apart into a script and its arguments, or leave it to bash as a command.

    `bare` tells that a single word is a script whatever it is called.
    """
    if bare and " " in line and os.path.isfile(f"{folder}/{line}"):  # noqa: PTH113 - never raises
        return Preset(name=name, script=line)
    parts = split_line(line)
    if parts is None:
        return Preset(name=name, command=_startable(line))
    env, words = parts
    if words and (_SCRIPT.match(words[0]) or (bare and len(words) == 1)):
        # As on the command line, `--` only ends what is ours: the scripts do not expect it.
        args = words[2:] if words[1:2] == ("--",) else words[1:]
        return Preset(name=name, script=words[0].removeprefix("./"), args=args, env=env)
    return Preset(name=name, command=line)


def _startable(line: str) -> str:
    """Let bash find a script that the line starts with, executable or not."""
    match = _LEAD.match(line)
    if match is None:
        return line
    program = "python3" if match["script"].endswith(".py") else "bash"
    return f"{match['env']}{program} {match['script']}{line[match.end() :]}"


def _by_convention(name: str, folder: str) -> str:
    exists = os.path.exists  # unlike Path's, it never raises
    only_python = exists(f"{folder}/{name}.py") and not exists(f"{folder}/{name}.sh")
    return f"{name}.py" if only_python else f"{name}.sh"


def _args(value: object, keys: tuple[str, ...], say: Say) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            return tuple(_words(value))
        except ValueError as error:
            say(keys, f"args are left out: {str(error).lower()}")
            return ()
    words = ["" if item is None else item for item in value] if isinstance(value, list) else []
    plain = texts(words)
    if len(plain) < len(words) or not isinstance(value, list | None):
        say(keys, "args are neither a line nor a list of words: what is no word is left out")
    return plain


def _env(value: object, keys: tuple[str, ...], say: Say) -> dict[str, str]:
    """Read a mapping, or a list of NAME=value."""
    if isinstance(value, list):
        value = dict(item.split("=", 1) for item in texts(value) if "=" in item)
    items = value if isinstance(value, dict) else {}
    env = {name: "" if item is None else item for name, item in items.items()}
    plain = {name: item for name, item in env.items() if isinstance(item, str)}
    if len(plain) < len(env) or not isinstance(value, dict | None):
        say(keys, "env is no mapping of names to words: what is no word is left out")
    return plain


def _path_args(value: object) -> Iterator[PathArg]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield PathArg(flags=(item,), positional=not item.startswith("-"))
        elif isinstance(item, dict):
            flags = texts(item.get("flag")) + texts(item.get("aliases"))
            alone = str(item.get("positional")).lower() in _TRUE
            yield PathArg(flags=flags, positional=alone)


def is_false(value: object) -> bool:
    """Tell whether a text of the file says no."""
    return isinstance(value, str) and value.lower() in FALSE


def stripped(value: object) -> str:
    """Return a text without the space around it, "" for anything else."""
    return value.strip() if isinstance(value, str) else ""
