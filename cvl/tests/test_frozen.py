"""Values of ours behave as those that `dataclasses` makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """A value."""

    kind: ClassVar[str] = "value"
    number: int
    words: tuple[str, ...] = ()
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """The same, by the standard library."""

    kind: ClassVar[str] = "value"
    number: int
    words: tuple[str, ...] = ()
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A value that looks at itself."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError(self.number)


FACTS = st.fixed_dictionaries(
    {"number": st.integers()},
    optional={
        "words": st.tuples(st.text()),
        "table": st.dictionaries(st.text(), st.integers()),
        "secret": st.text(),
    },
)


@given(FACTS, FACTS)
def test_as_those_of_the_standard_library(one: dict[str, Any], two: dict[str, Any]) -> None:
    ours, theirs = Ours(**one), Theirs(**one)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert repr(ours).replace("Ours", "Theirs") == repr(theirs)
    assert (ours == Ours(**two)) == (theirs == Theirs(**two))
    assert dataclasses.replace(ours, **two) == Ours(**{**one, **two})
    assert pickle.loads(pickle.dumps(ours)) == copy.deepcopy(ours) == copy.copy(ours) == ours


def test_equal_values_have_equal_hashes_and_others_are_not_equal() -> None:
    assert hash(Checked(number=1)) == hash(Checked(number=1))
    assert {Checked(number=1), Checked(number=1)} == {Checked(number=1)}
    assert Checked(number=1) != Checked(number=2)
    assert Ours.kind == "value"


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(Ours(number=1, secret="hush"))


def test_each_has_a_default_of_its_own() -> None:
    one, two = Ours(number=1), Ours(number=1)
    one.table["a"] = 1
    assert two.table == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda: setattr(Ours(number=1), "number", 2),
        lambda: setattr(Ours(number=1), "other", 2),
        lambda: delattr(Ours(number=1), "number"),
    ],
)
def test_nothing_can_be_changed(change: Callable[[], None]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        change()


@pytest.mark.parametrize(
    "make",
    [
        Ours,
        lambda: Ours(1),  # type: ignore[call-arg]
        lambda: Ours(number=1, other=2),  # type: ignore[call-arg]
        lambda: dataclass(frozen=False, slots=True, kw_only=True)(Ours),
    ],
)
def test_wrong_ones_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        make()


def test_a_value_may_check_itself() -> None:
    with pytest.raises(ValueError, match="-1"):
        Checked(number=-1)
