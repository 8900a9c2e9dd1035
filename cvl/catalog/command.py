"""From a preset and the user's arguments to a command: an argument list and an environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field

from cvl.catalog.example import Example
from cvl.catalog.image import image_for
from cvl.catalog.match import fold
from cvl.catalog.preset import Preset
from cvl.core.errors import NotFound, UsageError
from cvl.core.frozen import dataclass
from cvl.core.spec import Build

_PLACES_ARGS = re.compile(r"\$(?:[@*0-9]|\{[@*0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What runs, in the example's folder. `env` is public and gives way to the user's own."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def find_preset(example: Example, name: str) -> Preset:
    """Return the preset of that name, `-` and `_` alike. Raises NotFound with those there are."""
    if preset := example.presets.get(name):
        return preset
    near = [preset for key, preset in example.presets.items() if fold(key) == fold(name)]
    if len(near) == 1:
        return near[0]
    hint = f"presets: {', '.join(example.presets)}" if example.presets else "it has no presets"
    raise NotFound(f"{example.name} has no preset {name!r}", hint)


def resolve(
    example: Example, preset: str, args: Sequence[str] = (), *, check: bool = False
) -> Command:
    """Return what runs this preset with these arguments, each of which arrives as it is.

    `check` is for those who run it from this very folder: UsageError if its script is not there.
    Raises NotFound without such a preset.
    """
    chosen = find_preset(example, preset)
    if chosen.script is None:
        argv = _shell(chosen, (*chosen.args, *args))
    else:
        if check:
            _check(example, chosen.script, chosen.name)
        script = f"./{chosen.script}" if chosen.script.startswith("-") else chosen.script
        argv = ("python3" if script.endswith(".py") else "bash", script, *chosen.args, *args)
    return Command(argv=argv, env=chosen.env)


def build_of(example: Example, preset: str) -> Build | None:
    """Return how the image that this preset needs is made; None if it needs none, or makes it.

    The image is "" where neither the file nor the script says what it will be called.
    """
    chosen = find_preset(example, preset)
    if "build" not in example.presets or not chosen.docker or fold(chosen.name).startswith("build"):
        return None
    command = resolve(example, "build")
    assignments = tuple(f"{name}={value}" for name, value in command.env.items())
    argv = ("env", *assignments, *command.argv) if assignments else command.argv
    return Build(argv=argv, image=image_for(example, chosen))


def _shell(preset: Preset, args: tuple[str, ...]) -> tuple[str, ...]:
    """Let bash run a line, with the arguments at its end unless it places them itself."""
    line = (preset.command or "").rstrip(" \t\n;")
    if args and not _PLACES_ARGS.search(line):
        line += ' "$@"'
    return ("bash", "-c", line, preset.name, *args)


def _check(example: Example, script: str, preset: str) -> None:
    if not (example.folder / script).is_file():
        there = sorted(p.name for pattern in ("*.sh", "*.py") for p in example.folder.glob(pattern))
        hint = f"there are: {', '.join(there)}" if there else "there are no scripts in that folder"
        raise UsageError(f"preset {preset!r} needs {example.folder / script}: no such file", hint)
