"""What a contributor is promised: a list of targets, the same checks everywhere, a changelog."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml

from cvl import __version__
from cvl.tests.pages import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="needs the source tree")

CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
"""The kinds that Keep a Changelog has."""


def make(*words: str) -> str:
    """What make prints when asked from a shell, also where these tests were started by make."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    env.pop("MFLAGS", None)
    done = subprocess.run(
        ["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_make_help_has_a_line_for_each_target() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z][\w-]*):(?!=)", text, re.MULTILINE)
    lines = [re.fullmatch(r"make (\S+) +(\S.*)", line) for line in make("help").splitlines()]
    assert [line and line[1] for line in lines] == targets
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    assert phony[1].split() == targets


def test_each_target_that_a_page_names_is_there() -> None:
    targets = {line.split()[1] for line in make("help").splitlines()}
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench/README.md"]
    for page in pages:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets, page


def test_a_commit_is_checked_by_the_lint_and_nothing_is_fetched_for_it() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [(repo["repo"], hook) for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo for repo, _ in hooks} == {"local"}
    assert {hook["language"] for _, hook in hooks} == {"system"}
    lint = [line for line in make("-n", "lint").splitlines() if not line.startswith("scripts/")]
    assert [hook["entry"] for _, hook in hooks] == lint
    assert all(hook["always_run"] and not hook["pass_filenames"] for _, hook in hooks)


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version), version
    assert versions[1:] == [] or f"[{__version__}]" in versions[1]
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= CHANGES
    for part in re.split(r"^##.*$", text, flags=re.MULTILINE)[2:]:
        assert part == "" or all(line.startswith("- ") for line in part.split("\n") if line), part
