"""The name of an example's image: what its file says, else what its build script says.

A hint only: many examples build an image of another name than their file and their folder suggest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cvl.catalog.example import Example

# Left uncompiled: most of the time nobody asks.
_VARIABLE = r"^\s*(?:export |readonly )?([A-Za-z_]\w*)=(\"[^\"\n]*\"|'[^'\n]*'|\S+)"
_DEFAULT = r"\$\{?([A-Za-z_]\w*)(?::?-([^{}$]*))?\}?"
_BUILD = r"\bdocker\s+(?:buildx\s+)?build\s([^\n;|&]*)"
_TAG = r"(?:^|\s)(?:-t|--tag)[ =]+(\"[^\"]*\"|'[^']*'|\S+)"
_FOLDER = r"\$\(basename \"?\$\{?SCRIPT_DIR\}?\"?\)"
_IMAGE = r"[a-z0-9][\w./-]*(?::[\w.-]+)?"


def image_of(example: Example) -> str:
    """Return the image that the file names, else the only tag its build script gives, else ""."""
    build = example.presets.get("build")
    if example.image or build is None or build.script is None:
        return example.image
    try:
        text = (example.folder / build.script).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
    text = re.sub(_FOLDER, lambda _: example.folder.name, text.replace("\\\n", " "))
    tags = set(_tags(text))
    tag = tags.pop() if len(tags) == 1 else ""
    return tag if re.fullmatch(_IMAGE, tag) else ""


def _tags(text: str) -> Iterator[str]:
    values = {name: value.strip("\"'") for name, value in re.findall(_VARIABLE, text, re.MULTILINE)}
    for options in re.findall(_BUILD, text):
        for tag in re.findall(_TAG, options):
            yield _expanded(tag.strip("\"'"), values)


def _expanded(tag: str, values: Mapping[str, str], depth: int = 3) -> str:
    """Put in the default that is given on the spot, else what the script sets; else `$` stays."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        return default.strip("\"'") if default is not None else values.get(name, match[0])

    expanded = re.sub(_DEFAULT, value, tag)
    return expanded if expanded == tag or not depth else _expanded(expanded, values, depth - 1)
