"""Which files of a folder that an argument names travel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cvl.catalog import PathArg, Preset, find_inputs
from cvl.host.upload.inputs import sift
from cvl.providers import base
from cvl.providers.common import Common

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n"
PRESET = Preset(name="run", script="run.sh", path_args=(PathArg(flags=("--data",)),))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in {
        "home/.ssh/id_rsa": KEY,
        "home/diary.txt": "dear",
        "repo/examples/a/example.yaml": "name: a\n",
        "repo/data/x.jpg": "x",
        "repo/data/.env": "S=1",
        "repo/data/sub/key.txt": KEY,
        "repo/big/y.bin": "y",
        "cache/blobs/1": "weights",
        "cache/snapshot/config.json": "{}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def travel(place: Path, *args: str) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    found = find_inputs(PRESET, args, place / "repo")
    return sift(found.files, found.folders, place / "repo")


def test_secrets_in_a_named_folder_stay_here_and_are_named(place: Path) -> None:
    files, warnings = travel(place, "--data", "data")
    assert set(files) == {"data/x.jpg"}
    (warning,) = warnings
    assert f"{place}/repo/data/.env (a secret, by its name)" in warning
    assert f"{place}/repo/data/sub/key.txt (a private key)" in warning


@pytest.mark.parametrize("name", ["data/.env", "data/sub/key.txt"])
def test_a_file_that_is_named_itself_is_the_users_word(place: Path, name: str) -> None:
    assert travel(place, "--data", name) == ({name: place / "repo" / name}, ())
    files, _ = travel(place, "--data", "data", "--data", name)
    assert set(files) == {"data/x.jpg", name}


def test_links_of_a_repository_are_not_followed_out_of_it(place: Path) -> None:
    (place / "repo/data/out").symlink_to(place / "home/diary.txt")
    (place / "repo/data/near").symlink_to("../big/y.bin")
    files, (warning,) = travel(place, "--data", "data")
    assert set(files) == {"data/x.jpg", "data/near"}
    assert f"repo/data/out (a link to {place}/home/diary.txt)" in warning


def test_links_of_another_checkout_are_not_followed_out_of_it_either(place: Path) -> None:
    (place / "other/data").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(place / "other")], check=True)
    (place / "other/data/out").symlink_to(place / "home/diary.txt")
    (place / "other/data/in").write_text("x")
    files, (warning,) = travel(place, "--data", str(place / "other/data"))
    assert [file.name for file in files.values()] == ["in"]
    assert "other/data/out (a link to" in warning


def test_a_cache_of_models_may_be_made_of_links(place: Path) -> None:
    (place / "cache/snapshot/model").symlink_to("../blobs/1")
    (place / "cache/snapshot/key").symlink_to(place / "home/.ssh/id_rsa")
    files, (warning,) = travel(place, "--data", str(place / "cache/snapshot"))
    assert sorted(file.name for file in files.values()) == ["config.json", "model"]
    assert "cache/snapshot/key (a secret, by its name)" in warning


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a link to another user needs root")
def test_a_neighbours_link_leads_only_to_what_is_the_neighbours(place: Path) -> None:
    folder = place / "cache/snapshot"
    for name, target in (("theirs", place / "cache/blobs/1"), ("mine", place / "home/diary.txt")):
        (folder / name).symlink_to(target)
        os.lchown(folder / name, 12345, 12345)
    os.chown(place / "cache/blobs/1", 12345, 12345)
    files, (warning,) = travel(place, "--data", str(folder))
    assert sorted(file.name for file in files.values()) == ["config.json", "theirs"]
    assert "snapshot/mine (a link to" in warning


@pytest.mark.parametrize("sent", [True, False])
def test_a_job_knows_what_stays_here_unless_it_stays_here_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, sent: bool
) -> None:
    presets = "presets: {run: {script: run.sh, path_args: [--data]}}\n"
    (place / "repo/examples/a/example.yaml").write_text(f"name: a\n{presets}")
    (place / "repo/examples/a/run.sh").write_text("true\n")
    monkeypatch.chdir(place / "repo")
    spec = base.job("a", "run", ["--data", "data"], Common(), sent=sent)
    assert ("data/.env" in spec.inputs) is not sent
    assert bool(spec.warnings) is sent


@pytest.mark.parametrize("way", ["to the file", "to its folder", "to a folder above"])
def test_a_named_link_of_a_repository_leads_to_no_secret_elsewhere(place: Path, way: str) -> None:
    (place / "home/.aws").mkdir()
    (place / "home/.aws/credentials").write_text("x")
    (place / "home/keys").mkdir()
    (place / "home/keys/known").write_text(KEY)  # told by what is in it alone
    names = {"to the file": "a", "to its folder": "a/known", "to a folder above": "a/keys/known"}
    ends = {"to the file": "keys/known", "to its folder": "keys", "to a folder above": ""}
    (place / "repo/a").symlink_to(f"../home/{ends[way]}")
    (place / "repo/b").symlink_to(place / "home/.aws/credentials")
    files, (warning,) = travel(place, "--data", names[way], "--data", "b")
    assert files == {}
    assert f"a link to {place}/home/keys/known: a private key" in warning
    assert f"a link to {place}/home/.aws/credentials: a secret, by its name" in warning


def test_a_named_link_to_data_elsewhere_or_to_a_secret_of_the_repository_travels(
    place: Path,
) -> None:
    (place / "repo/far").symlink_to(place / "cache/blobs/1")
    (place / "repo/near").symlink_to("data/.env")
    files, warnings = travel(place, "--data", "far", "--data", "near")
    assert set(files) == {"far", "near"}
    assert warnings == ()
    files, warnings = travel(place, "--data", str(place / "home/.ssh/id_rsa"))
    assert [file.name for file in files.values()] == ["id_rsa"]
    assert warnings == ()
