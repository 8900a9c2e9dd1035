"""What git is asked, and that it starts nothing that a checkout names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cvl.core.errors import CvlError
from cvl.core.scope import Cancelled, Scope, signals
from cvl.core.spec import Source
from cvl.host.upload import git as git_module
from cvl.host.upload.git import Question, program
from cvl.host.upload.hashes import Hashes
from cvl.host.upload.repository_files import Listing
from cvl.host.upload.selection import select

SECRET = "a-key-of-ours"
PROGRAMS = (
    "core.fsmonitor",
    "core.sshCommand",
    "core.gitProxy",
    "core.askPass",
    "core.pager",
    "core.editor",
    "core.alternateRefsCommand",
    "pager.ls-files",
    "credential.helper",
    "diff.external",
    "diff.x.textconv",
    "filter.x.clean",
    "filter.x.smudge",
    "filter.x.process",
    "gpg.program",
    "remote.origin.uploadpack",
    "uploadpack.packObjectsHook",
    "trace2.eventTarget",
)
"""Settings that name a program, or would have git write."""


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    argv = ["git", "-C", str(root), *who, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "sub").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "sub/a.txt").write_text("a")
    (root / ".gitignore").write_text("*.log\n")
    (root / ".gitattributes").write_text("* filter=x diff=x\n")
    (root / "sub/b.log").write_text("b")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    return root


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that leaves its environment in a file beside it."""
    monkeypatch.setenv("LAMBDA_API_KEY", SECRET)
    program = tmp_path / "trap.sh"
    program.write_text(f"#!/bin/sh\nenv >>{tmp_path}/sprung\n")
    program.chmod(0o755)
    return program


def listed(root: Path) -> set[str]:
    output, complaint = Question(os.fsencode(root)).answer()
    assert complaint == ""
    return {os.fsdecode(name) for name in output.split(b"\0") if name}


def test_no_program_that_a_checkout_names_is_started(checkout: Path, trap: Path) -> None:
    for name in PROGRAMS:
        git(checkout, "config", name, str(trap))
    git(checkout, "config", "alias.ls-files", f"!{trap}")
    hooks = checkout / ".git/hooks"
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        shutil.copy(trap, hooks / hook)
    (checkout / "included").write_text(f"[core]\nfsmonitor = {trap}\nhooksPath = {hooks}\n")
    git(checkout, "config", "include.path", "../included")
    git(checkout, "config", "extensions.worktreeConfig", "true")
    (checkout / ".git/config.worktree").write_text(f"[core]\nfsmonitor = {trap}\n")
    (checkout / "sub/a.txt").write_text("changed")
    assert "sub/a.txt" in listed(checkout)
    assert not (trap.parent / "sprung").exists()


def test_no_missing_object_is_fetched(checkout: Path, trap: Path) -> None:
    """A `.gitignore` that only the index holds is read from an object, which a remote may have."""
    blob = git(checkout, "rev-parse", "HEAD:.gitignore").strip()
    git(checkout, "update-index", "--skip-worktree", ".gitignore")
    (checkout / ".gitignore").unlink()
    (checkout / ".git/objects" / blob[:2] / blob[2:]).unlink()
    git(checkout, "config", "core.repositoryFormatVersion", "1")
    git(checkout, "config", "extensions.partialClone", "origin")
    git(checkout, "config", "remote.origin.promisor", "true")
    git(checkout, "config", "protocol.ext.allow", "always")
    for url in (f"ext::{trap}", f"ssh://x/{trap}", str(checkout)):
        git(checkout, "config", "remote.origin.url", url)
        git(checkout, "config", "core.sshCommand", str(trap))
        git(checkout, "config", "remote.origin.uploadpack", str(trap))
        Question(os.fsencode(checkout)).answer()
        assert not (trap.parent / "sprung").exists()


