"""Which files travel: against real git, real folders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cvl.core.errors import UsageError
from cvl.core.spec import Source
from cvl.host.upload.selection import Selection, select

E = "examples/perception/vision/alpha"
EXAMPLE = {f"{E}/example.yaml": "name: alpha\n", f"{E}/train.sh": "echo hi\n"}


def fill(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def git(root: Path, *args: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", root, *who, *args], check=True, capture_output=True)


@pytest.fixture(params=["git", "plain"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    if request.param == "git":
        git(root, "init", "-q")
    fill(root, EXAMPLE)
    return root


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    fill(root, EXAMPLE)
    return root


def choose(root: Path, *include: str, folder: str = E, without: tuple[Path, ...] = ()) -> Selection:
    source = Source(root=root, folder=folder, include=include)
    return select(source, root.parent / "state", without)


def names(root: Path, *include: str, folder: str = E, without: tuple[Path, ...] = ()) -> set[str]:
    tree = choose(root, *include, folder=folder, without=without).tree
    return {os.fsdecode(path) for path in tree.entries}


def test_what_lies_around_the_example_travels_and_the_rest_does_not(root: Path) -> None:
    near = {
        "cvlization/paths.py": "",
        "pyproject.toml": "",
        "examples/perception/shared.py": "",
        "examples/perception/vision/test_images/sample.jpg": "",
        "examples/perception/_tasks/deep/a.json": "",
    }
    far = {
        "docs/index.md": "",
        "examples/perception/vision/beta/example.yaml": "",
        "examples/generative/example_less/x.py": "",
        "examples/generative/gamma/example.yaml": "",
    }
    fill(root, {**near, **far})
    assert names(root) == EXAMPLE.keys() | near.keys()


@pytest.mark.parametrize(
    ("script", "travels"),
    [
        ("bash ../beta/build.sh", "examples/perception/vision/beta/Dockerfile"),
        ('cd "$SCRIPT_DIR/../beta"', "examples/perception/vision/beta/build.sh"),
        ("ls $REPO_ROOT/datasets", "datasets/a.csv"),
        ('ls "${REPO_ROOT}"/datasets/', "datasets/a.csv"),
        ("cat /cvlization_repo/datasets/a.csv", "datasets/a.csv"),
        ("see ../../../../datasets/a.csv.", "datasets/a.csv"),
        ("Path(ROOT, 'examples/generative/gamma')", "examples/generative/gamma/x.py"),
    ],
)
def test_what_a_script_mentions_travels(root: Path, script: str, travels: str) -> None:
    others = {
        "datasets/a.csv": "",
        "datasets_more/b.csv": "",
        "examples/perception/vision/beta/example.yaml": "",
        "examples/perception/vision/beta/build.sh": "",
        "examples/perception/vision/beta/Dockerfile": "",
        "examples/generative/gamma/example.yaml": "",
        "examples/generative/gamma/x.py": "",
    }
    fill(root, {**others, f"{E}/train.sh": script})
    found = names(root)
    assert travels in found
    tops = {name.rsplit("/", 1)[0] for name in found - EXAMPLE.keys()}
    assert tops == {travels.rsplit("/", 1)[0]}


def test_mentions_are_followed_from_one_example_to_the_next_but_not_in_prose(root: Path) -> None:
    fill(
        root,
        {
            f"{E}/train.sh": "../beta/build.sh",
            f"{E}/README.md": "see ../delta",
            "pyproject.toml": "exclude = 'examples/perception/vision/delta'",
            "examples/perception/vision/beta/example.yaml": "",
            "examples/perception/vision/beta/build.sh": "sh ../gamma/made_there.bin",
            "examples/perception/vision/gamma/example.yaml": "sh ../alpha/x.sh",
            "examples/perception/vision/delta/example.yaml": "",
        },
    )
    folders = {name.split("/")[3] for name in names(root) if "/" in name}
    assert folders == {"alpha", "beta", "gamma"}


def test_the_root_and_what_is_above_the_example_are_not_taken_for_a_mention(root: Path) -> None:
    fill(root, {f"{E}/train.sh": "cd ../../../.. ; cd ../.. ; ls $ROOT/examples", "docs/a": ""})
    assert names(root) == EXAMPLE.keys()


def test_a_link_travels_as_a_link_with_what_it_points_to(root: Path) -> None:
    fill(root, {"assets/big.bin": "x"})
    (root / E / "data").symlink_to("../../../../assets")
    (root / E / "dangling").symlink_to("../nowhere/x.pdf")
    tree = choose(root).tree
    assert tree.entries[f"{E}/data".encode()].content == b"../../../../assets"
    assert tree.entries[f"{E}/dangling".encode()].kind == "l"
    assert b"assets/big.bin" in tree.entries


def test_secrets_caches_environments_and_earlier_results_never_travel(root: Path) -> None:
    fill(
        root,
        {
            ".env": "S=1",
            f"{E}/.env": "S=1",
            f"{E}/.env.local": "S=1",
            f"{E}/.env.example": "S=",
            f"{E}/__pycache__/a.pyc": "",
            f"{E}/.venv/x": "",
            f"{E}/myenv/pyvenv.cfg": "",
            f"{E}/myenv/lib/x.py": "",
            f"{E}/.pytest_cache/x": "",
            "cvl-runs/r1/out.txt": "",
            f"{E}/out/model.bin": "",
        },
    )
    without = (root / E / "out", root.parent / "elsewhere")
    assert names(root, without=without) == {*EXAMPLE, f"{E}/.env.example"}


def test_git_says_what_is_ignored_but_tracked_files_travel_all_the_same(checkout: Path) -> None:
    fill(
        checkout,
        {
            f"{E}/.gitignore": "*.txt\noutputs/\n",
            f"{E}/requirements.txt": "torch",
            f"{E}/notes.txt": "",
            f"{E}/outputs/model.bin": "",
            f"{E}/new.py": "",
        },
    )
    git(checkout, "add", "-f", f"{E}/requirements.txt")
    found = names(checkout)
    assert {f"{E}/requirements.txt", f"{E}/new.py"} <= found
    assert not {f"{E}/notes.txt", f"{E}/outputs/model.bin"} & found


def test_a_tracked_file_that_was_deleted_is_left_out(checkout: Path) -> None:
    fill(checkout, {f"{E}/old.py": ""})
    git(checkout, "add", ".")
    (checkout / E / "old.py").unlink()
    chosen = choose(checkout)
    assert f"{E}/old.py".encode() not in chosen.tree.entries
    assert chosen.warnings == ()


def test_submodules_and_nested_repositories_travel_with_their_files(checkout: Path) -> None:
    for place in (checkout.parent / "lib", checkout / E / "nested"):
        place.mkdir()
        git(place, "init", "-q")
        fill(place, {"code.py": "x", "junk.o": "", ".gitignore": "*.o\n"})
        git(place, "add", ".")
        git(place, "commit", "-qm", "x")
    git(checkout, "submodule", "add", "-q", str(checkout.parent / "lib"), f"{E}/sub")
    blob = "160000,1b51e26d304f647c7c12201b3f1513ee5a429ec4"
    git(checkout, "update-index", "--add", "--cacheinfo", f"{blob},{E}/empty")
    (checkout / E / "empty").mkdir()
    tree = choose(checkout).tree
    found = {os.fsdecode(path) for path in tree.entries}
    assert {f"{E}/sub/code.py", f"{E}/nested/code.py", f"{E}/empty"} <= found
    assert not {f"{E}/sub/junk.o", f"{E}/nested/junk.o", f"{E}/sub/.git"} & found
    assert tree.entries[f"{E}/empty".encode()].kind == "d"


def test_names_that_are_not_text_survive(root: Path) -> None:
    odd = [b"new\nline", b"bl ank\xff", "naïve".encode(), b"-rf", b"a\\b", b"quote'\""]
    for name in odd:
        (root / E / os.fsdecode(name)).write_text("x")
    found = choose(root).tree.entries
    assert {f"{E}/".encode() + name for name in odd} <= found.keys()


def test_an_example_that_git_ignores_travels_if_it_is_what_runs(checkout: Path) -> None:
    fill(checkout, {".gitignore": "/examples/scratch/\n", "examples/scratch/mine/example.yaml": ""})
    assert "examples/scratch/mine/example.yaml" in names(checkout, folder="examples/scratch/mine")
    assert "examples/scratch/mine/example.yaml" not in names(checkout)


def test_a_root_inside_an_ignored_folder_of_another_checkout_is_read_as_plain(
    checkout: Path,
) -> None:
    fill(checkout, {".gitignore": "/vendor/\n", "vendor/cvlization/x.py": ""})
    fill(checkout / "vendor", EXAMPLE)
    assert names(checkout / "vendor") == {*EXAMPLE, "cvlization/x.py"}


def test_a_checkout_that_git_refuses_is_read_as_plain_with_a_warning(checkout: Path) -> None:
    (checkout / ".git" / "HEAD").write_text("garbage")
    (warning,) = choose(checkout).warnings
    assert str(checkout) in warning


def test_git_variables_of_the_caller_do_not_lead_elsewhere(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(checkout.parent / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(checkout.parent / "index"))
    fill(checkout, {".gitignore": "*.log\n", f"{E}/a.log": ""})
    assert names(checkout) == {*EXAMPLE, ".gitignore"}


def test_cvlignore_takes_away_and_include_brings_back(root: Path) -> None:
    fill(
        root,
        {
            ".cvlignore": "*.bin\n",
            f"{E}/.cvlignore": "/data/\n!keep.bin\n",
            f"{E}/weights.bin": "",
            f"{E}/data/a.csv": "",
            f"{E}/sub/data/b.csv": "",
        },
    )
    found = names(root)
    assert f"{E}/sub/data/b.csv" in found
    assert not {f"{E}/weights.bin", f"{E}/data/a.csv"} & found
    assert f"{E}/data/a.csv" in names(root, f"{E}/data/")


def test_include_takes_what_is_ignored_and_what_lies_elsewhere(checkout: Path) -> None:
    fill(checkout, {".gitignore": "/models/\n", "models/outputs/m.bin": "", "models/.env": "S=1"})
    found = names(checkout, "models")
    assert "models/outputs/m.bin" in found
    assert "models/.env" not in found


@pytest.mark.parametrize("name", ["nowhere", "../x", "/etc/passwd", "link/x", "a/../../x"])
def test_include_of_what_cannot_be_had_is_an_error_that_names_it(root: Path, name: str) -> None:
    fill(root.parent, {"x": "", "outside/x": ""})
    (root / "link").symlink_to("../outside")
    with pytest.raises(UsageError, match=f"cannot include {name}"):
        choose(root, name)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("data", "/etc"),
        ("data", "../outside"),
        ("data", "../outside/x"),
        (f"{E}/data", "../../../../../outside"),
        ("data", "nowhere"),
        ("data", "data"),
    ],
)
def test_include_of_a_link_that_leads_nowhere_there_is_refused(
    root: Path, name: str, target: str
) -> None:
    fill(root.parent, {"outside/x": ""})
    (root / name).symlink_to(target)
    with pytest.raises(UsageError, match=f"cannot include {name}: it is a link to {target}, which"):
        choose(root, name)


def test_include_of_a_link_within_the_repository_brings_both(root: Path) -> None:
    fill(root, {"assets/a": ""})
    (root / "data").symlink_to("assets")
    assert {"data", "assets/a"} <= names(root, "data")


def test_links_that_lead_out_are_named_once_and_travel_as_they_are(root: Path) -> None:
    fill(root.parent, {"outside/x": ""})
    (root / E / "data").symlink_to("/etc")
    (root / E / "more").symlink_to("../../../../../outside")
    (root / E / "dangling").symlink_to("/nowhere/x")
    (root / E / "inside").symlink_to("train.sh")
    chosen = choose(root)
    (said,) = [text for text in chosen.warnings if "link" in text]
    start, _, links = said.partition(": ")
    assert start == "only the links travel, not what they lead to"
    assert set(links.split(", ")) == {
        f"{E}/data -> /etc",
        f"{E}/more -> ../../../../../outside",
    }
    assert chosen.tree.entries[f"{E}/data".encode()].content == b"/etc"


def test_an_example_at_the_root_takes_all(root: Path) -> None:
    fill(root, {"a/b.txt": ""})
    assert names(root, folder="") == {*EXAMPLE, "a/b.txt"}


def test_what_is_no_file_or_cannot_be_read_is_left_out_and_named(root: Path) -> None:
    os.mkfifo(root / E / "pipe")
    (root / E / "locked.txt").write_text("x")
    (root / E / "locked.txt").chmod(0)
    chosen = choose(root)
    lost = {b"pipe"} if os.geteuid() == 0 else {b"pipe", b"locked.txt"}
    # Git does not list a pipe at all; then there is nothing to tell.
    named = {name for name in lost if any(name.decode() in text for text in chosen.warnings)}
    assert lost - named <= {b"pipe"}
    assert not {f"{E}/".encode() + name for name in lost} & chosen.tree.entries.keys()


def test_empty_folders_travel_where_git_does_not_say_otherwise(tmp_path: Path) -> None:
    fill(tmp_path / "repo", EXAMPLE)
    (tmp_path / "repo" / E / "empty").mkdir()
    assert choose(tmp_path / "repo").tree.entries[f"{E}/empty".encode()].kind == "d"
