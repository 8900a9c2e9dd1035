"""What one would use instead, each in an environment of its own, outside of the checkout.

They are installed by name, once, into `$CVL_BENCH_CACHE` (else `~/.cache/cvl-bench`). What cannot
be installed or started is reported by the page, not dropped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.values import Failed

INSTALL_LIMIT = 600.0


def cache() -> Path:
    """Return the folder that keeps what was installed, made if it is missing."""
    named = os.environ.get("CVL_BENCH_CACHE")
    folder = Path(named) if named else Path("~/.cache/cvl-bench").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def rival(package: str, program: str = "python") -> str:
    """Return the path of a program of a package, installed if it is missing. Raises `Failed`."""
    folder = cache() / package
    if not (folder / "installed").exists():
        _install(package, folder)
    found = folder / "bin" / program
    if not found.exists():
        raise Failed(f"{package} has no program {program}")
    return str(found)


def version(package: str) -> str:
    """Return the version that is installed, or "" if none is."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    python = cache() / package / "bin/python"
    if not python.exists():
        return ""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def installed() -> list[str]:
    """Return the packages that are there."""
    return sorted(mark.parent.name for mark in cache().glob("*/installed"))


def _install(package: str, folder: Path) -> None:
    print(f"bench: installing {package} into {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _told([sys.executable, "-m", "venv", str(folder)], package)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--no-input"]
    _told([*pip, "--disable-pip-version-check", package], package)
    (folder / "installed").touch()


def _told(argv: list[str], package: str) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{package} was not installed within {INSTALL_LIMIT:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise Failed(f"{package} cannot be installed: {lines[-1].strip()[:200]}")
