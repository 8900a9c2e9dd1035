import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvl.catalog import Catalog, Lookup, described, find, index, listed, load
from cvl.core import yaml_document
from cvl.core.errors import Ambiguous, NotFound, UsageError

OLD = 1_700_000_000 * 10**9
"""A time long settled, in ns."""


def write(folder: Path, text: str = "presets: [train]\n", mtime: int = OLD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "draft"
    draft.write_text(text, encoding="utf-8")
    os.utime(draft, ns=(mtime, mtime))
    draft.replace(folder / "example.yaml")
    return folder


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    write(root / "examples/llm/nanogpt", "name: nano\n")
    write(root / "examples/a/torch")
    write(root / "examples/b/torch")
    write(root / "benchmarks/qa")
    write(root / "archived_examples/old")
    return root


@pytest.fixture
def lookup(repo: Path, tmp_path: Path) -> Lookup:
    (tmp_path / "cwd").mkdir()
    return Lookup(named=repo, env={}, cwd=tmp_path / "cwd")


@pytest.fixture
def cache(lookup: Lookup, cache_folder: Path) -> Path:
    load(the_root(lookup))
    (file,) = cache_folder.iterdir()
    return file


def the_root(lookup: Lookup) -> Path:
    assert lookup.named
    return lookup.named


def again(lookup: Lookup) -> Catalog:
    return load(the_root(lookup))


@pytest.fixture
def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(raw: bytes) -> yaml_document.Document:
        raise AssertionError(raw)

    monkeypatch.setattr(yaml_document, "parse", parse)


class TestFind:
    def test_by_word_by_path_and_by_name(self, repo: Path, lookup: Lookup) -> None:
        for query in ("nanogpt", "nano", "llm/nanogpt", "examples/llm/nanogpt/", "./llm/nanogpt"):
            assert find(query, lookup).path == "examples/llm/nanogpt"
        found = find(str(repo / "examples/llm/nanogpt"), lookup)
        assert (found.root, found.path, found.type) == (repo, "examples/llm/nanogpt", "example")
        assert find("qa", lookup).type == "benchmark"

    def test_relative_to_where_we_are(self, repo: Path) -> None:
        at = Lookup(env={}, cwd=repo / "examples/llm/nanogpt")
        for query in (".", "./", "../nanogpt", "./example.yaml"):
            assert find(query, at).path == "examples/llm/nanogpt"
        assert find("torch/", Lookup(env={}, cwd=repo / "examples/b")).path == ("examples/b/torch")

    def test_a_path_beats_the_root(self, tmp_path: Path, lookup: Lookup) -> None:
        other = write(tmp_path / "other/examples/x/y", "name: y\n")
        assert find(str(other), lookup).root == tmp_path / "other"
        alone = write(tmp_path / "alone/torch", "name: mine\n")
        found = find("./torch", Lookup(named=lookup.named, env={}, cwd=alone.parent))
        assert (found.root, found.path, found.folder, found.name) == (alone, "", alone, "mine")
        assert find("../alone/torch", lookup).folder == alone
        archived = the_root(lookup) / "archived_examples/old"
        assert find(str(archived), lookup).folder == archived

    def test_a_word_is_looked_up_before_it_is_a_folder_here(self, lookup: Lookup) -> None:
        write(lookup.cwd / "nanogpt", "name: mine\n")
        write(lookup.cwd / "mine", "name: mine\n")
        assert find("nanogpt", lookup).root == lookup.named
        assert find("mine", lookup).root == lookup.cwd / "mine"

    def test_a_path_needs_no_root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cvl.catalog.root.shipped_root", lambda: None)
        folder = write(tmp_path / "x/y")
        here = Lookup(env={}, cwd=tmp_path)
        for query in (str(folder), "./x/y", "x/y"):
            assert find(query, here).folder == folder
        with pytest.raises(UsageError, match="no examples found"):
            find("nanogpt", here)

    def test_ambiguous_lists_all(self, lookup: Lookup) -> None:
        with pytest.raises(Ambiguous, match="fits 2 examples") as caught:
            find("torch", lookup)
        assert caught.value.hint.split()[-2:] == ["examples/a/torch", "examples/b/torch"]

    def test_unknown_suggests(self, lookup: Lookup) -> None:
        with pytest.raises(NotFound, match="'nanogtp'") as caught:
            find("nanogtp", lookup)
        assert "examples/llm/nanogpt (nano)" in caught.value.hint
        with pytest.raises(NotFound) as caught:
            find("nope", lookup)
        assert "nano" not in caught.value.hint

    def test_a_folder_without_an_example_is_said(self, lookup: Lookup) -> None:
        for query in (str(lookup.cwd), ".", "..", "/no/such/folder"):
            with pytest.raises(NotFound, match=r"no example\.yaml in /"):
                find(query, lookup)

    def test_a_broken_example_is_said_and_not_replaced_by_a_neighbour(
        self, repo: Path, lookup: Lookup
    ) -> None:
        write(repo / "examples/llm/nano_two", "name: x\nb: [")
        write(repo / "examples/llm/nano_two_more")
        for query in ("nano_two", "nano-two", "llm/nano_two", str(repo / "examples/llm/nano_two")):
            with pytest.raises(UsageError, match=r"nano_two/example\.yaml:2: "):
                find(query, lookup)
        assert find("nano_two_more", lookup).path == "examples/llm/nano_two_more"

    @pytest.mark.usefixtures("no_parsing")
    def test_an_exact_path_reads_no_other_file(
        self, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[Path] = []

        def note(file: Path, most: int, *, links: bool) -> bytes:
            read.append(file)
            return b""

        real = yaml_document.Document(data={"name": "x"})
        monkeypatch.setattr(yaml_document, "parse", lambda _: real)
        monkeypatch.setattr(index, "walk", lambda _: pytest.fail("it looked at all"))
        monkeypatch.setattr(index, "start_of", note)
        find("llm/nanogpt", lookup)
        assert [file.parent.name for file in read] == ["nanogpt"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.text(max_size=12) | st.text("./~ab\0", max_size=6) | st.just("x" * 5000))
    def test_any_word_gives_an_example_or_an_error_of_ours(
        self, lookup: Lookup, query: str
    ) -> None:
        with contextlib.suppress(UsageError):
            assert find(query, lookup).path


class TestLoad:
    def test_in_order_without_what_is_archived(self, lookup: Lookup) -> None:
        assert [example.path for example in again(lookup).examples] == [
            "benchmarks/qa", "examples/a/torch", "examples/b/torch", "examples/llm/nanogpt",
        ]  # fmt: skip

    def test_a_broken_file_hides_no_other(self, repo: Path, lookup: Lookup) -> None:
        write(repo / "examples/broken/list", "\n- a\n")
        write(repo / "examples/broken/empty", "")
        write(repo / "examples/broken/twice", "name: a\nname: b\n")
        write(repo / "examples/broken/args", 'presets:\n  x:\n    args: "it\'s"\n')
        (repo / "examples/broken/pipe").mkdir()
        os.mkfifo(repo / "examples/broken/pipe/example.yaml")
        write(repo / "examples/broken/huge", "#" * (index.LIMIT + 1))
        for _ in range(2):
            found = again(lookup)
            assert len(found.examples) == 6
            lines = {problem.path.parent.name: problem.line for problem in found.problems}
            assert list(lines.items()) == [
                ("args", 3), ("empty", 1), ("huge", 1), ("list", 2), ("pipe", 1), ("twice", 2),
            ]  # fmt: skip
            assert all(str(problem).startswith(str(repo)) for problem in found.problems)
        assert find("broken/twice", lookup).name == "b"

    def test_a_file_that_may_not_be_read_is_a_problem_until_it_may(
        self, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(file: Path, most: int, *, links: bool) -> bytes:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(index, "start_of", refuse)
            assert {problem.text for problem in again(lookup).problems} == {
                "cannot be read: Permission denied"
            }
        assert len(again(lookup).examples) == 4

    def test_non_ascii_in_the_plainest_locale(self, repo: Path, cache_folder: Path) -> None:
        write(repo / "examples/ünï/x", "name: ünï\ndescription: 長い → text\n")
        code = (
            "import json; from pathlib import Path; from cvl.catalog import load, listed\n"
            f"for _ in range(2): found = load(Path({str(repo)!r}))\n"
            "print(json.dumps([listed(e) for e in found.examples]))"
        )
        env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        env["CVL_CACHE_DIR"] = str(cache_folder)
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, check=True, timeout=30
        ).stdout
        assert "\\u957f" not in out.decode()
        assert "\\u9577\\u3044 \\u2192" in out.decode()


class TestCache:
    @pytest.mark.usefixtures("cache", "no_parsing")
    def test_a_file_that_has_not_changed_is_not_read_again(self, lookup: Lookup) -> None:
        assert len(again(lookup).examples) == 4
        assert find("nano", lookup).path == "examples/llm/nanogpt"
        assert find("examples/llm/nanogpt", lookup).name == "nano"

    @pytest.mark.usefixtures("cache")
    def test_yaml_is_not_imported(self, repo: Path, cache_folder: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from cvl.catalog import load\n"
            f"assert len(load(Path({str(repo)!r})).examples) == 4\n"
            "assert not {'yaml', 'click', 'subprocess', 'difflib', 'shlex'} & sys.modules.keys()"
        )
        env = {"CVL_CACHE_DIR": str(cache_folder)}
        subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=30)

    def test_same_values_from_the_cache(self, repo: Path, lookup: Lookup) -> None:
        write(
            repo / "examples/all",
            "name: all\nresources: {gpu: 1, x: [1.5, null]}\ntags: [é]\npresets:\n"
            "  a: {script: A=1 x.sh, env: {B: on}, args: [1], path_args: [{flag: -i}]}\n",
        )
        cold, warm = again(lookup), again(lookup)
        assert cold == warm
        assert [described(example) for example in cold.examples] == [
            described(example) for example in warm.examples
        ]

    def test_it_follows_changes(self, repo: Path, lookup: Lookup, cache: Path) -> None:
        write(repo / "examples/llm/nanogpt", "name: changed\n", OLD + 1)
        write(repo / "examples/new")
        (repo / "benchmarks/qa/example.yaml").unlink()
        assert [example.name for example in again(lookup).examples] == [
            "torch", "torch", "changed", "new",
        ]  # fmt: skip
        assert b"benchmarks/qa" not in cache.read_bytes()

    def test_a_file_changed_twice_within_one_tick_is_read_again(
        self, repo: Path, lookup: Lookup
    ) -> None:
        folder = repo / "examples/llm/nanogpt"
        now = repo.stat().st_mtime_ns
        write(folder, "name: one\n", now)
        assert find("one", lookup)
        write(folder, "name: two\n", now)
        assert find("two", lookup)

    def test_modes(self, cache: Path) -> None:
        assert cache.stat().st_mode & 0o777 == 0o600
        assert cache.parent.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "[]", "null", "{}", "5", '{"format": 1}', "\0\1\2", "[" * 100_000,
            '{"format": 1, "root": "ROOT", "files": []}',
            '{"format": 1, "root": "ROOT", "files": {"examples/llm/nanogpt": 1}}',
            '{"format": 1, "root": "ROOT", "files": {"examples/llm/nanogpt": [1, 2, [], []]}}',
            '{"format": 1, "root": "ROOT", "files": {"examples/llm/nanogpt": [1, 2, {}, [1]]}}',
            '{"format": 0, "root": "ROOT", "files": {}}',
            '{"format": 1, "root": "/else", "files": {}}',
        ],
    )  # fmt: skip
    def test_a_broken_or_foreign_one_is_replaced(
        self, text: str, lookup: Lookup, cache: Path
    ) -> None:
        good = cache.read_bytes()
        cache.write_text(text.replace("ROOT", str(lookup.named)))
        assert len(again(lookup).examples) == 4
        assert cache.read_bytes() == good

    def test_one_that_others_can_write_is_not_believed(self, lookup: Lookup, cache: Path) -> None:
        cache.write_text(cache.read_text().replace("nano", "evil"))
        cache.chmod(0o622)
        assert find("nano", lookup).name == "nano"

    def test_it_is_done_without_where_it_cannot_be_had(
        self, repo: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (repo.parent / "file").touch()
        for place in (repo.parent / "file/x", Path("/proc/nowhere")):
            monkeypatch.setenv("CVL_CACHE_DIR", str(place))
            assert len(load(repo).examples) == 4
        assert not cache_folder.exists()

    def test_two_roots_have_two(self, tmp_path: Path, cache: Path) -> None:
        write(tmp_path / "second/examples/x")
        load(tmp_path / "second")
        assert len(list(cache.parent.iterdir())) == 2

    def test_writers_do_not_disturb_each_other(
        self, repo: Path, lookup: Lookup, cache_folder: Path
    ) -> None:
        wrong: list[object] = []

        def churn(number: int) -> None:
            for turn in range(15):
                write(repo / f"examples/w{number}", f"name: n{turn}\n", OLD + turn)
                found = again(lookup)
                if found.problems or len(found.examples) < 5:
                    wrong.append(found)

        threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert len(again(lookup).examples) == 8
        assert [file.suffix for file in cache_folder.iterdir()] == [".json"]


def test_views(repo: Path, lookup: Lookup) -> None:
    folder = write(
        repo / "examples/v/w",
        "name: ww\ncapability: v/w\nstability: stable\ntags: [a]\ndescription: |\n  two\n  lines\n"
        "image: i:1\nresources: {gpu: 1, note: on}\n"
        "presets:\n  train: {script: X=1 t.sh -- a, description: d}\n  go: {command: make go}\n",
    )
    (folder / "README.md").touch()
    found = find("ww", lookup)
    base = {
        "name": "ww", "path": "examples/v/w", "capability": "v/w", "stability": "stable",
        "tags": ["a"], "description": "two\nlines", "presets": ["train", "go"], "type": "example",
    }  # fmt: skip
    assert listed(found) == base
    train = {
        "script": "t.sh", "command": None, "args": ["a"], "env": {"X": "1"}, "description": "d",
    }  # fmt: skip
    go: dict[str, object] = {
        "script": None,
        "command": "make go",
        "args": [],
        "env": {},
        "description": "",
    }
    assert described(found) == {
        **base, "presets": {"train": train, "go": go}, "image": "i:1",
        "resources": {"gpu": 1, "note": True}, "readme": "examples/v/w/README.md",
    }  # fmt: skip
