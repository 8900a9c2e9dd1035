"""The clouds that run on this computer: started as their pages say, after what these install."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cvl.tests.test_extras import ABSENT, PROJECT

ROOT = PROJECT.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS: dict[str, tuple[str, ...]] = {
    "cvl.testing.kubernetes": ("cryptography", "websockets"),
    "cvl.testing.sagemaker": ("boto3", "moto", "flask", "flask_cors", "werkzeug"),
    "cvl.testing.lambda_cloud": (),
}
NEVER = "cryptography moto flask flask_cors werkzeug boto3 urllib3 websockets"
"""What a plain `pip install .` does not bring."""

pytestmark = pytest.mark.skipif(not PROJECT.exists(), reason="needs the source tree")


def start(folder: Path, module: str, absent: str, *words: str) -> subprocess.Popen[str]:
    (folder / "sitecustomize.py").write_text(ABSENT)
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        env={**os.environ, "PYTHONPATH": str(folder), "ABSENT": absent},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        text=True,
    )


def test_every_page_that_has_one_is_known() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert set(re.findall(r"python -m (cvl\.testing\.\w+)", text)) == set(NEEDS)


@pytest.mark.parametrize(
    ("module", "absent"),
    [(module, each) for module, packages in NEEDS.items() for each in packages],
)
def test_what_is_missing_is_said_at_once(tmp_path: Path, module: str, absent: str) -> None:
    out, err = (process := start(tmp_path, module, absent)).communicate(timeout=60)
    assert (process.returncode, out) == (125, "")
    assert err == f"{absent} not installed (pip install 'cvl[testing]')\n"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("cvl.testing.lambda_cloud", ("--hosts", "none")),
        ("cvl.testing.kubernetes", ("--no-pods",)),
    ],
)
def test_each_starts_with_what_its_page_installs(
    tmp_path: Path, module: str, words: tuple[str, ...]
) -> None:
    absent = [name for name in NEVER.split() if name not in NEEDS[module]]
    process = start(tmp_path, module, " ".join(absent), *words)
    assert process.stdout
    try:
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("export ") for line in lines), process.communicate()
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
