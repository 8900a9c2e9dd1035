"""Run the scripts of the examples that ship, as their users do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cvl.core.spec import EMPTY

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "perception" / "image_classification" / "digits"
NANOGPT = EXAMPLES / "generative" / "llm" / "nanogpt"
LIMIT = 100
"""Seconds that one script may take here, once its packages are installed."""

Env = Mapping[str, str]


def environ(more: Env) -> dict[str, str]:
    """Return our environment, less what would change a script, with this Python as `python3`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CVL_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "CVL_NO_DOCKER": "1", "OMP_NUM_THREADS": "1", **more}


def run(
    script: Path, *args: str, cwd: Path, env: Env = EMPTY, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *args],
        cwd=cwd,
        env=environ(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


@contextmanager
def started(
    script: Path, *args: str, cwd: Path, env: Env = EMPTY
) -> Iterator[subprocess.Popen[str]]:
    """Start a script in a session of its own; whatever is left of it at the end is killed."""
    with subprocess.Popen(
        [str(script), *args],
        cwd=cwd,
        env=environ(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"ended without {text!r}: {''.join(seen)}")


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load_json(path: Path) -> dict[str, object]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return value
