"""Many at once: runs on one host do not disturb each other, and share one ledger."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd

CROWD = 20


@pytest.mark.parametrize("options", [("--ssh", "testhost"), ("--local",)], ids=["ssh", "local"])
def test_twenty_at_once(options: tuple[str, ...], host: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=options, env=host.env)
    script = (
        'seq 1 3000 | sed "s/^/$1 /"; echo "$1" >"$CVL_WORK_DIR/result"; '
        'test "$(ls "$CVL_WORK_DIR")" = result || exit 99; exit $1'
    )
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                desk.start("run", *options, "-o", f"out/{n}", "one", "sh", f"set -- {n}; {script}")
            )
            for n in range(CROWD)
        ]
        for n, client in enumerate(clients):
            done = client.ended()
            assert done.code == n, done.err
            assert _digest(done.out) == _digest("".join(f"{n} {i}\n" for i in range(1, 3001)))
            (result,) = (desk.repo / "out" / str(n)).rglob("result")
            assert result.read_text() == f"{n}\n"
    runs = desk.ps()
    assert sorted(str(run["exit_code"]) for run in runs) == sorted(map(str, range(CROWD)))
    assert {run["state"] for run in runs} == {"ended"}
    assert [desk.left(str(run["id"])) for run in runs] == [[]] * CROWD


def _digest(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
