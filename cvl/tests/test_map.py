"""The map of the house is true: what it lists is there, what is there it lists; so on all pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cvl.run import follow, lifecycle, teardown
from cvl.tests.imports import HERE, modules
from cvl.tests.pages import PAGES, ROOT, named, section

MAP = ROOT / "docs/architecture.md"
TWO_SCREENS = 110
pytestmark = pytest.mark.skipif(not MAP.is_file(), reason="needs the source tree")

FILE = re.compile(r"(?<![\w/.~*$-])((?:[\w.-]+/)*[\w-]+\.(?:py|sh))(?![\w/])")
FOLDER = re.compile(r"`((?:[\w-]+/)+)`")
MODULE = re.compile(r"\bcvl(?:\.[a-z_]\w*)+")
LABELS = {"cvl.toml", "cvl.run", "cvl.owner", "cvl.deadline"}
"""What looks like a module: a file of settings, and the tags of what we make."""
OTHERS = {"job.sh", "secrets.sh", "serve.sh", "x.py"}
"""Files that are not ours: a user's, or made for a run."""
PLACEHOLDER = re.compile(r"NAME|PART|PRESET")
HISTORY = ROOT / "CHANGELOG.md"
"""It names what is gone, too."""
TOP = ("cvl/", "bench/", "docs/", "examples/", "scripts/")
ABOUT_ROOMS = (MAP, ROOT / "CONTRIBUTING.md", ROOT / "docs/decisions/house.md")


def listed() -> Iterator[str]:
    """Yield what the listing names, as paths below cvl/."""
    text = MAP.read_text("utf-8")
    listing = re.search(r"^```text\ncvl/\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    assert listing
    room = ""
    for indent, name in re.findall(r"^( +)(\S+) +\S", listing[1], re.MULTILINE):
        room = room if len(indent) > 2 else name
        yield name if room == name else room + name


def test_the_listing_names_each_room_and_whatever_lies_at_the_top() -> None:
    folders = {path.parent for path in [*HERE.rglob("*.py"), *HERE.rglob("*.sh")]} - {HERE}
    there = {f"{folder.relative_to(HERE)}/" for folder in folders}
    assert sorted(listed()) == sorted({*there, "__init__.py", "__main__.py"})


def test_it_fits_on_two_screens() -> None:
    assert len(MAP.read_text("utf-8").splitlines()) <= TWO_SCREENS


def test_each_word_is_said_once_and_has_a_place() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section(MAP, "The words"), re.MULTILINE)
    words = [word for word, _, _ in rows[1:]]
    assert len(words) == len(set(words))
    for word, _, place in rows[1:]:
        assert re.fullmatch(r"`[\w/.]+`|\[\w+\]\([\w./]+\)", place), word
    for word in ("run", "example", "provider", "lease", "guardian", "reap", "host", "scope"):
        assert word in words


def test_each_step_of_a_run_is_a_function_there() -> None:
    steps = re.findall(r"^\d\. `(\w+)`", section(MAP, "One run"), re.MULTILINE)
    assert len(steps) == len(set(steps)) > 4
    for step in (*steps, "reach", "recover"):
        assert any(hasattr(room, step) for room in (lifecycle, follow, teardown)), step


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY], ids=named)
def test_each_file_and_module_that_a_page_names_is_there(page: Path) -> None:
    text = re.sub(r"\]\([^)]*\)", "]", page.read_text("utf-8"))
    names = {name for span in re.findall(r"`([^`\n]+)`", text) for name in FILE.findall(span)}
    assert {name for name in names if not there(name)} == set()
    folders = {name for name in FOLDER.findall(text) if page in ABOUT_ROOMS or name.startswith(TOP)}
    assert {name for name in folders if not is_folder(name)} == set()
    assert {name for name in MODULE.findall(text) if not is_module(name)} == set()


def there(name: str) -> bool:
    """Tell whether a page's file is one: by its path from the top or below cvl/, or its name."""
    if PLACEHOLDER.search(name):
        return True
    if "/" in name:
        return any((base / name).is_file() for base in (ROOT, HERE))
    return name in OTHERS or name in own_names()


@cache
def own_names() -> set[str]:
    folders = ("cvl", "bench", "examples", "scripts")
    return {path.name for folder in folders for path in (ROOT / folder).rglob("*.*")}


def is_folder(name: str) -> bool:
    return any((base / name).is_dir() for base in (ROOT, HERE))


def is_module(name: str) -> bool:
    """Tell whether a dotted name is a module, or one of a module's own names."""
    return (
        name in LABELS or name in modules() or name.rpartition(".")[0] in set(modules()) - {"cvl"}
    )
