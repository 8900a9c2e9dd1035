"""Hosts as they are: odd login shells, noise, no GNU tools, full or read-only disks, no Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvl.testing.cli_harness import Desk, Done
from cvl.testing.sshd import Sshd

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRIPT = "printf 'a b\\n'; echo x >result; exit 3"
WORDS = ["it's", 'a "b"', "$HOME", "", "é"]


@contextmanager
def on_a_disk(folder: Path, options: str) -> Iterator[Sshd]:
    """Give a host whose home is a disk of its own; skips where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "cvl-test", str(disk)]
    if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        with Sshd(folder / "host", home=disk) as sshd:
            yield sshd
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def desk_at(sshd: Sshd, folder: Path, flag: str) -> Desk:
    return Desk(folder=folder / "desk", options=(flag, "testhost"), env=sshd.env)


def works(desk: Desk) -> None:
    """See a run go right, from its arguments to its results."""
    done = desk.sh(SCRIPT)
    assert (done.code, done.out) == (3, b"a b\n"), done
    assert desk.result("result") == b"x\n"
    done = desk.cvl("run", *desk.options, "one", "args", *WORDS)
    assert done.out == b"".join(os.fsencode(word) + b"\0" for word in WORDS)
    again = desk.sh("sleep 1000", "--timeout", "0.5s", "--grace", "0s")
    assert again.code == 124
    assert desk.left(desk.runs()[0]) == []


def refused(done: Done, *words: str) -> None:
    """See the exit code 125, no output, and these words in one sentence and a hint."""
    assert (done.code, done.out) == (125, b""), done
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["cvl", "hint"], done.err
    for word in words:
        assert word in done.err, done.err


@pytest.mark.parametrize(
    ("shell", "flag"),
    [
        ("fish", "--ssh"),
        ("fish", "--docker"),
        ("tcsh", "--ssh"),
        ("tcsh", "--docker"),
        ("busybox sh", "--docker"),
        ("zsh", "--ssh"),
        ("mksh", "--docker"),
        ("yash", "--docker"),
        ("ksh", "--docker"),
    ],
)
def test_any_login_shell(shell: str, flag: str, tmp_path: Path) -> None:
    found = shutil.which(shell.split(maxsplit=1)[0])
    if found is None:
        pytest.skip(f"{shell} is not installed")
    with Sshd(tmp_path / "host", shell=" ".join([found, *shell.split()[1:]])) as sshd:
        works(desk_at(sshd, tmp_path, flag))


@pytest.mark.parametrize("flag", ["--ssh", "--docker"])
def test_a_login_shell_that_prints_a_banner(flag: str, tmp_path: Path) -> None:
    noise = "Welcome to the machine\ncvl:fake started\n" + "x" * 5000
    with Sshd(tmp_path / "host", noise=noise) as sshd:
        works(desk_at(sshd, tmp_path, flag))


def busybox(folder: Path) -> str:
    """Make a PATH with nothing on it but busybox."""
    folder.mkdir()
    there = shutil.which("busybox")
    if there is None:
        pytest.skip("busybox is not installed")
    for name in subprocess.check_output([there, "--list"], text=True).split():
        (folder / name).symlink_to(there)
    return str(folder)


def test_nothing_there_but_busybox(tmp_path: Path) -> None:
    path = busybox(tmp_path / "bin")
    with Sshd(tmp_path / "host", path=path, shell=f"{path}/sh") as sshd:
        desk = desk_at(sshd, tmp_path, "--docker")
        bash = shutil.which("bash")
        assert bash
        (tmp_path / "bin" / "bash").symlink_to(bash)
        works(desk)


def test_no_python_there(tmp_path: Path) -> None:
    path = busybox(tmp_path / "bin")
    with Sshd(tmp_path / "host", path=path, shell=f"{path}/sh") as sshd:
        desk = desk_at(sshd, tmp_path, "--ssh")
        refused(desk.sh("exit 0"), "python", "--docker HOST")
        assert [run["cause"] for run in desk.ps()] == ["not-started"]


def test_python_too_old_there(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (tools / name).write_text("#!/bin/sh\necho old 3.8.10 /usr/bin/python3\n")
        (tools / name).chmod(0o755)
    with Sshd(tmp_path / "host", path=f"{tools}:{SYSTEM_PATH}") as sshd:
        desk = desk_at(sshd, tmp_path, "--ssh")
        refused(desk.sh("exit 0"), "3.8.10", "3.11", "--docker HOST")
        done = desk_at(sshd, tmp_path, "--docker").sh(SCRIPT)
        assert done.code == 3


def test_cvl_that_has_to_be_there_and_is_not(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host", path="/usr/bin:/bin") as sshd:
        desk = desk_at(sshd, tmp_path, "--ssh")
        refused(desk.sh("exit 0", "--no-setup-cvl"), "cvl is not installed on testhost", "--setup")
        assert desk.sh("exit 3").code == 3
        assert desk.sh("exit 4", "--no-setup-cvl").code == 4


@pytest.mark.parametrize("flag", ["--ssh", "--docker"])
def test_a_home_that_cannot_be_written(flag: str, tmp_path: Path) -> None:
    with on_a_disk(tmp_path, "ro") as sshd:
        desk = desk_at(sshd, tmp_path, flag)
        refused(desk.sh("exit 0"), "testhost", "write")
    assert [run["cause"] for run in desk.ps()] == ["not-started"]


def test_another_folder_where_the_home_cannot_be_written(tmp_path: Path) -> None:
    with on_a_disk(tmp_path, "ro") as sshd:
        desk = desk_at(sshd, tmp_path, "--docker")
        assert desk.sh("exit 3", "--remote-workdir", str(tmp_path / "there")).code == 3


@pytest.mark.parametrize("flag", ["--ssh", "--docker"])
@pytest.mark.parametrize("free", ["4k", "200k"])
def test_a_disk_without_room_for_us(flag: str, free: str, tmp_path: Path) -> None:
    with on_a_disk(tmp_path, f"size={free}") as sshd:
        desk = desk_at(sshd, tmp_path, flag)
        (desk.repo / "examples/conformance/one/big").write_bytes(os.urandom(400_000))
        refused(desk.sh("exit 0"), "testhost", "space")


@pytest.mark.parametrize("flag", ["--ssh", "--docker"])
def test_a_disk_that_the_job_fills(flag: str, tmp_path: Path) -> None:
    with on_a_disk(tmp_path, "size=12m") as sshd:
        desk = desk_at(sshd, tmp_path, flag)
        done = desk.sh("echo first; yes | head -c 30000000; exit 5")
        assert done.code == 5, done.err
        assert done.out.startswith(b"first\ny\ny\n")
        assert "disk" in done.err
        assert "full" in done.err
        assert desk.sh("exit 3").code == 3
