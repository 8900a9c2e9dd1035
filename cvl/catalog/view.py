"""An example as JSON-able data, for `--json`."""

from __future__ import annotations

from dataclasses import asdict

from cvl.catalog.command import build_of, find_preset, resolve
from cvl.catalog.example import Example, needs_of
from cvl.catalog.image import image_of
from cvl.catalog.preset import Preset


def listed(example: Example) -> dict[str, object]:
    """Return one entry of `cvl list --json`. What the file does not say is "" or empty."""
    return {
        "name": example.name,
        "path": example.path,
        "capability": example.capability,
        "stability": example.stability,
        "tags": list(example.tags),
        "description": example.description,
        "presets": list(example.presets),
        "type": example.type,
    }


def described(example: Example) -> dict[str, object]:
    """Return `cvl info --json`: the same, with presets in full, image, resources and readme.

    `readme` is relative to the root, as `path` is; null without one.
    """
    readme = example.readme.relative_to(example.root).as_posix() if example.readme else None
    return {
        **listed(example),
        "presets": {name: _preset(preset) for name, preset in example.presets.items()},
        "image": image_of(example) or None,
        "resources": dict(example.resources),
        "readme": readme,
    }


def resolved(example: Example, preset: str, args: tuple[str, ...]) -> dict[str, object]:
    """Return what runs, where it lies and what it needs, as `cvl _resolve` answers. `UsageError`.

    `host/resolve_there.py` reads it.
    """
    chosen = find_preset(example, preset)
    build = build_of(example, chosen)
    needs = asdict(needs_of(example, chosen))
    del needs["archs"]  # the host has the processor that it has
    return {
        "root": str(example.root),
        "preset": chosen.name,
        "argv": list(resolve(example, chosen, args, check=True)),
        "env": dict(chosen.env),
        "image": image_of(example),
        "build": (list(build.argv), build.image) if build else None,
        "needs": needs,
    }


def _preset(preset: Preset) -> dict[str, object]:
    return {
        "script": preset.script,
        "command": preset.command,
        "args": list(preset.args),
        "env": dict(preset.env),
        "description": preset.description,
    }
