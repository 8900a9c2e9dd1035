"""The wheel: cvl and its examples, and of the tests' world what pages name, whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.tests import imports
from cvl.tests.test_extras import ABSENT
from cvl.tests.test_stand_ins import NEEDS

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "pyproject.toml"
pytestmark = pytest.mark.skipif(not PROJECT.is_file(), reason="needs the source tree")

CONFORMANCE = "cvl.testing.conformance"
DIGITS = "cvl/_shipped/examples/perception/image_classification/digits"
IMPORTED = {"types-PyYAML": (), "types-jsonschema": (), "pytest-xdist": ("xdist",)}
"""Distributions that are not imported by their own name."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is installed by pip only while it builds")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as built:
        built.extractall(folder / "site")
    return folder / "site"


def documented() -> set[str]:
    """Return the modules that pages name for users: each stand-in whole, and the conformance."""
    starts = tuple(f"{name}." for name in NEEDS)
    return {CONFORMANCE, *NEEDS, *(name for name in imports.modules() if name.startswith(starts))}


def files(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_has_the_examples_and_not_the_tests(wheel: Path) -> None:
    names = set(files(wheel))
    assert {"cvl/host/shell/setup.sh", "cvl/py.typed", f"{DIGITS}/example.yaml"} <= names
    assert not [name for name in names if name.startswith("cvl/tests/") or "/outputs/" in name]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cvl"}


def test_of_the_tests_world_it_has_what_pages_name_and_whatever_that_imports(wheel: Path) -> None:
    wanted = {imports.modules()[name] for name in imports.reached(documented())}
    there = {name for name in files(wheel) if re.match(r"cvl/testing/.*\.py$", name)}
    names = {str(path.relative_to(ROOT)) for path in wanted}
    assert there == {name for name in names if name.startswith("cvl/testing/")}
    scripts = {path.name for path in wheel.glob("cvl/testing/*.sh")}
    assert scripts == {"docker_engine.sh", "machine.sh", "systemctl.sh"}


def test_what_it_has_needs_nothing_that_it_has_not(wheel: Path) -> None:
    """With the packages of the extra `testing` alone, away from the checkout, each one loads."""
    modules = sorted(name for name in imports.reached(documented()) if "__main__" not in name)
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name\n"
    )
    done = ran(wheel, "-c", code, str(wheel), *modules)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", NEEDS)
def test_each_stand_in_starts_from_it(wheel: Path, module: str) -> None:
    done = ran(wheel, "-m", module, "--help")
    assert done.stdout.startswith(f"usage: python -m {module}")
    assert (done.returncode, done.stderr) == (0, "")


def ran(wheel: Path, *words: str) -> subprocess.CompletedProcess[str]:
    absent = wheel.with_name("absent")
    absent.mkdir(exist_ok=True)
    (absent / "sitecustomize.py").write_text(ABSENT)
    path = os.pathsep.join([str(absent), str(wheel)])
    env = {**os.environ, "PYTHONPATH": path, "ABSENT": " ".join(only_for_us())}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=wheel, env=env
    )


def only_for_us() -> Iterator[str]:
    """Yield the packages that the extra `dev` has and `testing` has not."""
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    dev, testing = (
        {re.split(r"[\[=<>]", each)[0] for each in extras[e]} for e in ("dev", "testing")
    )
    for name in sorted(dev - testing - {"cvl"}):
        yield from IMPORTED.get(name, (name.replace("-", "_"),))
