"""The account's key stays in our own process: no child sees it, no core file holds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from cvl import hidden
from cvl.testing.desk import Desk
from cvl.testing.lambda_cloud import FAULTS, LambdaCloud, Settings

WITNESS = """#!/bin/sh
{ env; echo "core files: $(ulimit -S -c)"; } >>"$WITNESS"
exec %s "$@"
"""


def test_no_child_of_ours_inherits_the_key(tmp_path: Path) -> None:
    """Seen by the first program that a run on a rented machine starts."""
    keygen = which("ssh-keygen")
    assert keygen
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh-keygen").write_text(WITNESS % keygen)
    (tmp_path / "bin" / "ssh-keygen").chmod(0o755)
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as cloud:
        cloud.inject(FAULTS["launch-quota"])
        env = {
            **cloud.env,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "WITNESS": str(tmp_path / "seen"),
            "LAMBDA_API_RPS": "0",
            "LAMBDA_SETTLE": "0.2",
        }
        desk = Desk(folder=tmp_path, options=("-y", "--remote", "lambda"), env=env)
        words = [sys.executable, "-m", "cvl", "run", *desk.options, "one", "sh", "true"]
        done = subprocess.run(
            ["sh", "-c", 'ulimit -S -c 1; exec "$@"', "sh", *words],
            cwd=desk.repo,
            env=desk.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "quota" in done.stderr.lower()) == (125, True), done.stderr
        seen = (tmp_path / "seen").read_text()
        assert "WITNESS=" in seen
        assert cloud.key not in seen + done.stderr + done.stdout
        assert seen.count("core files: 0\n") == 2


def test_in_somebody_else_s_process_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "s3cret")
    assert hidden.secret("A_SECRET") == "s3cret"
    assert os.environ["A_SECRET"] == "s3cret"
    assert hidden.secret("NO_SECRET") == ""
