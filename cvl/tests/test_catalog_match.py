import re
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.catalog import Example, match, suggest
from cvl.catalog.match import SUGGESTIONS, fold, tidy
from cvl.core.spec import Needs


def make(path: str, name: str = "") -> Example:
    return Example(
        name=name or path.rpartition("/")[2], path=path, root=Path("/r"), needs=Needs(),
        presets=MappingProxyType({}), resources=MappingProxyType({}),
    )  # fmt: skip


CATALOG = (
    make("examples/generative/llm/nanogpt"),
    make("examples/generative/llm/modded_nanogpt", "modded-nanogpt"),
    make("examples/generative/llm/trl_sft", "trl-llama-3b-sft"),
    make("examples/perception/image_classification/torch", "img-classify"),
    make("examples/perception/line_detection/torch", "line-detect"),
    make("examples/perception/omr/qwen3_vl", "qwen3-omr"),
    make("examples/perception/vision_language/qwen3_vl", "qwen3-vl"),
    make("examples/perception/vision_language/moondream2"),
    make("examples/perception/vision_language/moondream2_finetune"),
    make("examples/perception/vision_language/dove"),
    make("examples/agentic/opencode"),
    make("examples/perception/segmentation/sam"),
    make("examples/perception/segmentation/sam3"),
    make("benchmarks/doc_ai/checkbox_qa"),
    make("examples/doc_ai/checkbox_qa", "other"),
)


def hits(query: str) -> str:
    return " ".join(example.path.split("/", 1)[1] for example in match(query, CATALOG))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("nanogpt", "generative/llm/nanogpt"),
        ("examples/generative/llm/nanogpt", "generative/llm/nanogpt"),
        ("generative/llm/nanogpt/", "generative/llm/nanogpt"),
        ("./llm//nanogpt/", "generative/llm/nanogpt"),
        ("examples/nanogpt", "generative/llm/nanogpt"),
        ("Examples/NanoGPT", "generative/llm/nanogpt"),
        ("trl_sft", "generative/llm/trl_sft"),
        ("trl-sft", "generative/llm/trl_sft"),
        ("trl-llama-3b-sft", "generative/llm/trl_sft"),
        ("TRL_llama_3B_sft", "generative/llm/trl_sft"),
        ("modded_nanogpt", "generative/llm/modded_nanogpt"),
        ("line-detection/torch", "perception/line_detection/torch"),
        ("torch", "perception/image_classification/torch perception/line_detection/torch"),
        ("qwen3-vl", "perception/vision_language/qwen3_vl"),
        ("qwen3_vl", "perception/omr/qwen3_vl perception/vision_language/qwen3_vl"),
        ("QWEN3-VL", "perception/omr/qwen3_vl perception/vision_language/qwen3_vl"),
        ("sam", "perception/segmentation/sam"),
        ("sam3", "perception/segmentation/sam3"),
        ("moondream2", "perception/vision_language/moondream2"),
        ("moondr", "perception/vision_language/moondream2 perception/vision_language/moondream2_finetune"),  # noqa: E501
        ("language/dov", "perception/vision_language/dove"),
        ("finetune", "perception/vision_language/moondream2_finetune"),
        ("benchmarks/doc_ai/checkbox_qa", "doc_ai/checkbox_qa"),
        ("benchmarks/checkbox_qa", "doc_ai/checkbox_qa"),
        ("doc_ai/checkbox_qa", "doc_ai/checkbox_qa doc_ai/checkbox_qa"),
        ("", ""),
        ("/", ""),
        (".", ""),
        ("nope", ""),
        ("ream2", ""),
        ("examples", ""),
    ],
)  # fmt: skip
def test_which_example_is_meant(query: str, expected: str) -> None:
    assert hits(query) == expected


def test_a_name_that_is_another_ones_folder_is_ambiguous() -> None:
    both = (make("examples/a/foo", "bar"), make("examples/b/baz", "foo"))
    assert match("foo", both) == both
    assert match("a/foo", both) == both[:1]


def test_a_whole_path_beats_the_end_of_another() -> None:
    both = (make("examples/x/a/b"), make("examples/a/b"))
    assert match("a/b", both) == both[1:]


def test_suggestions_over_names_and_folders() -> None:
    def near(query: str) -> list[str]:
        return [example.path.rpartition("/")[2] for example in suggest(query, CATALOG)]

    assert near("nope") == []
    assert near("nanogtp")[0] == "nanogpt"
    assert near("trl-lama-3b-sft") == ["trl_sft"]
    assert near("moondrem")[0] == "moondream2"
    assert near("gpt") == ["modded_nanogpt", "nanogpt"]
    assert near("ream2") == ["moondream2", "moondream2_finetune"]
    assert near("generativ/llm/nanogpd")[0] == "nanogpt"
    assert near("torhc") == ["torch", "torch"]
    assert near("") == []
    many = [make(f"examples/a/thing{number}") for number in range(9)]
    assert len(suggest("thin", many)) == SUGGESTIONS


PARTS = st.from_regex(re.compile(r"[a-cA-C_-]{1,3}", re.ASCII), fullmatch=True)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: "/".join(["examples", *parts]))
CATALOGS = st.dictionaries(PATHS, PARTS, min_size=1, max_size=8).map(
    lambda paths: tuple(make(path, name) for path, name in paths.items())
)


@given(CATALOGS, st.data())
def test_a_whole_path_always_finds_its_own(
    catalog: tuple[Example, ...], data: st.DataObject
) -> None:
    wanted = data.draw(st.sampled_from(catalog))
    assert match(wanted.path, catalog) == (wanted,)
    assert match(f"./{wanted.path}/", catalog) == (wanted,)
    by_short = match(wanted.path.partition("/")[2], catalog)
    assert by_short == (wanted,)


@given(CATALOGS, st.data())
def test_exact_beats_folded_beats_partial(
    catalog: tuple[Example, ...], data: st.DataObject
) -> None:
    wanted = data.draw(st.sampled_from(catalog))
    if wanted.name not in {each.path.partition("/")[2] for each in catalog}:
        same = [each for each in catalog if each.name == wanted.name]
        assert [each for each in match(wanted.name, catalog) if each in same] == same
    changed = wanted.name.swapcase().replace("-", "_")
    for hit in match(changed, catalog):
        spelt = {hit.name, hit.path, hit.path.partition("/")[2], hit.path.rpartition("/")[2]}
        assert changed in spelt or not exactly(changed, catalog)
        assert fold(changed) in {fold(word) for word in spelt} or not folded(changed, catalog)


@given(st.text(max_size=20), CATALOGS)
def test_any_query_gives_an_answer(query: str, catalog: tuple[Example, ...]) -> None:
    found = match(query, catalog)
    assert [each for each in catalog if each in found] == list(found)
    assert len(suggest(query, catalog)) <= SUGGESTIONS
    assert tidy(tidy(query)) == tidy(query)


def exactly(word: str, catalog: tuple[Example, ...]) -> bool:
    return any(word == each.name or each.path.endswith(f"/{word}") for each in catalog)


def folded(word: str, catalog: tuple[Example, ...]) -> bool:
    return any(
        fold(word) == fold(each.name) or fold(each.path).endswith(f"/{fold(word)}")
        for each in catalog
    )
