"""An example that only the host knows: `--ssh` runs the host's own, in place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.cli_harness import FOLDER, Desk
from cvl.testing.sshd import Sshd


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Sshd]:
    """Give a host with an example in its home, which this desk does not have."""
    with Sshd(tmp_path / "host") as sshd:
        yield sshd


@pytest.fixture
def desk(there: Sshd, tmp_path: Path) -> Desk:
    desk = Desk(folder=tmp_path / "desk", options=("--ssh", "testhost"), env=there.env)
    theirs = there.home / "examples/theirs/other"
    shutil.copytree(desk.repo / FOLDER, theirs)
    text = (theirs / "example.yaml").read_text()
    (theirs / "example.yaml").write_text(text.replace("name: one", "name: other"))
    return desk


def test_the_hosts_own_example_runs_in_place(desk: Desk, there: Sshd) -> None:
    words = ["a b", "", "'", "--x", "é\n"]
    done = desk.cvl("run", *desk.options, "other", "args", *words)
    assert (done.code, done.out.decode()) == (0, "".join(f"{word}\0" for word in words)), done.err
    script = 'pwd; echo x >result; echo "$TOKEN"; exit 3'
    done = desk.cvl("run", *desk.options, "-e", "TOKEN=t", "other", "sh", script)
    place = there.home / "examples/theirs/other"
    assert (done.code, done.out.decode()) == (3, f"{place}\nt\n"), done.err
    assert desk.result("result") == b"x\n"
    (run, _) = desk.ps()
    assert (run["example"], run["preset"]) == ("examples/theirs/other", "sh")


def test_what_is_here_goes_first(desk: Desk, there: Sshd) -> None:
    shutil.copytree(desk.repo / FOLDER, there.home / FOLDER)
    (there.home / FOLDER / "sh.sh").write_text("echo theirs\n")
    assert desk.sh("echo ours").out == b"ours\n"


def test_unknown_on_both_sides(desk: Desk) -> None:
    done = desk.cvl("run", *desk.options, "onne", "sh", "exit 0")
    assert (done.code, done.out) == (2, b"")
    assert "'onne'" in done.err
    assert "testhost says" in done.err
    assert FOLDER in done.err, "what is near here is the hint"
    assert desk.ps() == []


def test_a_preset_that_the_hosts_example_lacks(desk: Desk) -> None:
    done = desk.cvl("run", *desk.options, "other", "nope")
    assert (done.code, done.out) == (2, b"")
    assert "'nope'" in done.err
    assert "presets: sh, args, gone" in done.err


def test_without_cvl_there_nobody_can_be_asked(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host", path="/usr/bin:/bin") as sshd:
        desk = Desk(folder=tmp_path / "desk", options=("--ssh", "testhost"), env=sshd.env)
        done = desk.cvl("run", *desk.options, "--no-setup-cvl", "other", "sh")
        assert (done.code, done.out) == (125, b"")
        assert "other" in done.err
        assert "no cvl on testhost" in done.err
