"""The examples that ship: what they say of themselves, and digits trained for real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import zlib
from pathlib import Path

import pytest
import yaml

from cvl.tests.scripts import (
    DIGITS,
    EXAMPLES,
    NANOGPT,
    load_json,
    read_until,
    run,
    started,
    succeed,
)

BOTH = pytest.mark.parametrize("example", [DIGITS, NANOGPT], ids=lambda path: path.name)


@BOTH
def test_the_yaml_is_complete_and_its_scripts_are_there(example: Path) -> None:
    about = yaml.safe_load((example / "example.yaml").read_text(encoding="utf-8"))
    assert about["name"] == example.name
    assert about["capability"] == str(example.parent.relative_to(EXAMPLES))
    assert about["stability"] in {"stable", "beta", "alpha", "experimental"}
    for key in ("description", "image", "resources", "verification"):
        assert about[key], key
    for key in ("modalities", "datasets", "tags", "tasks", "frameworks"):
        assert all(isinstance(word, str) for word in about[key]), key
    assert {"build", "train"} < set(about["presets"])
    for preset in about["presets"].values():
        assert preset["description"]
        assert os.access(example / preset["script"], os.X_OK)


@BOTH
def test_every_requirement_is_pinned(example: Path) -> None:
    lines = (example / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line)] == []


@pytest.mark.parametrize(
    "name", ["python.sh", "environment.py", "build.sh", "Dockerfile", ".gitignore", ".dockerignore"]
)
def test_what_both_need_is_the_same_in_both(name: str) -> None:
    assert (DIGITS / name).read_bytes() == (NANOGPT / name).read_bytes()


@BOTH
def test_the_readme_names_only_options_that_exist(example: Path) -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in example.glob("*.py"))
    options = set(re.findall(r"(?<=[ `])--[a-z_-]+", (example / "README.md").read_text("utf-8")))
    ours = {"--ssh", "--help", "--init"}
    assert [option for option in options - ours if f'"{option}"' not in code] == []


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with its packages installed."""
    example = tmp_path_factory.mktemp("examples") / "digits"
    shutil.copytree(DIGITS, example, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    done = run(example / "python.sh", "-c", "pass", cwd=example, limit=500)
    if done.returncode:
        pytest.skip(f"pip cannot install what digits needs: {done.stderr[-500:]}")
    return example


@pytest.mark.timeout(600)
def test_digits_learns_and_says_so(digits: Path) -> None:
    lines = succeed(run(digits / "train.sh", "--epochs", "12", cwd=digits)).splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 12
    metrics = load_json(digits / "outputs" / "metrics.json")
    epochs, test = metrics["epochs"], metrics["test"]
    assert isinstance(epochs, list)
    assert isinstance(test, dict)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 13))
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] / 4
    assert epochs[-1]["validation_accuracy"] > 0.95
    assert test["accuracy"] > 0.95
    assert sum(map(sum, test["confusion_matrix"])) == 300
    assert f"accuracy {test['accuracy']:.3f}" in lines[-3]
    assert png_size(digits / "outputs" / "confusion_matrix.png") == (484, 484)
    assert sorted(path.name for path in (digits / "outputs").iterdir()) == [
        "confusion_matrix.png", "metrics.json", "model.npz",
    ]  # fmt: skip


def png_size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG after checking every chunk and every row (PNG 3, 5)."""
    raw, at, rows, size = path.read_bytes(), 8, b"", (0, 0)
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(raw):
        (length,) = struct.unpack(">I", raw[at : at + 4])
        kind, body = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", raw[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        rows += body if kind == b"IDAT" else b""
        at += 12 + length
    assert len(zlib.decompress(rows)) == size[1] * (1 + 3 * size[0])
    return size


@pytest.mark.timeout(600)
def test_digits_is_decided_by_its_seed_and_judged_the_same_later(
    digits: Path, tmp_path: Path
) -> None:
    for folder, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        train = ("--epochs", "2", "--seed", seed, "--output-dir", folder)
        succeed(run(digits / "train.sh", *train, cwd=digits, env={"CVL_WORK_DIR": str(tmp_path)}))
    a, b, c = (load_json(tmp_path / folder / "metrics.json") for folder in "abc")
    assert a == b
    assert a["epochs"] != c["epochs"]
    judge = ("--model", "a/model.npz", "--output-dir", "d")
    succeed(run(digits / "evaluate.sh", *judge, cwd=tmp_path))
    assert load_json(tmp_path / "d" / "evaluation.json") == a["test"]


@pytest.mark.timeout(600)
def test_digits_that_is_stopped_leaves_what_it_has(digits: Path, tmp_path: Path) -> None:
    endless = ("--epochs", "1000000", "--output-dir", str(tmp_path))
    with started(digits / "train.sh", *endless, cwd=tmp_path) as process:
        read_until(process, "epoch       3/")
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM
    epochs = load_json(tmp_path / "metrics.json")["epochs"]
    assert isinstance(epochs, list)
    assert len(epochs) >= 2
    model = ("--model", "model.npz", "--output-dir", "judged")
    succeed(run(digits / "evaluate.sh", *model, cwd=tmp_path))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "args", "code", "message"),
    [
        ("train.sh", ("--epochs", "0"), 2, "0 is not 1 or more"),
        ("train.sh", ("--epoch5", "3"), 2, "unrecognized arguments"),
        ("evaluate.sh", ("--model", "nowhere.npz"), 1, "There is no model at nowhere.npz"),
    ],
)
def test_digits_says_what_is_wrong(
    digits: Path, tmp_path: Path, script: str, args: tuple[str, ...], code: int, message: str
) -> None:
    done = run(digits / script, *args, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
