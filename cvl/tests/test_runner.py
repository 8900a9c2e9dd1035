"""What cvl promises, runner by runner: one command, live output, the script's own exit code,
results back on disk, and nothing left behind.

Each check in `cvl.testing.conformance` is one sentence of that promise; each runner joins with a
line or two that says how it is called.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cvl.testing.conformance import CHECKS, Check
from cvl.testing.desk import Desk
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
