"""What cvl and the shell of another machine answer is checked in every detail, or `Unreadable`."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.errors import NotFound, Unreadable, UsageError
from cvl.core.spec import Build, Needs, Source
from cvl.host.resolve_there import NEEDS, parsed
from cvl.operations.doctor import FACTS, docker_there, facts_of, python_there

GOOD: dict[str, Any] = {
    "root": "/repo",
    "folder": "examples/one",
    "preset": "sh",
    "argv": ["bash", "sh.sh", "a\nb", ""],
    "env": {"A_1": "x\ny"},
    "image": None,
    "build": [["bash", "build.sh"], "one"],
    "needs": {"gpus": 1, "vram_gb": 4.5, "cpus": 0, "ram_gb": 2, "disk_gb": 0.5, "docker": True},
}
BAD: dict[str, tuple[object, ...]] = {
    "root": (None, 1, "a\0", "a\nb", "\ud800", []),
    "folder": (None, {}, "a\nb"),
    "preset": (None, ["x"], "a\x1b[2J"),
    "argv": (None, [], "sh", ["a", 1], ["a\0"], ["\ud800"], {"a": 1}),
    "env": (None, [], {"A B": "x"}, {"A;id": "x"}, {"A": 1}, {"": "x"}, {"A\n": "x"}),
    "image": (1, "a\nbase x", ["x"]),
    "build": ([], [["a"]], [["a"], "b", "c"], "ab", [1, "x"], [["a"], "b\nc"], {}),
    "needs": (
        None,
        [],
        {"gpu": 1},
        {"gpus": -1},
        {"gpus": 1.5},
        {"gpus": True},
        {"gpus": "1"},
        {"docker": 1},
        {"disk_gb": float("nan")},
        {"disk_gb": float("inf")},
        {"disk_gb": 10**300},
    ),
    "error": (None, "x", ["a"], ["a", 1], ["a", "b", "c"], ["x" * 10_000, ""]),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*GOOD, "error"]), inner),
)


def test_a_good_answer_is_taken_as_it_is() -> None:
    job = parsed(json.dumps(GOOD).encode(), "there", ("b", "c"))
    assert job.source == Source(root=Path("/repo"), folder="examples/one")
    assert (job.example, job.preset, job.args) == ("examples/one", "sh", ("b", "c"))
    assert (job.argv, job.env) == (tuple(GOOD["argv"]), GOOD["env"])
    assert (job.image, job.build) == (None, Build(argv=("bash", "build.sh"), image="one"))
    assert job.needs == Needs(**GOOD["needs"])


@pytest.mark.parametrize(("folder", "kind"), [("examples/one", UsageError), ("", NotFound)])
def test_what_it_says_is_wrong_is_raised_as_it_is(folder: str, kind: type[UsageError]) -> None:
    said = {"error": ["no such thing", "hint"], **({"folder": folder} if folder else {})}
    with pytest.raises(kind, match=r"^no such thing$") as caught:
        parsed(json.dumps(said).encode(), "there")
    assert (type(caught.value), caught.value.hint) == (kind, "hint")


def test_the_needs_that_may_be_told_are_those_that_there_are() -> None:
    assert {*NEEDS} == {*Needs.__slots__}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, all_ in BAD.items() for v in all_])
def test_one_bad_value_makes_an_answer_unreadable(name: str, value: object) -> None:
    with pytest.raises(Unreadable) as caught:
        parsed(json.dumps({**GOOD, name: value}).encode(), "there")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", sorted({*GOOD}))
def test_a_value_that_is_not_there_makes_an_answer_unreadable(name: str) -> None:
    with pytest.raises(Unreadable):
        parsed(json.dumps({key: GOOD[key] for key in GOOD if key != name}).encode(), "there")


@pytest.mark.parametrize(
    "said", [b"[" * 100_000, b"9" * 100_000, b"\xff\xfe", b"{", b"null", b'"x"', b"[]", b"1e999"]
)
def test_what_is_no_answer_at_all_is_unreadable(said: bytes) -> None:
    with pytest.raises(Unreadable):
        parsed(said, "there")


@given(st.binary())
def test_any_bytes_are_an_answer_or_unreadable(said: bytes) -> None:
    with pytest.raises(Unreadable):
        parsed(said, "there")


@given(JSON)
def test_any_json_is_an_answer_or_unreadable(value: object) -> None:
    with suppress(Unreadable, UsageError):
        assert parsed(json.dumps(value).encode(), "there").argv


@given(st.dictionaries(st.sampled_from([*GOOD, "error"]), JSON))
def test_any_value_in_an_answer_is_taken_or_unreadable(values: dict[str, object]) -> None:
    with suppress(Unreadable, UsageError):
        assert parsed(json.dumps({**GOOD, **values}).encode(), "there").needs


@given(st.dictionaries(st.sampled_from(FACTS), st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_facts_of_a_host_can_be_judged_or_are_unreadable(said: dict[str, str]) -> None:
    text = "".join(f"{key}\t{value}\n" for key, value in said.items())
    try:
        facts = facts_of(text.encode(), "there")
    except Unreadable:
        return
    int(facts["free-mb"] or 0)
    python_there(facts["python-version"])
    docker_there(facts)


@pytest.mark.parametrize(
    "row",
    [
        "free-mb\tmany",
        f"free-mb\t{'9' * 5000}",
        "free-mb\t-1",
        "free-mb\t٣",
        "python-version\t3",
        "python-version\t3.x",
        f"gpu\t{'x' * 5000}",
        "home\t\0",
    ],
)
def test_a_fact_that_makes_no_sense_is_named(row: str) -> None:
    with pytest.raises(Unreadable, match=row.partition("\t")[0]):
        facts_of(f"bash\t/bin/bash\n{row}\n".encode(), "there")
