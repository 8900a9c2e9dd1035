"""The machine that the figures are from."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from pathlib import Path


def described() -> dict[str, str]:
    """Return what of this machine and its programs bears on the figures."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "load before": f"{os.getloadavg()[0]:.1f} (1 minute), {os.getloadavg()[1]:.1f} (5)",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "temporary files": _file_system(),
        "Python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "ssh": _version("ssh", "-V"),
        "rsync": _version("rsync", "--version"),
        "tar": _version("tar", "--version"),
        "sh": str(Path(shutil.which("sh") or "sh").resolve()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 1e9:.0f} GB"


def _file_system() -> str:
    folder = os.environ.get("TMPDIR", "/tmp")
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _version(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        return "not installed"
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0].strip()
