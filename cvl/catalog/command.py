"""From a preset and the user's arguments to what runs, and to how its image is made."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cvl.catalog.example import Example
from cvl.catalog.image import image_for
from cvl.catalog.match import fold
from cvl.catalog.preset import Preset
from cvl.core.errors import NotFound, UsageError
from cvl.core.spec import Build

_PLACES_ARGS = re.compile(r"\$(?:[@*0-9]|\{[@*0-9])")


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
    example: Example, preset: Preset, args: Sequence[str] = (), *, check: bool = False
) -> tuple[str, ...]:
    """Return what runs this preset, in the example's folder; each argument arrives as it is.

    `check` is for those who run it from this very folder: UsageError if its script is not there.
    """
    script = preset.script
    if script is None:
        return _shell(preset, (*preset.args, *args))
    if check:
        _check(example, script, preset.name)
    script = f"./{script}" if script.startswith("-") else script
    return ("python3" if script.endswith(".py") else "bash", script, *preset.args, *args)


def build_of(example: Example, preset: Preset) -> Build | None:
    """Return how the image that this preset needs is made; None if it needs none, or makes it.

    The image is "" where neither the file nor the script says what it will be called.
    """
    build = example.presets.get("build")
    if build is None or not preset.docker or fold(preset.name).startswith("build"):
        return None
    env = ("env", *(f"{name}={value}" for name, value in build.env.items())) if build.env else ()
    return Build(argv=(*env, *resolve(example, build)), image=image_for(example, preset))


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
