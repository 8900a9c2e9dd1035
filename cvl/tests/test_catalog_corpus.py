"""The catalog against example.yaml files in use; skipped where they are not at hand."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.catalog import Catalog, Lookup, described, find, listed, load, match, resolve
from cvl.core.errors import UsageError

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
pytestmark = pytest.mark.skipif(
    not (CORPUS / "manifest.json").is_file(), reason=f"no corpus of examples in {CORPUS}"
)
MISSING = {"svd_comfy", "svd_cog", "extract0", "cogvideox", "docling", "leaderboard"}
"""Examples known to name a script that they do not have."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    root = tmp_path_factory.mktemp("corpus")
    manifest = json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))["examples"]
    for path, listing in manifest.items():
        for entry in listing["files"]:
            if entry["type"] == "file":
                file = root / path / entry["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        shutil.copy(CORPUS / path / "example.yaml", root / path / "example.yaml")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CVL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield load(root)


def test_all_are_read_without_a_problem(corpus: Catalog) -> None:
    files = [p for top in ("examples", "benchmarks") for p in (CORPUS / top).rglob("example.yaml")]
    assert len(files) > 100
    assert corpus.problems == ()
    assert {example.folder.relative_to(corpus.root) for example in corpus.examples} == {
        file.parent.relative_to(CORPUS) for file in files
    }
    assert {example.type for example in corpus.examples} == {"example", "benchmark"}


def test_all_views_are_json(corpus: Catalog) -> None:
    for example in corpus.examples:
        json.dumps([listed(example), described(example)], allow_nan=False)
        assert example.name
        assert example.capability
        assert example.presets or "physical/" in example.path


def test_every_preset_runs_a_script_that_is_there(corpus: Catalog) -> None:
    missing = set()
    for example in corpus.examples:
        for preset in example.presets.values():
            try:
                argv = resolve(example, preset, ["a b"], check=preset.script is not None)
            except UsageError:
                missing.add(example.folder.name)
            else:
                assert argv[-1] == "a b"
                assert (argv[1] == "-c") == (preset.script is None)
    assert missing <= MISSING


def test_every_spelling_finds_its_example(corpus: Catalog) -> None:
    names = [example.folder.name for example in corpus.examples]
    lookup = Lookup(named=corpus.root, env={}, cwd=Path("/"))
    for example in corpus.examples:
        short = example.path.partition("/")[2]
        for query in (example.path, short, f"{short}/", short.upper(), short.replace("_", "-")):
            assert match(query, corpus.examples) == (example,)
        if names.count(example.folder.name) == 1:
            assert match(example.folder.name, corpus.examples) == (example,)
        assert match(example.name, corpus.examples) == (example,)
        assert find(str(example.folder), lookup) == example


def test_needs_are_plausible(corpus: Catalog) -> None:
    needs = [example.needs for example in corpus.examples]
    assert {need.gpus for need in needs} <= {0, 1, 2, 8}
    assert max(need.vram_gb for need in needs) <= 160
    assert sum(need.disk_gb > 0 for need in needs) > 0.9 * len(needs)
    assert sum(need.docker for need in needs) > 0.9 * len(needs)
