"""Run Python with exactly the packages that requirements.txt pins.

usage: python3 environment.py ARGS...      as for python3

An interpreter that already has them is used as it is. Otherwise they are installed into a virtual
environment under ~/.cache/cvl/venvs, named by what it must contain: built once, by whoever comes
first, and kept. Delete that folder whenever you like.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
OLDEST = (3, 11)
SET_UP_LIMIT = 3600
"""Seconds that an installation, ours or the one that we wait for, may take."""


def main() -> None:
    """Replace this process by the right Python, so that signals and the exit code are its own."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed here (or Docker); "
            f"{sys.executable} is {platform.python_version()}."
        )
    pins = read_pins()
    python = sys.executable if all(map(is_installed, pins)) else str(cached_python(pins))
    os.execv(python, [python, *sys.argv[1:]])


def read_pins() -> list[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def is_installed(pin: str) -> bool:
    """Whether `name==version` is here; a local version such as 2.13.0+cpu counts as 2.13.0."""
    name, version = pin.split("==")
    try:
        return importlib.metadata.version(name).split("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


def cached_python(pins: list[str]) -> Path:
    """Return the interpreter of the environment with `pins`, made first if it is not there."""
    home = cache_folder(pins)
    home.mkdir(parents=True, exist_ok=True)
    python, ready = home / "venv" / "bin" / "python", home / "ready"
    with (home / "lock").open("w") as lock:
        acquire(lock)
        if not (ready.exists() and os.access(python, os.X_OK)):
            ready.unlink(missing_ok=True)
            build(home / "venv", pins, lock)
            ready.touch()
    return python


def cache_folder(pins: list[str]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    contents = "\n".join([*sorted(pins), sys.version, sys.base_prefix, platform.machine()])
    return cache / "cvl" / "venvs" / hashlib.sha256(contents.encode()).hexdigest()[:16]


def acquire(lock: IO[str]) -> None:
    """Lock the file, which the kernel unlocks when we and our installers are gone."""
    deadline = time.monotonic() + SET_UP_LIMIT
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return
        if time.monotonic() > deadline:
            sys.exit(f"Another process has held {lock.name} for too long.")
        if not told:
            say("Waiting for another process that installs the same packages")
            told = True
        time.sleep(0.2)


def build(venv: Path, pins: list[str], lock: IO[str]) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            "python3 cannot make virtual environments here. "
            "On Debian and Ubuntu: apt-get install python3-venv"
        )
    say(f"Installing {', '.join(pins)} into {venv}, once")
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(venv)], lock)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run([*pip, "install", "--quiet", "--progress-bar", "off", *pins], lock)


def run(command: list[str], lock: IO[str]) -> None:
    """Run an installer that holds the lock too: should we be killed, nobody gets in its way."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=[lock.fileno()],
        timeout=SET_UP_LIMIT,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"Could not install the packages: {' '.join(command)} ended with {done.returncode}."
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
