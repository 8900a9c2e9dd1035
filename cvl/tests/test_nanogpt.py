"""nanogpt trained for real: it learns, goes on after any end, and many learn what one learns."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
from pathlib import Path
from types import ModuleType

import pytest

from cvl.tests.scripts import LIMIT, NANOGPT, load_json, read_until, run, started, succeed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SMALL = (
    *("--n_layer", "2", "--n_head", "2", "--n_embd", "32", "--block_size", "32"),
    *("--batch_size", "8", "--dropout", "0.1", "--lr", "0.003", "--warmup_iters", "5"),
    *("--eval_iters", "2", "--eval_interval", "20", "--max_iters", "120"),
)


def environment_of(example: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", example / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nanogpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example. PyTorch takes a gigabyte: it is installed only if asked for."""
    environment = environment_of(NANOGPT)
    pins = environment.read_pins()
    have = (
        all(map(environment.is_installed, pins))
        or (environment.cache_folder(pins) / "ready").exists()
    )
    if not have and os.environ.get("CVL_TEST_TORCH") != "1":
        pytest.skip("PyTorch is not installed for nanogpt: CVL_TEST_TORCH=1 installs it")
    example = tmp_path_factory.mktemp("examples") / "nanogpt"
    shutil.copytree(NANOGPT, example, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    done = run(example / "python.sh", "-c", "pass", cwd=example, limit=1500)
    if done.returncode:
        pytest.skip(f"pip cannot install what nanogpt needs: {done.stderr[-500:]}")
    return example


@pytest.fixture(scope="module")
def uninterrupted(nanogpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a small training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    succeed(run(nanogpt / "train.sh", *SMALL, "--output_dir", str(folder), cwd=folder))
    return folder


def evaluations(folder: Path) -> list[dict[str, float]]:
    found = load_json(folder / "metrics.json")["evaluations"]
    assert isinstance(found, list)
    return found


def sample(nanogpt: Path, folder: Path) -> str:
    options = ("--checkpoint", "checkpoint.pt", "--start", "Alice ", "--length", "40")
    return succeed(run(nanogpt / "sample.sh", *options, cwd=folder))


def test_nanogpt_learns_and_writes(nanogpt: Path, uninterrupted: Path) -> None:
    found = evaluations(uninterrupted)
    assert [e["iteration"] for e in found] == list(range(0, 121, 20))
    assert found[-1]["validation_loss"] < found[0]["validation_loss"] - 1
    written = sample(nanogpt, uninterrupted)
    assert written.startswith("Alice ")
    assert len(written) == len("Alice ") + 40 + len("\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nanogpt_resumed_is_as_if_it_had_never_stopped(
    nanogpt: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    options = (*SMALL, "--output_dir", str(tmp_path))
    with started(nanogpt / "train.sh", *options, cwd=tmp_path) as process:
        read_until(process, "iteration  30/120")
        process.send_signal(number)
        code = process.wait(timeout=30)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert len(evaluations(tmp_path)) < len(evaluations(uninterrupted))
    resumed = succeed(run(nanogpt / "train.sh", *options, "--resume", cwd=tmp_path))
    assert "Going on from" in resumed
    assert evaluations(tmp_path) == evaluations(uninterrupted)
    assert sample(nanogpt, tmp_path) == sample(nanogpt, uninterrupted)


def test_nanogpt_on_two_nodes_learns_what_one_learns(nanogpt: Path, tmp_path: Path) -> None:
    options = (*SMALL, "--dropout", "0", "--max_iters", "40")
    succeed(run(nanogpt / "train.sh", *options, "--output_dir", "one", cwd=tmp_path))
    nodes = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    two = (*options, "--output_dir", "two")
    with (
        started(nanogpt / "train.sh", *two, cwd=tmp_path, env=nodes | {"NODE_RANK": "0"}) as first,
        started(nanogpt / "train.sh", *two, cwd=tmp_path, env=nodes | {"NODE_RANK": "1"}) as second,
    ):
        outputs = [process.communicate(timeout=LIMIT)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "2 process(es)" in outputs[0]
    assert "iteration" not in outputs[1]
    for ours, theirs in zip(
        evaluations(tmp_path / "one"), evaluations(tmp_path / "two"), strict=True
    ):
        assert theirs == pytest.approx(ours, rel=1e-5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.mark.parametrize(
    ("script", "args", "code", "message"),
    [
        ("train.sh", ("--data", "nowhere.txt"), 2, "there is no file nowhere.txt"),
        ("train.sh", ("--data", "short.txt"), 1, "short.txt is too short"),
        ("train.sh", ("--resume", "checkpoint.pt"), 1, "holds another model"),
        ("train.sh", ("--n_embd", "30"), 2, "must be a multiple of --n_head"),
        ("sample.sh", ("--checkpoint", "checkpoint.pt", "--start", "é"), 1, "never seen: ['é']"),
    ],
)
def test_nanogpt_says_what_is_wrong(
    nanogpt: Path, uninterrupted: Path, tmp_path: Path,
    script: str, args: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    shutil.copy(uninterrupted / "checkpoint.pt", tmp_path)
    (tmp_path / "short.txt").write_text("too short")
    done = run(nanogpt / script, *args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
