import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.yaml_document import MAX_DEPTH, MAX_NOTES, MAX_TEXT, MAX_VALUES, parse


def data(text: str) -> Any:
    document = parse(text.encode())
    assert not document.notes
    return document.data


def broken(text: bytes | str) -> tuple[int, str]:
    document = parse(text if isinstance(text, bytes) else text.encode())
    assert document.data is None
    (note,) = document.notes
    return note


def test_words_keep_their_text() -> None:
    text = "name: 007\nenv: {DEBUG: on, LR: 1e-5, N: 0x10, D: 2024-01-31, E: }\nv: 1.10\nq: 'null'"
    assert data(text) == {
        "name": "007",
        "env": {"DEBUG": "on", "LR": "1e-5", "N": "0x10", "D": "2024-01-31", "E": None},
        "v": "1.10",
        "q": "null",
    }


def test_numbers_are_numbers_where_they_are_meant() -> None:
    text = "resources: {gpu: 1, vram_gb: 1.5, ok: yes, no: off, s: '8', big: .inf, n: ~, t: 8GB}"
    assert data(text) == {
        "resources": {
            "gpu": 1, "vram_gb": 1.5, "ok": True, "no": False,
            "s": "8", "big": ".inf", "n": None, "t": "8GB",
        }
    }  # fmt: skip


@given(st.text("0123456789abefinxXNTyo._-+:~=<", max_size=12))
def test_whatever_stands_for_a_number_is_one_that_json_has_or_its_text(word: str) -> None:
    document = parse(f"resources: {{a: {word} }}".encode())
    json.dumps(document.data, allow_nan=False)


def test_a_number_without_end_is_a_word() -> None:
    for word in ("9" * 200, "1" + ":1" * 200_000, "0x_", "0b_", "!!int ''"):
        (found,) = data(f"hardware: [{word}]")["hardware"]
        assert isinstance(found, str)


def test_a_date_that_does_not_exist_is_a_word() -> None:
    assert data("verification: {last_verified: 2025-13-45}") == {
        "verification": {"last_verified": "2025-13-45"}
    }


def test_anchors_and_merges() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {z: 0, <<: [{x: 9}, *a]}\nd: *a"
    assert data(text) == {
        "a": {"x": "1", "y": "2"},
        "b": {"x": "1", "y": "3"},
        "c": {"x": "9", "y": "2", "z": "0"},
        "d": {"x": "1", "y": "2"},
    }


def test_line_ends_bom_and_tags() -> None:
    assert data("\ufeffa: 1\r\nb: !!str 5\r\nc: !own x\r\n...\n") == {"a": "1", "b": "5", "c": "x"}


def test_a_key_given_twice_is_said_with_its_line_and_the_last_counts() -> None:
    document = parse(b"presets:\n  train: a.sh\n  test: b.sh\n  train: c.sh\n")
    assert document.data == {"presets": {"train": "c.sh", "test": "b.sh"}}
    assert document.notes == ((4, "'train' is given twice: the last one counts"),)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (b"", 1, "empty"),
        (b"# only a remark\n", 1, "empty"),
        (b"---\n---\n", 2, "more than one document"),
        (b"\n- a\n- b\n", 2, "no `key: value` pairs"),
        (b"just a word", 1, "no `key: value` pairs"),
        (b"~\n", 1, "empty"),
        (b"a: 1\nb: c: d\n", 2, "mapping values"),
        (b"a: 1\n\tb: 2\n", 2, "tab character"),
        (b"a: 1\nb: [1, 2\n", 2, "expected"),
        (b"a: 1\nb: \xff\xfe\n", 2, "UTF-8"),
        (b"a: 1\nb: \x01\n", 2, "control"),
        (b"a: &x [*x]\n", 1, "before"),
        (b"a: 1\nb: *nothing\n", 2, "before"),
        (b"a: 1\n---\nb: 2\n", 2, "more than one document"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_line(text: bytes, line: int, part: str) -> None:
    where, what = broken(text)
    assert part in what
    assert where == line


def test_what_would_exhaust_stack_or_memory_is_refused() -> None:
    # PyYAML's C composer ends the process with a segmentation fault on the first of these.
    for text in ("[" * 200_000, "- " * 20_000, "a: " + "[" * (MAX_DEPTH + 1)):
        what = broken(text)[1]
        assert any(part in what for part in ("too much", "expected", "nesting depth")), what
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    assert "too much" in broken(laughs)[1]
    assert "too much" in broken("a:\n" + "- x\n" * MAX_VALUES)[1]
    long = f"a: &a {'x' * (MAX_TEXT // 100)}\nb: [{'*a,' * 101}]\nc: 1"
    assert "too much" in broken(long)[1]
    keys = f"a: &a {{? {'x' * (MAX_TEXT // 100)} : 1}}\nb: [{'*a,' * 101}]\nc: 1"
    assert "too much" in broken(keys)[1]
    assert parse(long.replace("*a,", "", 3).encode()).data


def test_of_many_mistakes_the_first_are_told() -> None:
    notes = parse(b"k: 1\n" * 1000).notes
    assert len(notes) == MAX_NOTES + 1
    assert notes[-1] == (MAX_NOTES + 2, "979 more mistakes")


def test_without_the_c_loader_it_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "name: é→ x\npresets:\n  a: [x.sh]\n  a: {env: {X: on}}\n".encode()
    fast = parse(text)
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert parse(text) == fast


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    document = parse(raw)
    assert (document.data is None) <= bool(document.notes)


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=12)
VALUES = st.recursive(
    st.none() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(WORDS.filter(lambda w: w != "<<"), VALUES, min_size=1, max_size=4))
def test_whatever_yaml_writes_is_read_back(value: dict[str, object]) -> None:
    for style in (True, False, None):
        text = yaml.safe_dump(value, default_flow_style=style, allow_unicode=True)
        document = parse(text.encode())
        assert document.data == {key: value[key] for key in document.data or ()}, text
        assert set(document.data or ()) == set(value)


def test_lines_point_at_presets() -> None:
    document = parse(b"name: x\npresets:\n\n  train:\n    args: x\n")
    assert document.lines["presets", "train"] == 4
    assert document.lines["presets", "train", "args"] == 5
