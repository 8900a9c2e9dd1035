"""Examples: where they are looked for, what their files say, which one a word means, what runs.

`find` turns a word into an `Example`, `resolve` a preset into what runs, `load` lists a root.
"""

from cvl.catalog.command import build_of, find_preset, resolve
from cvl.catalog.example import Example, needs_of
from cvl.catalog.find import find
from cvl.catalog.image import image_for
from cvl.catalog.index import Catalog, load
from cvl.catalog.inputs import Inputs, find_inputs
from cvl.catalog.match import match, suggest
from cvl.catalog.preset import PathArg, Preset
from cvl.catalog.root import Lookup, find_root, shipped_root
from cvl.catalog.view import described, listed, resolved

__all__ = [
    "Catalog",
    "Example",
    "Inputs",
    "Lookup",
    "PathArg",
    "Preset",
    "build_of",
    "described",
    "find",
    "find_inputs",
    "find_preset",
    "find_root",
    "image_for",
    "listed",
    "load",
    "match",
    "needs_of",
    "resolve",
    "resolved",
    "shipped_root",
    "suggest",
]
