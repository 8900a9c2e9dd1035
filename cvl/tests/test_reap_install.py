"""`cvl reap --install`: what it writes is run here as cron and systemd would run it."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cvl.cli.reap_install import installed
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.tests.test_reap import elsewhere, rented, settled

CRONTAB = """#!/bin/sh
# as crontab(1), as far as -l and - go
case $1 in
-l) cat "$HOME/table" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
-) cat >"$HOME/table" ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$HOME/systemctl"
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaCloud]:
    with LambdaCloud(Settings(request_interval=0, launch_interval=0, boot_seconds=0)) as cloud:
        settled(monkeypatch, tmp_path / "ours", cloud)
        yield cloud


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a percent sign and a space in its name: both mean something to cron or sh."""
    home = tmp_path / "50% home"
    (home / "bin").mkdir(parents=True)
    return home


def program(home: Path, name: str, text: str) -> None:
    (home / "bin" / name).write_text(text)
    (home / "bin" / name).chmod(0o755)


def user(home: Path, **more: str) -> Mapping[str, str]:
    """Return the environment of a user who lives there, with our key."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    return {**kept, "HOME": str(home), "PATH": path, "CVL_STATE_DIR": str(home / "state"), **more}


def install(env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "cvl", "reap", "--install"]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)


def kept(home: Path) -> Path:
    """Return the file that holds the key."""
    file = home / ".config/cvl/reap.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file


def test_cron_reaps_what_is_late(cloud: LambdaCloud, home: Path, tmp_path: Path) -> None:
    program(home, "crontab", CRONTAB)
    (home / "table").write_text("0 1 * * * make tea\n")
    env = user(home)
    assert not installed({**env})
    for _ in range(2):
        done = install(env)
        assert (done.returncode, "every 10 minutes" in done.stdout) == (0, True), done.stderr
    tea, line = (home / "table").read_text().splitlines()
    assert tea == "0 1 * * * make tea"
    assert cloud.key not in line
    assert cloud.key in kept(home).read_text()
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    command = line.split(" ", 5)[5].replace("\\%", "%")  # crontab(5)
    bare = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    ran = subprocess.run(
        ["/bin/sh", "-c", command], env=bare, cwd=home, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert cloud.alive() == []


def test_a_systemd_timer_reaps_what_is_late(
    cloud: LambdaCloud, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(home, "systemctl", SYSTEMCTL)
    (home / "run/systemd").mkdir(parents=True)
    (home / "run/systemd/private").touch()
    env = user(home, XDG_RUNTIME_DIR=str(home / "run"))
    done = install(env)
    assert (done.returncode, "cvl-reap.timer" in done.stdout) == (0, True), done.stderr
    assert "enable --now cvl-reap.timer" in (home / "systemctl").read_text()
    monkeypatch.setenv("HOME", str(home))
    assert installed({"HOME": str(home)})
    unit = (home / ".config/systemd/user/cvl-reap.service").read_text()
    assert cloud.key not in unit
    said = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    assert said["EnvironmentFile"] == str(kept(home)).replace("%", "%%")  # systemd.unit(5)
    given = dict(line.split("=", 1) for line in shlex.split(kept(home).read_text()))
    rented(elsewhere(tmp_path), tmp_path, left=-1)
    words = shlex.split(said["ExecStart"].replace("%%", "%").replace("$$", "$"))
    ran = subprocess.run(
        words,
        env={"HOME": str(home), **given},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert cloud.alive() == []


def test_with_neither_it_says_what_to_run(cloud: LambdaCloud, home: Path) -> None:
    env = {**user(home), "PATH": str(home / "bin")}
    done = install(env)
    assert done.returncode == 125
    assert "neither" in done.stderr
    assert "-m cvl reap -y" in done.stderr
    assert cloud.key not in done.stderr
