"""An example as JSON-able data, for `--json`."""

from __future__ import annotations

from cvl.catalog.example import Example
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


def _preset(preset: Preset) -> dict[str, object]:
    return {
        "script": preset.script,
        "command": preset.command,
        "args": list(preset.args),
        "env": dict(preset.env),
        "description": preset.description,
    }
