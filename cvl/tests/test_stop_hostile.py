"""`cvl stop` of several runs on hosts of the user's own, of which one answers nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvl.testing import hostile
from cvl.testing.desk import Desk
from cvl.testing.hostile import HostileHost


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["garbage-result", "garbage"])
def test_what_cannot_be_read_is_no_success_and_stops_no_other(tmp_path: Path, name: str) -> None:
    with hostile.host(tmp_path / "bad") as bad, hostile.host(tmp_path / "good") as good:
        first, second = detached(tmp_path, bad), detached(tmp_path, good)
        desk = desk_of(tmp_path, good)
        bad.login.turn(name)
        done = desk.cvl("stop", first, second, "--grace", "1s")
        assert done.code == 125
        assert f"`cvl stop {first}` tries again" in done.err
        assert f"{first} is stopped" not in done.err
        assert f"{second} is stopped" in done.err
        assert "defect" not in done.err
        bad.login.reform()
        assert desk.cvl("stop", first, "--grace", "1s").code == 0


def desk_of(folder: Path, there: HostileHost) -> Desk:
    options = ("--ssh", there.sshd.name)
    env = {"CVL_SSH_CONFIG": str(there.sshd.ssh_config)}
    return Desk(folder=folder, options=options, env=env, left=lambda _run: ())


def detached(folder: Path, there: HostileHost) -> str:
    done = desk_of(folder, there).sh("sleep 300", "-d")
    assert done.code == 0, done.err
    return done.out.decode().strip()
