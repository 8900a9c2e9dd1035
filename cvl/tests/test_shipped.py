"""The examples that ship, through every way of running them on a machine of one's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cvl
from cvl.runners import example_usage
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
"""What the examples install, once, is as good for a test as for anybody."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def host_with_cache(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "host", env={"XDG_CACHE_HOME": str(CACHE)}) as sshd:
        yield sshd


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_digits_learns_to_read_wherever_it_runs(host_with_cache: Sshd, tmp_path: Path) -> None:
    env = {**host_with_cache.env, "XDG_CACHE_HOME": str(CACHE)}
    for where in (("--local",), ("--ssh", "testhost"), ("--docker", "testhost")):
        desk = Desk(folder=tmp_path / where[0].strip("-"), options=where, env=env)
        words = ("--root", str(ROOT), "digits", "train", "--epochs", "3")
        with desk.start("run", *where, "-o", "out", *words) as client:
            done = client.ended(300)
        assert done.code == 0, done.err
        assert b"epoch 3/3" in done.out
        (metrics,) = (desk.repo / "out").rglob("metrics.json")
        assert json.loads(metrics.read_text())["test"]["accuracy"] > 0.8
        assert {"model.npz", "confusion_matrix.png"} <= {p.name for p in metrics.parent.iterdir()}


def test_one_that_came_with_cvl_writes_nothing_where_python_keeps_packages(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    ignore = shutil.ignore_patterns("tests", "testing", "__pycache__", "_shipped")
    shutil.copytree(Path(cvl.__file__).parent, site / "cvl", ignore=ignore)
    (tmp_path / "desk").mkdir()
    desk = Desk(folder=tmp_path / "desk", options=(), env={"PYTHONPATH": str(site)})
    shutil.move(desk.repo / "examples", site / "cvl/_shipped/examples")
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(site.rglob("*"))
    done = desk.cvl("run", "-o", "out", "one", "sh", "echo made >new; pwd", env=env)
    assert done.code == 0, done
    assert str(site) not in done.out.decode()
    assert sorted(site.rglob("*")) == before
    assert (desk.repo / "out/new").read_text() == "made\n"


@pytest.mark.parametrize("words", ["", "nope", "ssh a b", "ssh --help", "local x", "lambda -h"])
def test_the_usage_example_says_how_it_is_called(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example_usage.main(words.split()) == 2
    assert capsys.readouterr().err.startswith("usage: python -m cvl.runners.example_usage ssh")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_usage_example_works(host_with_cache: Sshd, tmp_path: Path) -> None:
    env = {**Desk(folder=tmp_path, options=()).environment, **host_with_cache.env}
    command = [sys.executable, "-m", "cvl.runners.example_usage"]
    call = subprocess.run(
        [*command, "ssh", "testhost"],
        cwd=tmp_path,
        env={**env, "CVL_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert call.returncode == 0, call.stderr
    assert "epoch 3/3" in call.stdout
    assert "exited, exit code 0" in call.stderr
