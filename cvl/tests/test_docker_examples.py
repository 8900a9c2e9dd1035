"""Examples as they are found in the wild, in small: what their scripts reach for is there.

The shapes are those of a large public collection of examples: scripts that climb to the
repository's root or ask git for it, mount it read-only, mount cache folders that they never make,
use a sibling's files, and leave what containers wrote as root.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Desk, Done
from cvl.testing.docker_engine import Engine
from cvl.testing.sshd import Sshd

pytestmark = pytest.mark.docker

HEAD = """\
#!/usr/bin/env bash
set -euo pipefail
SCRIPT_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
IMG="${CVL_IMAGE:-@image@}"
"""
CLIMBING = 'REPO_ROOT="$(cd "$SCRIPT_DIR/../../../.." && pwd)"\n'
ASKING = 'REPO_ROOT="$(git rev-parse --show-toplevel)"\n'
RUN = """\
WORK_DIR="${CVL_WORK_DIR:-$(pwd)}"
docker run --rm \\
	${CVL_CONTAINER_NAME:+--name "$CVL_CONTAINER_NAME"} \\
	--workdir /workspace \\
	--mount "type=bind,src=${SCRIPT_DIR},dst=/workspace" \\
	--mount "type=bind,src=${REPO_ROOT},dst=/cvlization_repo,readonly" \\
	--mount "type=bind,src=${HOME}/.cache/huggingface,dst=/root/.cache/huggingface" \\
	--mount "type=bind,src=${HOME}/.cache/cvlization,dst=/root/.cache/cvlization" \\
	--mount "type=bind,src=${HOME}/.cache/torch,dst=/root/.cache/torch" \\
	--mount "type=bind,src=${WORK_DIR},dst=/mnt/cvl/workspace" \\
	--env "CVL_OUTPUTS=/mnt/cvl/workspace" --env "PYTHONPATH=/cvlization_repo" \\
	${HF_TOKEN:+-e HF_TOKEN} \\
	"$IMG" sh predict.in "$@"
"""
INSIDE = """\
set -eu
cat "$PYTHONPATH/cvlization/paths.py" /cvlization_repo/shared/data.txt
cat /cvlization_repo/examples/vision/language/test_images/a.txt
if (echo >/cvlization_repo/x) 2>/dev/null; then echo the repository can be written; fi
echo "args: $*; token: ${HF_TOKEN-none}"
mkdir -p outputs; echo model >outputs/model.bin; echo cached >/root/.cache/torch/x
echo text >"$CVL_OUTPUTS/result.txt"
"""
YAML = """\
name: @name@
capability: vision/language
image: @image@
presets:
@presets@
resources: {gpu: 0, disk_gb: 1}
"""
MAPPING = "  build: {script: build.sh}\n  predict: {script: predict.sh}"
LISTS = "  build: [build.sh]\n  predict: [predict.sh]"
NAMES = "- build\n- predict"
LINE = (
    "  build: {script: build.sh}\n  predict:\n    script: GREETING=hello predict.sh -- --stage one"
)


def write(repo: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)  # scripts are run by bash whether they may be executed or not


def collection(repo: Path, image: str, script: str, presets: str, folder: str) -> None:
    """Write a repository with one example, what it reaches for, and what must not travel."""
    build = 'docker build -t @image@ "$SCRIPT_DIR" 2>&1\n'
    example = {
        "example.yaml": YAML.replace("@presets@", presets).replace("@name@", Path(folder).name),
        "Dockerfile": "FROM cvl-test/busybox\nLABEL made=here\n",
        "build.sh": HEAD + build,
        "predict.sh": HEAD + "TESTS=$SCRIPT_DIR/../test_images\nls $TESTS >/dev/null\n" + script,
        "predict.in": INSIDE,
        ".gitignore": "outputs/\n*.txt\n",
        "requirements.txt": "tracked though it is ignored\n",
        "outputs/old.bin": "of an earlier run",
        ".env": "SECRET=1",
    }
    write(repo / folder, {name: text.replace("@image@", image) for name, text in example.items()})
    write(
        repo,
        {
            "cvlization/paths.py": "package\n",
            "cvlization/__init__.py": "",
            "shared/data.txt": "shared\n",
            "examples/vision/language/test_images/a.txt": "image\n",
            f"{Path(folder).parent}/test_images/a.txt": "image\n",
            "examples/vision/language/other/example.yaml": "name: other\n",
            "examples/vision/language/other/large.bin": "nobody asked for it",
            "README.md": "# A collection\n",
        },
    )


def committed(repo: Path) -> None:
    for words in (
        ("init", "-q"),
        ("add", "-f", "-A", ":!:**/outputs/*", ":!:**/.env"),
        ("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "-m", "all"),
    ):
        subprocess.run(["git", *words], cwd=repo, check=True, capture_output=True)


@pytest.fixture
def desk(docker_host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=("--docker", "testhost"), env=docker_host.env)


@pytest.mark.parametrize("checkout", [True, False], ids=["checkout", "plain"])
@pytest.mark.parametrize(
    ("root", "presets", "folder"),
    [
        (CLIMBING, MAPPING, "examples/vision/language/climber"),
        (
            CLIMBING.replace("../../../..", "../../../../.."),
            LISTS,
            "examples/vision/language/sub/deep",
        ),
        (ASKING, NAMES, "examples/vision/language/asker"),
        (ASKING, LINE, "examples/vision/language/liner"),
    ],
    ids=["climbing", "deeper", "asking git", "a line"],
)
def test_an_example_finds_all_that_it_reaches_for(
    desk: Desk, shared_engine: Engine, root: str, presets: str, folder: str, checkout: bool
) -> None:
    image = f"cvlization/{Path(folder).name}-{'git' if checkout else 'plain'}"
    script = root + ": $REPO_ROOT/shared/data.txt\n" + RUN
    collection(desk.repo, image, script, presets, folder)
    if checkout:
        committed(desk.repo)
    done = desk.cvl(
        "run",
        *desk.options,
        "-e",
        "HF_TOKEN=hf",
        Path(folder).name,
        "predict",
        "--name",
        "a b",
    )
    assert done.code == 0, (done.out, done.err)
    stage = "--stage one " if presets == LINE else ""
    assert done.out.endswith(
        f"package\nshared\nimage\nargs: {stage}--name a b; token: hf\n".encode()
    )
    assert (desk.result("model.bin"), desk.result("result.txt")) == (b"model\n", b"text\n")
    landed = {path.name for path in (desk.repo / "cvl-runs").rglob("*") if path.is_file()}
    assert landed == {"model.bin", "result.txt"}
    assert shared_engine.containers() == []


def test_what_does_not_belong_stays_here(desk: Desk) -> None:
    folder = "examples/vision/language/lister"
    collection(desk.repo, "x", "find . ../../../.. -type f\n", MAPPING, folder)
    committed(desk.repo)
    done = listing(desk)
    assert b"./requirements.txt" in done.out
    for name in (b"old.bin", b".env", b"large.bin"):
        assert name not in done.out


def listing(desk: Desk) -> Done:
    done = desk.cvl("run", *desk.options, "--build", "never", "lister", "predict")
    assert done.code == 0, done.err
    return done
