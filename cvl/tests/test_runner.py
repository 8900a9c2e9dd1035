"""What cvl promises, runner by runner: one command, live output, the script's own exit code,
results back on disk, and nothing left behind.

Each check in `cvl.testing.conformance` is one sentence of that promise; each runner joins with a
line or two that says how it is called.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvl.cli import main
from cvl.testing.cli_harness import Desk
from cvl.testing.conformance import CHECKS, Check
from cvl.testing.sshd import Sshd

RUNNERS = {
    "local": ("--local",),
    "ssh": ("--ssh", "testhost"),
    "docker": ("--docker", "testhost"),
}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_promise(check: Check, runner: str, host: Sshd, tmp_path: Path) -> None:
    check(Desk(folder=tmp_path, options=RUNNERS[runner], env=host.env))


ARGUMENT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
HOSTILE = st.sampled_from(
    ["", "-", "--", "-x", "--help", "--ssh=x", "'", '"', "$(id)", "`id`", "${x}", "\\", "\n", "*"]
)


@pytest.mark.parametrize("runner", RUNNERS)
def test_any_arguments(
    runner: str,
    host: Sshd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Any words arrive byte for byte; a `--` that stands first is dropped, but only one."""
    desk = Desk(folder=tmp_path, options=RUNNERS[runner], env=host.env)
    monkeypatch.chdir(desk.repo)
    for name, value in desk.environment.items():
        monkeypatch.setenv(name, value)

    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(ARGUMENT | HOSTILE, max_size=12))
    def arrive(words: list[str]) -> None:
        code = main(["run", *desk.options, "-q", "one", "args", *words])
        there = words[1:] if words[:1] == ["--"] else words
        whole = b"".join(word.encode() + b"\0" for word in there)
        assert (code, *capfdbinary.readouterr()) == (0, whole, b"")

    arrive()
