"""The list of changes that tests must notice: each still fits, and names tests that are there."""

from __future__ import annotations

import shlex

import pytest

from cvl.testing.mutants import LIST, ROOT, Mutant, mutants

pytestmark = pytest.mark.skipif(not LIST.is_file(), reason="needs the source tree")


@pytest.mark.parametrize(
    "mutant", mutants() if LIST.is_file() else (), ids=lambda each: each.breaks
)
def test_each_change_fits_where_it_is_to_be_made(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text("utf-8")
    assert mutant.applied(text) != text
    files = [word for word in shlex.split(mutant.tests) if word.endswith(".py")]
    assert files
    assert all((ROOT / each).is_file() for each in files)
