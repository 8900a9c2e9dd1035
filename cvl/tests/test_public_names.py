"""The names that users import: from `cvl` and `cvl.runners`, wherever in the house they live."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import cvl
from cvl import runners
from cvl.core import errors, interfaces, spec
from cvl.tests.pages import PAGES, ROOT, blocks_of

PUBLIC = {"cvl": cvl.__all__, "cvl.runners": runners.__all__}
IMPORT = re.compile(r"^from (cvl[\w.]*) import ([\w, ]+)$", re.MULTILINE)


@pytest.mark.parametrize("name", cvl.__all__)
def test_each_is_what_the_rooms_pass_around(name: str) -> None:
    homes = [room for room in (errors, interfaces, spec) if hasattr(room, name)]
    assert homes
    assert all(getattr(room, name) is getattr(cvl, name) for room in homes)
    assert name in dir(cvl)


def test_what_is_no_name_is_no_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        cvl.Nothing  # noqa: B018


def test_cvl_alone_loads_nothing() -> None:
    code = "import sys; old = set(sys.modules); import cvl; print(*set(sys.modules) - old)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["cvl"]


@pytest.mark.skipif(not PAGES[0].is_file(), reason="needs the source tree")
def test_pages_name_only_what_does_not_depend_on_rooms() -> None:
    programs = [block.text for page in PAGES for block in blocks_of(page) if block.kind == "python"]
    found = IMPORT.findall("\n".join(programs))
    assert {module for module, _ in found} >= {"cvl", "cvl.runners"}
    for module, names in found:
        if not module.startswith("cvl.testing."):
            assert {name.strip() for name in names.split(",")} <= set(PUBLIC[module]), module


@pytest.mark.skipif(not PAGES[0].is_file(), reason="needs the source tree")
def test_the_page_of_the_python_api_has_each() -> None:
    text = (ROOT / "docs/python-api.md").read_text("utf-8")
    assert [name for name in cvl.__all__ if not re.search(rf"[` ]{name}\b", text)] == []