def test_git_is_told_nothing_of_our_environment(
    checkout: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = trap.with_name("git")
    spy.write_text(trap.read_text())
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.fsmonitor'='true'")
    Question(os.fsencode(checkout)).answer()
    told = (trap.parent / "sprung").read_text()
    assert SECRET not in told
    assert "/nowhere" not in told
    assert "GIT_CONFIG" not in told


@pytest.mark.parametrize("path", [".", "", "bin", "./bin", ".:", ":"])
def test_no_git_is_taken_from_where_we_are(
    path: str, checkout: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "bin").mkdir()
    for place in (checkout / "git", checkout / "bin/git"):
        shutil.copy(trap, place)
    monkeypatch.chdir(checkout)
    real = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{path}:{real}")
    assert "sub/a.txt" in listed(checkout)
    assert program().startswith("/")
    assert not (trap.parent / "sprung").exists()


def test_files_lie_in_the_checkout_wherever_its_configuration_says(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/diary.txt").write_text("dear")
    git(checkout, "config", "core.worktree", str(tmp_path / "victim"))
    assert listed(checkout) == {".gitattributes", ".gitignore", "sub/a.txt"}
    assert listed(checkout / "sub") == {"a.txt"}


def test_a_git_folder_elsewhere_says_only_what_is_tracked(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "own.txt").write_text("x")
    (other / ".git").write_text(f"gitdir: {checkout}/.git\n")
    listing = Listing(other)
    assert b"own.txt" in listing.paths
    assert all(b".." not in path.split(b"/") for path in listing.paths)


@pytest.mark.parametrize("kind", ["link", "worktree", "submodule", "subfolder", "gitlink"])
def test_honest_checkouts_of_every_kind_are_listed(kind: str, checkout: Path) -> None:
    top = checkout.parent
    match kind:
        case "link":
            (top / "link").symlink_to(checkout)
            place = top / "link"
        case "worktree":
            git(checkout, "worktree", "add", "-q", str(top / "tree"))
            place = top / "tree"
        case "submodule":
            git(top, "init", "-q", "outer")
            allow = ("-c", "protocol.file.allow=always")
            git(top / "outer", *allow, "submodule", "--quiet", "add", str(checkout), "inner")
            place = top / "outer/inner"
        case "gitlink":
            (checkout / ".git").rename(top / "elsewhere")
            (checkout / ".git").symlink_to(top / "elsewhere")
            place = checkout
        case _:
            place = checkout / "sub"
    found = listed(place)
    assert ("a.txt" if kind == "subfolder" else "sub/a.txt") in found
    assert not any(name.endswith("b.log") for name in found)


def test_a_folder_shaped_like_a_bare_repository_is_read_as_plain(
    checkout: Path, trap: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    git(tmp_path, "init", "-q", "--bare", "bare")
    git(bare, "config", "core.fsmonitor", str(trap))
    git(bare, "config", "core.worktree", str(checkout))
    listing = Listing(bare)
    assert b"HEAD" in listing.paths
    assert listing.warnings == []
    assert not (trap.parent / "sprung").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_a_checkout_of_somebody_else_is_named_with_the_way_to_allow_it(checkout: Path) -> None:
    for path in (checkout, checkout / ".git"):
        os.chown(path, 12345, 12345)
    listing = Listing(checkout)
    assert b"sub/b.log" in listing.below(b"sub")
    (warning,) = listing.warnings
    assert "what .gitignore names travels too" in warning
    assert f"git config --global --add safe.directory {checkout}" in warning


@pytest.mark.parametrize(
    ("script", "why"),
    [("exec sleep 60", "did not list"), ("exec cat /dev/zero", "more than")],
)
def test_a_git_without_an_end_is_ended(
    script: str,
    why: str,
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bin").mkdir()
    spy = tmp_path / "bin/git"
    spy.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\n{script}\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(git_module, "LIMIT", 1.0 if "sleep" in script else 60.0)
    monkeypatch.setattr(git_module, "MOST", 8 << 20)
    with pytest.raises(CvlError, match=why):
        Question(os.fsencode(checkout)).answer()
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("name", [".gitignore", ".git/info/exclude", ".git/pipe"])
def test_a_signal_ends_the_wait_for_a_git_that_waits_for_a_pipe(
    name: str, checkout: Path, tmp_path: Path
) -> None:
    with (checkout / ".git/config").open("a") as config:
        config.write(f"[core]\n\texcludesFile = {checkout}/.git/pipe\n" if "pipe" in name else "")
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).unlink(missing_ok=True)
    os.mkfifo(checkout / name)
    scope = Scope()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    source = Source(root=checkout, folder="sub")
    with signals(scope, lambda _count: None), pytest.raises(Cancelled):
        select(source, tmp_path / "state")


def test_a_signal_ends_the_reading_of_many_and_of_large_files(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)  # takes an hour to read
    scope = Scope()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with signals(scope, lambda _count: None), closing(Hashes(tmp_path)) as hashes:
        with pytest.raises(Cancelled):
            hashes.entry(b"large")
        (tmp_path / "small").touch()
        with pytest.raises(Cancelled):
            hashes.entry(b"small")
