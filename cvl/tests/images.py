"""An image of one of the examples that ship, made of what is installed on this computer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvl.testing.docker_engine import Engine
from cvl.tests.test_nanogpt import environment_of

TOOLS = (
    *("bash", "sh", "env", "find", "grep", "sed", "tr", "head", "cat", "tar", "timeout"),
    *("mv", "rm", "cp", "mkdir", "touch", "dirname", "basename", "sleep"),
)


@contextmanager
def image_of(example: Path, engine: Engine, root: Path) -> Iterator[str]:
    """Make an image with this Python, the example's packages, and the few programs scripts need.

    `root` is an empty folder; it is removed. The packages have to be installed.
    """
    environment, name = environment_of(example), f"cvl-test/{example.name}"
    venv = environment.cache_folder(environment.read_pins())
    put_python(root, next((venv / "venv/lib").glob("python3*/site-packages")))
    put_programs(root)
    for folder in ("tmp", "root"):
        (root / folder).mkdir(exist_ok=True)
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as pack:
        subprocess.run(
            ["docker", "import", "--change", f"ENV PATH={sys.base_prefix}/bin:/bin", "-", name],
            stdin=pack.stdout,
            env={**os.environ, **engine.env},
            check=True,
            timeout=900,
        )
    shutil.rmtree(root)
    try:
        yield name
    finally:
        engine.docker("rmi", "-f", name)


def put_python(root: Path, packages: Path) -> None:
    """Put this Python at the very place where it is here: its libraries are looked for there."""
    base, place = Path(sys.base_prefix), root / sys.base_prefix[1:]
    inner = Path(sysconfig.get_path("stdlib")).relative_to(base)
    skip = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a")
    shutil.copytree(base / inner, place / inner, ignore=skip, symlinks=True)
    shutil.copytree(packages, place / inner / "site-packages", symlinks=True)
    (place / "bin").mkdir()
    shutil.copy(base / "bin/python3", place / "bin/python3")
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(library, place / "lib")


def put_programs(root: Path) -> None:
    (root / "bin").mkdir()
    (root / "usr").mkdir()
    (root / "usr/bin").symlink_to("../bin")
    files = [shutil.which(name) or name for name in TOOLS]
    for file in files:
        shutil.copy(file, root / "bin" / Path(file).name)
    extensions = [str(each) for each in root.rglob("*.so*") if each.is_file()]
    everything = [*files, str(root / sys.base_prefix[1:] / "bin/python3"), *extensions]
    told = subprocess.run(
        ["ldd", *everything], capture_output=True, text=True, check=False, timeout=300
    )
    for word in set(told.stdout.split()):
        if word.startswith(("/lib", "/usr/lib")) and not (root / word[1:]).exists():
            (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, root / word[1:])
