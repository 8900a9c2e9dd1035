"""Where our files lie, and with which modes they come into being."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cvl.core import paths

VARIABLES = [
    (paths.state_dir, "CVL_STATE_DIR", "XDG_STATE_HOME", ".local/state/cvl"),
    (paths.config_dir, "CVL_CONFIG_DIR", "XDG_CONFIG_HOME", ".config/cvl"),
    (paths.cache_dir, "CVL_CACHE_DIR", "XDG_CACHE_HOME", ".cache/cvl"),
]


@pytest.mark.parametrize("case", VARIABLES)
def test_ours_beats_xdg_beats_home(
    case: tuple[Callable[[], Path], str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ask, own, shared, default = case
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(shared, str(tmp_path / "xdg"))
    monkeypatch.setenv(own, str(tmp_path / "own"))
    assert ask() == tmp_path / "own"
    monkeypatch.setenv(own, "")
    assert ask() == tmp_path / "xdg/cvl"
    monkeypatch.setenv(shared, "relative/is/ignored")
    assert ask() == tmp_path / "home" / default
    monkeypatch.delenv(shared)
    assert ask() == tmp_path / "home" / default


def test_our_own_variable_may_be_relative_or_begin_with_a_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CVL_STATE_DIR", "here/../there")
    assert paths.state_dir() == tmp_path / "there"
    monkeypatch.setenv("CVL_STATE_DIR", "~/s")
    assert paths.state_dir() == tmp_path / "home/s"


def test_asking_creates_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    assert paths.ledger_file() == tmp_path / "state/ledger.db"
    assert list(tmp_path.iterdir()) == []


def test_private_folders_are_private_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = paths.private(tmp_path / "a/b")
    finally:
        os.umask(before)
    assert [made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777] == [0o700, 0o700]


def test_private_by_many_at_once(tmp_path: Path) -> None:
    failures: list[OSError] = []

    def make() -> None:
        try:
            paths.private(tmp_path / "x/y/z")
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert (tmp_path / "x/y/z").is_dir()


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        paths.private(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        paths.private(Path(tmp_path, "file", "below"))
