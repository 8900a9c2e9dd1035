"""The examples that ship, trained as SageMaker training jobs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker import AwsCloud, Settings
from cvl.testing.sagemaker.cloud import missing
from cvl.tests.clouds import desk
from cvl.tests.scripts import DIGITS, NANOGPT, run
from cvl.tests.test_nanogpt import environment_of

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]
TOOLS = (
    *("bash", "sh", "env", "find", "grep", "sed", "tr", "head", "cat", "tar", "timeout"),
    *("mv", "rm", "cp", "mkdir", "touch", "dirname", "basename", "sleep"),
)
SMALL_GPT = (
    *("--n_layer", "2", "--n_head", "2", "--n_embd", "32", "--block_size", "32"),
    *("--batch_size", "8", "--max_iters", "20", "--eval_interval", "10", "--eval_iters", "2"),
)
SMALL = {DIGITS: ("--epochs", "6"), NANOGPT: SMALL_GPT}


@pytest.fixture(scope="module", params=[DIGITS, NANOGPT], ids=lambda path: path.name)
def example(request: pytest.FixtureRequest) -> Path:
    """An example whose packages are installed here. PyTorch takes gigabytes: only if asked for."""
    found: Path = request.param
    if found == NANOGPT and os.environ.get("CVL_TEST_TORCH") != "1":
        pytest.skip("CVL_TEST_TORCH=1 trains nanogpt, too")
    done = run(found / "python.sh", "-c", "pass", cwd=found, limit=1500)
    if done.returncode:
        pytest.skip(f"pip cannot install what {found.name} needs: {done.stderr[-500:]}")
    return found


@pytest.fixture(scope="module")
def image(
    example: Path, shared_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An image with this Python, the example's packages, and the few programs scripts need."""
    environment, name = environment_of(example), f"cvl-test/{example.name}"
    venv = environment.cache_folder(environment.read_pins())
    root = tmp_path_factory.mktemp("image")
    put_python(root, next((venv / "venv/lib").glob("python3*/site-packages")))
    put_programs(root)
    for folder in ("tmp", "root"):
        (root / folder).mkdir(exist_ok=True)
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as pack:
        subprocess.run(
            ["docker", "import", "--change", f"ENV PATH={sys.base_prefix}/bin:/bin", "-", name],
            stdin=pack.stdout,
            env={**os.environ, **shared_engine.env},
            check=True,
            timeout=900,
        )
    shutil.rmtree(root)
    yield name
    shared_engine.docker("rmi", "-f", name)


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


@pytest.fixture(scope="module")
def cloud(shared_engine: Engine) -> Iterator[AwsCloud]:
    if why := missing():
        pytest.skip(why)
    with AwsCloud(Settings(), engine=shared_engine) as running:
        yield running


def test_it_learns(
    cloud: AwsCloud, example: Path, image: str, shared_engine: Engine, tmp_path: Path
) -> None:
    calling = desk(tmp_path, cloud, image, engine=shared_engine)
    there = calling.repo / "examples/learning" / example.name
    shutil.copytree(example, there, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    with calling.start("run", *calling.options, example.name, "train", *SMALL[example]) as client:
        done = client.ended(1500)
    assert done.code == 0, (done.out[-2000:], done.err[-2000:])
    metrics = json.loads(calling.result("metrics.json"))
    if example == DIGITS:
        assert metrics["test"]["accuracy"] > 0.9
        assert f"accuracy {metrics['test']['accuracy']:.3f}".encode() in done.out
    else:
        losses = [each["validation_loss"] for each in metrics["evaluations"]]
        assert losses[-1] < losses[0]
    assert calling.result({DIGITS: "model.npz", NANOGPT: "checkpoint.pt"}[example])
