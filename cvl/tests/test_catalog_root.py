import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cvl.catalog import Lookup, find_root, root, shipped_root
from cvl.core.errors import UsageError

Make = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def put(folder: str) -> Path:
        file = tmp_path / folder / "example.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("name: x\n")
        return file.parent

    return put


def test_named_beats_environment_beats_parents_beats_configured(make: Make, tmp_path: Path) -> None:
    for name in "abcd":
        make(f"{name}/examples/x")
    named, cvl, other, here = (tmp_path / name for name in "abcd")
    env = {"CVL_ROOT": str(cvl), "CVLIZATION_ROOT": str(other)}
    cwd = here / "examples/x"
    assert find_root(Lookup(named=named, env=env, cwd=cwd)) == named
    assert find_root(Lookup(env=env, cwd=cwd)) == cvl
    assert find_root(Lookup(env=env | {"CVL_ROOT": ""}, cwd=cwd)) == other
    assert find_root(Lookup(configured=named, env={}, cwd=cwd)) == here
    assert find_root(Lookup(configured=named, env={}, cwd=tmp_path)) == named


def test_a_named_root_is_relative_to_where_we_are(make: Make, tmp_path: Path) -> None:
    make("repo/benchmarks/a/b")
    (tmp_path / "deep").mkdir()
    assert find_root(Lookup(named=Path("../repo"), env={}, cwd=tmp_path / "deep")) == (
        tmp_path / "repo"
    )


@pytest.mark.parametrize("origin", ["--root", "$CVL_ROOT", "$CVLIZATION_ROOT", "configured"])
def test_a_named_root_without_examples_is_said_not_skipped(
    origin: str, make: Make, tmp_path: Path
) -> None:
    here = make("here/examples/x").parent.parent if origin != "configured" else tmp_path
    (tmp_path / "bare/examples").mkdir(parents=True)
    for name, text in (("bare", "has no examples"), ("gone", "there is no such folder")):
        path = tmp_path / name
        lookup = Lookup(
            named=path if origin == "--root" else None,
            configured=path if origin == "configured" else None,
            env={origin[1:]: str(path)} if origin[0] == "$" else {},
            cwd=here,
        )
        with pytest.raises(UsageError, match=text) as caught:
            find_root(lookup)
        assert origin in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_folder_called_examples_is_no_root_without_an_example(make: Make, tmp_path: Path) -> None:
    repo = make("repo/examples/a/b/c")
    inner = repo / "examples/samples"
    inner.mkdir(parents=True)
    assert find_root(Lookup(env={}, cwd=inner)) == tmp_path / "repo"


def test_last_come_the_examples_that_ship(tmp_path: Path) -> None:
    shipped = shipped_root()
    assert shipped is not None
    assert root.has_examples(shipped)
    assert find_root(Lookup(env={}, cwd=tmp_path)) == shipped


def test_shipped_examples_lie_in_the_package_once_installed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("site/examples/somebody_elses")
    monkeypatch.setattr(root, "__file__", str(tmp_path / "site/cvl/catalog/root.py"))
    assert shipped_root() is None
    with pytest.raises(UsageError, match="no examples found"):
        find_root(Lookup(env={}, cwd=tmp_path))
    make("site/cvl/_shipped/examples/a")
    assert shipped_root() == tmp_path / "site/cvl/_shipped"
    (tmp_path / "site/pyproject.toml").touch()
    assert shipped_root() == tmp_path / "site"


def test_walk_finds_examples_and_benchmarks_only(make: Make, tmp_path: Path) -> None:
    for folder in (
        "examples/a/b",
        "examples/a/b/inside",
        "benchmarks/z",
        "archived_examples/old",
        "examples/.git/x",
        "examples/venv/x",
        "examples/ünï/x",
    ):
        make(folder)
    (tmp_path / "examples/round").symlink_to(tmp_path / "examples")
    (tmp_path / "examples/broken").symlink_to(tmp_path / "nowhere")
    found = sorted(path for path, _ in root.walk(tmp_path))
    assert found == ["benchmarks/z", "examples/a/b", "examples/ünï/x"]


def test_nothing_is_written_by_looking(make: Make, tmp_path: Path) -> None:
    make("repo/examples/x")
    before = sorted(os.walk(tmp_path))
    find_root(Lookup(env={"XDG_CONFIG_HOME": str(tmp_path)}, cwd=tmp_path / "repo"))
    assert sorted(os.walk(tmp_path)) == before


def test_the_root_of_a_path(make: Make, tmp_path: Path) -> None:
    assert root.own_root(make("r/examples/a/b")) == tmp_path / "r"
    assert root.own_root(make("r/benchmarks/c")) == tmp_path / "r"
    (tmp_path / "g/.git").mkdir(parents=True)
    assert root.own_root(make("g/archived_examples/d")) == tmp_path / "g"
    lonely = make("alone/e")
    assert root.own_root(lonely) == lonely
