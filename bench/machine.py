"""The machine that the figures are from."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

SPACE = 12e9
"""Bytes that must be free in memory for the files of the measurements to lie there."""
MEMORY = Path("/dev/shm")


def place() -> Path:
    """Return where temporary files go: to memory where it has the space.

    The hosts are this machine as well, so what they write and what is written here would share
    one disk, as it never does elsewhere; and a virtual disk stalls when it likes. On ext4, making
    files takes ten times as long for minutes after many were removed.
    """
    try:
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        free = 0
    return MEMORY if free >= SPACE else Path(tempfile.gettempdir())


def described(folder: Path) -> dict[str, str]:
    """Return what of this machine and its programs bears on the figures; `folder` is in use."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "load before": f"{os.getloadavg()[0]:.1f} (1 minute), {os.getloadavg()[1]:.1f} (5)",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "temporary files": _file_system(folder),
        "the ledger's files": _file_system(Path(tempfile.gettempdir())),
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


def _file_system(folder: Path) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _version(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        return "not installed"
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0].strip()
