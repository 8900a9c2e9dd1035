"""Locales in which a text is not UTF-8: each as the variables that choose it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = ("latin", "POSIX", "strict", "utf-8")
SOURCES = Path("/usr/share/i18n/charmaps/ISO-8859-1.gz")


def locale(name: str, folder: Path) -> Mapping[str, str]:
    """Return the variables for a locale; one that is made for it lies in `folder`."""
    if name == "utf-8":
        return {"LC_ALL": "C.UTF-8"}
    if name in {"C", "POSIX"}:
        return {"LC_ALL": name, **PLAIN}
    if name == "strict":
        return {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", **PLAIN}
    if not SOURCES.exists():
        pytest.skip("no locale can be made: apt install locales")
    made = folder / "en_US.ISO-8859-1"
    subprocess.run(
        ["localedef", "-c", "-i", "en_US", "-f", "ISO-8859-1", made],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return {"LOCPATH": str(folder), "LC_ALL": made.name, "PYTHONUTF8": "0"}
