"""The examples that ship, trained as SageMaker training jobs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker import AwsCloud, Settings
from cvl.testing.sagemaker.cloud import missing
from cvl.tests.clouds import desk
from cvl.tests.images import image_of
from cvl.tests.scripts import DIGITS, NANOGPT, run

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]
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
    with image_of(example, shared_engine, tmp_path_factory.mktemp("image")) as name:
        yield name


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
