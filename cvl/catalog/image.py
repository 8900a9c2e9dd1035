"""The name of an example's image: what a script asks for, the file says, or the build script says.

A hint only: many examples build an image of another name than their file and their folder suggest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cvl.catalog.example import Example
from cvl.catalog.preset import Preset
from cvl.catalog.script import script_text

# Left uncompiled: most of the time nobody asks.
_VARIABLE = r"^[^\S\n]*+(?:export |readonly )?([A-Za-z_]\w*)=(\"[^\"\n]*\"|'[^'\n]*'|\S+)"
_DEFAULT = r"\$\{?([A-Za-z_]\w*)(?::?-([^{}$]*))?\}?"
_BUILD = r"\bdocker\s+(?:buildx\s+)?build\s([^\n;|&]*)"
_TAG = r"(?:^|\s)(?:-t|--tag)[ =]+(\"[^\"]*\"|'[^']*'|\S+)"
_WANTED = r"\$\{CVL_IMAGE:-([^}]{0,400})\}"
_FOLDER = r"\$\(basename \"?\$\{?SCRIPT_DIR\}?\"?\)"
_LONGEST = 256
"""Characters that a name and what goes into it may have: variables of variables multiply."""
_IMAGE = r"[a-z0-9][\w./-]*(?::[\w.-]+)?"


def image_for(example: Example, preset: Preset) -> str:
    """Return the image that the preset's script takes unless told otherwise, else `image_of`.

    What tells is `${CVL_IMAGE:-image}`: where an image is missing, it is this one.
    """
    text = _text(example, preset)
    values = _values(text)
    images = {_expanded(image, values).strip("\"'") for image in re.findall(_WANTED, text)}
    return _name(images) or image_of(example)


def image_of(example: Example) -> str:
    """Return the image that the file names, else the only tag its build script gives, else ""."""
    build = example.presets.get("build")
    if example.image or build is None:
        return example.image
    return _name(set(_tags(_text(example, build))))


def _name(images: set[str]) -> str:
    """Return the only one of them if it is a name, else ""."""
    image = images.pop() if len(images) == 1 else ""
    return image if re.fullmatch(_IMAGE, image) else ""


def _text(example: Example, preset: Preset) -> str:
    """Return a preset's script on long lines, "" where there is none to read."""
    if preset.script is None:
        return ""
    text = script_text(example.folder / preset.script) or ""
    return re.sub(_FOLDER, lambda _: example.folder.name, text.replace("\\\n", " "))


def _values(text: str) -> dict[str, str]:
    assignments = re.findall(_VARIABLE, text, re.MULTILINE)
    return {name: value.strip("\"'") for name, value in assignments if len(value) <= _LONGEST}


def _tags(text: str) -> Iterator[str]:
    values = _values(text)
    for options in re.findall(_BUILD, text):
        for tag in re.findall(_TAG, options):
            yield _expanded(tag.strip("\"'"), values)


def _expanded(tag: str, values: Mapping[str, str], depth: int = 3) -> str:
    """Put in the default that is given on the spot, else what the script sets; else `$` stays."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        return default.strip("\"'") if default is not None else values.get(name, match[0])

    if len(tag) > _LONGEST:
        return ""
    expanded = re.sub(_DEFAULT, value, tag)
    return expanded if expanded == tag or not depth else _expanded(expanded, values, depth - 1)
