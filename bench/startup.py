"""Start-up: how long a command takes that does next to nothing."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from bench import commands, rivals
from bench.cvls import Cvl
from bench.ledgers import filled
from bench.pairs import in_turns
from bench.profiles import imports
from bench.values import Goal, Measure, Sample, Topic
from bench.work import Work

BASE = "python -c pass"
RIVALS = {
    "aws": "awscli",
    "torchx": "torchx",
    "modal": "modal",
    "dstack": "dstack",
    "sky": "skypilot",
}
"""Program -> the package that it comes in."""
REASONS = {
    "cvl": "Milliseconds are this machine's, at the load that it had: beside them stands what a "
    "bare `python -c pass` took. Most of it is loading Python, click and what is below.",
}
YAML = """\
name: {name}
docker: {name}
capability: vision/task-{number}
description: Trains a small model of kind {number} on a public data set, and looks at what it does.
stability: beta
tags: [vision, training, kind-{number}]
resources: {{gpu: 1, vram_gb: 8, disk_gb: 20}}
presets:
  build: {{script: build.sh, description: Build the image.}}
  train: {{script: train.sh, description: Train the model.}}
  predict:
    script: predict.sh
    description: Show what the model makes of a few examples.
"""


def measure(work: Work) -> Topic:
    """Measure `--version`, `--help`, `list` and `ps` beside other tools' `--version`."""
    topic = Topic(
        name="startup",
        title="Start-up",
        question="How long does a command take that does next to nothing?",
    )
    root, count = examples(work.folder / "repo", work.sizes.examples), work.sizes.past_runs
    filled(work.folder / "state" / "ledger.db", count)
    goals: dict[str, Goal] = {}
    measures: dict[str, Measure] = {BASE: partial(commands.timed, [sys.executable, "-c", "pass"])}
    for cvl in work.cvls:
        env = cvl.environment(CVL_ROOT=str(root), CVL_STATE_DIR=str(work.folder / "state"))
        for words, limit, ratio in (
            ("--version", 2.5, True),
            ("--help", 0.0, False),
            ("list", 150.0, False),
            ("ps", 150.0, False),
        ):
            name = cvl.called(words)
            measures[name] = partial(commands.timed, [cvl.program, *words.split()], env)
            if limit and not cvl.name:
                goals[name] = Goal(limit=limit, ratio=ratio)
    if work.rivals:
        for program, package in RIVALS.items():
            measures[f"{program} --version"] = _rival(package, program)
    found = in_turns(measures, rounds=work.sizes.rounds, seconds=work.seconds)
    topic.missing = found.missing
    note = f"`list` reads {work.sizes.examples} examples; the ledger of `ps` holds {count:,} runs."
    topic.tables = [
        found.table("Wall clock", "s", "ms", BASE, goals, scale=1000, note=note),
        found.table("Processor time", "cpu_s", "ms", BASE, scale=1000),
    ]
    topic.reasons = REASONS
    if topic.missed():
        topic.profiles["imports of `cvl ps`"] = imports(_now(work), "cvl.cli.ps")
        topic.profiles["imports of `cvl list`"] = imports(_now(work), "cvl.cli.examples")
    topic.notes = [f"{name} {rivals.version(name)}" for name in RIVALS.values() if work.rivals]
    return topic


def examples(root: Path, count: int) -> Path:
    """Make a repository with so many examples; return it."""
    for number in range(count):
        folder = root / "examples" / f"area-{number % 7}" / f"task-{number:03d}"
        folder.mkdir(parents=True)
        text = YAML.format(name=f"task-{number:03d}", number=number)
        (folder / "example.yaml").write_text(text)
        for script in ("build.sh", "train.sh", "predict.sh"):
            (folder / script).write_text("echo hello\n")
    return root


def _rival(package: str, program: str) -> Measure:
    """Return a measure that looks for the program when it is first called."""

    def take() -> Sample:
        return commands.timed([rivals.rival(package, program), "--version"])

    return take


def _now(work: Work) -> Cvl:
    return work.cvls[0]
