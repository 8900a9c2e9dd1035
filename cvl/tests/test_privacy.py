"""What is ours on this machine is only ours: made so, seen to be so, refused where it is not."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cvl.cleanup.reap_timer import install, write_privately
from cvl.core import handles, paths, privacy
from cvl.core.errors import CvlError, LedgerError, UsageError
from cvl.core.privacy import NotOurs
from cvl.ledger import Ledger, Run
from cvl.providers import load
from cvl.rental.keys import RunKeys
from cvl.rental.rate_limit import Pace
from cvl.run.log import run_folder
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd
from cvl.transports.ssh.address import parse

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
STRANGER, NOBODY = 12345, 65534
RUN = "job-1129-120000-0123456789"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, open_folder: Path) -> Path:
    """A home with our three folders in it, each with a file; the ledger holds a run."""
    monkeypatch.setenv("HOME", str(open_folder))
    for name in ("CVL_STATE_DIR", "CVL_CONFIG_DIR", "CVL_CACHE_DIR", "CVL_SSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    for made in (paths.state_dir(), paths.config_dir(), paths.cache_dir()):
        (paths.private(made) / "kept").touch(0o600)
    Ledger(paths.ledger_file()).begin(Run(id=RUN))
    return open_folder


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Give everything to somebody without rights and be that somebody."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def too_open(*folders: Path) -> list[str]:
    """Return what of ours others could read or write, or that is not ours at all."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return [
        f"{path} {mode(path):o}"
        for path in found
        if path.exists() and (mode(path) & 0o077 or path.lstat().st_uid != os.geteuid())
    ]


# made so


@pytest.mark.parametrize("mask", [0, 0o002, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("below", ["", "runs/a/ssh"])
def test_a_folder_is_0700_whatever_the_umask(home: Path, mask: int, below: str) -> None:
    shutil.rmtree(paths.state_dir())
    with unprivileged(home), umask(mask):
        made = paths.private(paths.state_dir() / below)
    while made != home:
        assert mode(made) == (0o700 if made.name != ".local" else mode(made))
        made = made.parent


@pytest.mark.parametrize("mask", [0, 0o002, 0o022, 0o077, 0o777])
def test_a_file_is_0600_whatever_the_umask(home: Path, mask: int) -> None:
    folder = paths.state_dir()
    (folder / "old").touch()
    (folder / "old").chmod(0o666)
    with unprivileged(home), umask(mask):
        os.close(paths.private_file(folder / "new", os.O_RDWR | os.O_CREAT))
        os.close(paths.private_file(folder / "old", os.O_WRONLY | os.O_APPEND))
        paths.replace_file(folder / "kept", b"whole")
        paths.replace_file(folder / "program", b"x", 0o700)
    found = {path.name: mode(path) for path in folder.iterdir()}
    assert found["program"] == 0o700
    assert {found[name] for name in ("new", "old", "kept")} == {0o600}
    assert (folder / "kept").read_bytes() == b"whole"
    assert [name for name in found if name.startswith(".")] == []


def test_what_is_there_is_closed_down_to_the_last_folder(home: Path) -> None:
    deep = paths.private(paths.state_dir() / "runs/a")
    for folder in (deep, deep.parent, paths.state_dir()):
        folder.chmod(0o777)
    home.chmod(0o755)
    paths.private(deep)
    assert too_open(paths.state_dir()) == []
    assert mode(home) == 0o755  # not ours to change


def test_a_file_of_ours_is_never_a_link(home: Path) -> None:
    precious, there = home / "precious", paths.state_dir() / "guardian.log"
    precious.write_text("kept")
    there.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        paths.private_file(there, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    paths.replace_file(there, b"ours")
    assert (precious.read_text(), there.is_symlink()) == ("kept", False)


@ROOT_ONLY
@pytest.mark.parametrize("what", ["folder", "file", "link", "target"])
def test_somebody_elses_is_not_used(home: Path, what: str) -> None:
    there = paths.state_dir() / "runs"
    if what in {"link", "target"}:
        (home / "elsewhere").mkdir()
        there.symlink_to(home / "elsewhere")
    else:
        there.mkdir()
    os.chown(there, STRANGER, STRANGER, follow_symlinks=what != "link")
    if what == "file":
        os.chown(there, 0, 0)
        (there / "x").touch()
        os.chown(there / "x", STRANGER, STRANGER)
        with pytest.raises(PermissionError, match="belongs to user 12345"):
            paths.private_file(there / "x", os.O_RDWR)
        return
    with pytest.raises(PermissionError, match="belongs to user 12345"):
        paths.private(there / "a")


def test_a_folder_for_everybody_is_nobodys(home: Path) -> None:
    shared = home / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(PermissionError, match="for everybody"):
        paths.private(shared)
    assert mode(shared) == 0o1777


def test_a_link_of_ones_own_is_followed(home: Path) -> None:
    (home / "disk").mkdir(mode=0o755)
    (paths.state_dir() / "runs").symlink_to(home / "disk")
    paths.private(paths.state_dir() / "runs/a")
    assert mode(home / "disk") == mode(home / "disk/a") == 0o700
    assert privacy.secured() == []


# seen to be so


def test_all_well_is_silent_and_changes_nothing(home: Path) -> None:
    before = [(path, path.lstat().st_ctime_ns) for path in sorted(home.rglob("*"))]
    assert privacy.secured() == []
    assert before == [(path, path.lstat().st_ctime_ns) for path in sorted(home.rglob("*"))]


@pytest.mark.parametrize("old", [0o755, 0o750, 0o770, 0o777, 0o701])
@pytest.mark.parametrize("number", range(3))
def test_ours_but_too_open_is_closed_and_said_once(home: Path, old: int, number: int) -> None:
    folder = privacy.homes()[number].path
    folder.chmod(old)
    (said,) = privacy.secured()
    assert str(folder) in said
    assert f"{old:04o}" in said
    assert mode(folder) == 0o700
    assert privacy.secured() == []


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-journal", "ledger.db-wal"])
def test_a_ledger_too_open_is_closed_and_said_once(home: Path, name: str) -> None:
    file = paths.state_dir() / name
    file.touch()
    file.chmod(0o644)
    (said,) = privacy.secured()
    assert str(file) in said
    assert mode(file) == 0o600
    assert privacy.secured() == []


def test_nothing_there_is_nothing_wrong(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home / "new"))
    assert privacy.secured() == []
    assert not (home / "new").exists()


def give(path: Path) -> None:
    os.lchown(path, STRANGER, STRANGER)


def swap_ledger(home: Path) -> None:
    """As in a folder that was once open: another's ledger under our name."""
    give(paths.ledger_file())


def link_ledger(home: Path) -> None:
    other = home / "other.db"
    paths.ledger_file().rename(other)
    paths.ledger_file().symlink_to(other)
    give(other)


def give_state(home: Path) -> None:
    give(paths.state_dir())


def link_state(home: Path) -> None:
    """The link is ours, where it leads is not."""
    paths.state_dir().rename(home / "theirs")
    paths.state_dir().symlink_to(home / "theirs")
    give(home / "theirs")


def foreign_link(home: Path) -> None:
    paths.state_dir().rename(home / "mine")
    paths.state_dir().symlink_to(home / "mine")
    give(paths.state_dir())


def foreign_parent(home: Path) -> None:
    give(paths.state_dir().parent)


def open_parent(home: Path) -> None:
    paths.state_dir().parent.chmod(0o777)


def planted(home: Path) -> None:
    paths.state_dir().chmod(0o777)
    (paths.state_dir() / "runs").mkdir()
    give(paths.state_dir() / "runs")


def give_config(home: Path) -> None:
    give(paths.config_dir())


def give_cache(home: Path) -> None:
    give(paths.cache_dir())


WRONGS = [
    swap_ledger,
    link_ledger,
    give_state,
    link_state,
    foreign_link,
    foreign_parent,
    open_parent,
    planted,
    give_config,
    give_cache,
]


@ROOT_ONLY
@pytest.mark.parametrize("wrong", WRONGS)
def test_in_others_hands_it_is_refused_and_stays_refused(
    home: Path, wrong: Callable[[Path], None]
) -> None:
    wrong(home)
    for _ in range(2):  # to look at it must not make it look well
        with pytest.raises(NotOurs) as error:
            privacy.secured()
        assert "\n" not in str(error.value)
        assert error.value.hint


@ROOT_ONLY
@pytest.mark.parametrize("wrong", [open_parent, foreign_parent])
def test_the_way_is_refused_before_anything_is_made_there(
    home: Path, wrong: Callable[[Path], None]
) -> None:
    shutil.rmtree(paths.state_dir())
    wrong(home)
    with pytest.raises(NotOurs):
        privacy.secured()


def test_a_sticky_parent_and_a_groups_parent_are_fine(home: Path) -> None:
    for good in (0o1777, 0o775):
        paths.state_dir().parent.chmod(good)
        assert privacy.secured() == []


@ROOT_ONLY
def test_what_jobs_here_have_made_may_be_anybodys(home: Path) -> None:
    paths.state_dir().chmod(0o777)
    made = paths.private(paths.state_dir() / "here") / "by-a-container"
    paths.state_dir().chmod(0o777)
    made.mkdir()
    give(made)
    assert len(privacy.secured()) == 1


NAMES = ("CVL_STATE_DIR", "CVL_CONFIG_DIR", "CVL_CACHE_DIR")


@pytest.mark.parametrize("variable", NAMES)
@pytest.mark.parametrize("place", ["/", "/usr", "/home", "~", "~/..", "~/link", "/tmp/..", "/var"])
def test_a_folder_of_the_machine_or_a_home_is_refused_and_left_as_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, place: str
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(os, "fchmod", lambda _file, mode: closed.append(mode))
    (home / "link").symlink_to(home)
    home.chmod(0o755)
    monkeypatch.setenv(variable, place)
    with pytest.raises(NotOurs, match=r"whole machine|your home") as error:
        privacy.secured()
    assert variable in error.value.hint
    with pytest.raises(PermissionError):
        paths.private(Path(place).expanduser())
    with pytest.raises(PermissionError):
        paths.private(Path(place).expanduser() / "trees")
    assert closed == []
    assert mode(home) == 0o755


@pytest.mark.parametrize("variable", NAMES)
def test_an_open_folder_that_holds_other_things_is_left_as_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    project = home / "project"
    project.mkdir()
    (project / "train.py").touch()
    project.chmod(0o755)
    monkeypatch.setenv(variable, str(project))
    with pytest.raises(NotOurs, match=r"'train\.py' in it is not cvl's"):
        privacy.secured()
    assert mode(project) == 0o755
    project.chmod(0o700)
    assert privacy.secured() == []


@pytest.mark.parametrize("kept", ["", "ledger.db", "guardian.log", "lost+found"])
def test_an_open_folder_made_for_us_is_closed(
    home: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    made = home / "made"
    made.mkdir()
    if kept:
        (made / kept).touch(0o600)
    made.chmod(0o755)
    monkeypatch.setenv("CVL_STATE_DIR", str(made))
    assert len(privacy.secured()) == 1
    assert mode(made) == 0o700


def test_a_home_of_the_whole_machine_is_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the only user of a container."""
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setenv("CVL_CONFIG_DIR", str(home / "config"))
    monkeypatch.setenv("CVL_CACHE_DIR", str(home / "cache"))
    assert paths.state_dir() == Path("/.local/state/cvl")
    assert privacy.secured() == []


@ROOT_ONLY
def test_roots_folder_is_as_good_as_ours(home: Path) -> None:
    with unprivileged(home):
        pass
    os.chown(paths.config_dir(), 0, 0)
    paths.config_dir().chmod(0o755)
    os.seteuid(NOBODY)
    try:
        assert privacy.secured() == []
        paths.private(paths.state_dir() / "x")
    finally:
        os.seteuid(0)


@ROOT_ONLY
def test_unseen_users_of_a_namespace_are_no_strangers(home: Path) -> None:
    """There root of the machine, and everybody else, is 65534."""
    give_config(home)
    asks = (
        "from cvl.core.privacy import *; from pathlib import Path;"
        f"print(of_others(Path('/').stat()), of_others(Path({str(paths.config_dir())!r}).stat()))"
    )
    words = [sys.executable, "-c", asks]
    inside = ["unshare", "--user", *words]
    if subprocess.run(["unshare", "--user", "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    assert subprocess.check_output(words, text=True) == "False True\n"
    assert subprocess.check_output(inside, text=True) == "False False\n"


# refused where it is not


@pytest.fixture
def desk(host: Sshd, open_folder: Path) -> Desk:
    return Desk(folder=open_folder, options=("--local",), env=host.env)


STARTING = [
    "run --local one sh true",
    "list",
    "ps",
    "logs",
    "attach",
    "fetch",
    "offers",
    "info one",
]


@ROOT_ONLY
@pytest.mark.parametrize("words", [*STARTING, "stop x", "reap -y", "doctor"])
def test_only_what_ends_something_goes_on(desk: Desk, words: str) -> None:
    assert desk.sh("true").code == 0
    give(desk.state / "ledger.db")
    done = desk.cvl(*words.split())
    said = [line for line in done.err.splitlines() if "cannot be trusted" in line]
    assert len(said) == 1, done.err
    if words in STARTING:
        assert (done.code, done.out) == (125, b"")
        assert len(desk.runs()) == 1
    else:
        assert "cannot be trusted" not in done.err.splitlines()[-1] or words != "stop x"
        assert done.code != 125 or "'x'" in done.err or "LAMBDA" in done.err


@pytest.mark.parametrize("mask", [0, 0o002, 0o077, 0o777])
def test_no_command_leaves_anything_open(desk: Desk, mask: int) -> None:
    """Whatever the umask; the results are the user's, and keep it."""
    folders = {name: desk.folder / name for name in ("state", "config", "cache")}
    env = {
        **desk.environment,
        "CVL_CONFIG_DIR": str(folders["config"]),
        "CVL_CACHE_DIR": str(folders["cache"]),
        "XDG_CACHE_HOME": str(folders["cache"]),
        "XDG_CONFIG_HOME": str(desk.folder / "home/.config"),
        "XDG_RUNTIME_DIR": "",
    }
    os.utime(desk.repo / "examples/conformance/one/example.yaml", (0, 0))  # else not kept yet
    for words in (
        ["list"],
        ["run", "--local", "one", "sh", "echo a >made"],
        ["run", "--ssh", "testhost", "one", "sh", "echo a >made"],
        ["ps"],
        ["fetch"],
        ["stop", "none"],
        ["reap", "-y"],
        ["doctor"],
    ):
        subprocess.run(
            [sys.executable, "-m", "cvl", *words],
            env=env,
            cwd=desk.repo,
            umask=mask,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    assert len(desk.runs()) == 2
    assert (folders["state"] / "runs").is_dir()
    assert list(folders["cache"].rglob("*.json"))
    shutil.rmtree(folders["state"] / "here")  # the jobs' own, behind our folder
    assert too_open(*folders.values()) == []
    made = mode(next((desk.repo / "cvl-runs").rglob("made")))
    assert made == 0o666 & ~(mask & 0o077)


@pytest.mark.parametrize("mask", [0, 0o002, 0o777])
def test_keys_and_what_the_timer_knows_are_private(home: Path, mask: int) -> None:
    with umask(mask):
        keys = RunKeys.made(run_folder(RUN) / "ssh", accept_new=True)
        RunKeys.made(run_folder(f"{RUN}x") / "ssh").pin("host")
        write_privately(paths.private(paths.config_dir()) / "reap.env", b"key")
    assert keys.accept_new
    assert too_open(paths.state_dir(), paths.config_dir()) == []


@ROOT_ONLY
def test_a_library_begins_no_run_with_anothers_ledger(home: Path) -> None:
    swap_ledger(home)
    with pytest.raises(LedgerError, match="belongs to user 12345"):
        Ledger(paths.ledger_file()).begin(Run(id=f"{RUN}x"))


@ROOT_ONLY
def test_a_request_is_made_though_the_state_folder_is_anothers(home: Path) -> None:
    """What ends a machine must not wait for a folder."""
    give_state(home)
    pace = Pace("provider", 0.05)
    first, second = pace.wait(), pace.wait()
    assert first is not None
    assert second is not None
    assert second - first >= 0.05


# what a ledger may say


HANDLE: Mapping[str, str] = {"run": RUN, "host": "there", "base": "", "key": "", "config": ""}


def checked(name: str, handle: Mapping[str, str]) -> Mapping[str, str]:
    runner = load(name)
    return handles.checked(name, handle, runner.acting, runner.files)


def test_a_handle_that_nobody_could_change_is_taken(home: Path) -> None:
    config = home / "ssh_config"
    config.write_text("Host there\n")
    handle = {**HANDLE, "config": str(config), "base": "~/elsewhere"}
    assert checked("ssh", handle) == handle
    assert checked("ssh", {**handle, "config": os.devnull})
    assert checked("local", {**HANDLE, "base": str(paths.state_dir() / "here")})


@ROOT_ONLY
@pytest.mark.parametrize(
    ("runner", "name"), [("ssh", "config"), ("k8s", "kubeconfig"), ("local", "base")]
)
@pytest.mark.parametrize("wrong", ["owner", "mode", "parent", "open parent"])
def test_what_others_could_fill_with_commands_is_not_used(
    home: Path, runner: str, name: str, wrong: str
) -> None:
    place = home / "shared/file"
    place.parent.mkdir()
    place.write_text("Host *\nProxyCommand touch /tmp/hit\n")
    {
        "owner": lambda: give(place),
        "mode": lambda: place.chmod(0o666),
        "parent": lambda: give(place.parent),
        "open parent": lambda: place.parent.chmod(0o777),
    }[wrong]()
    with pytest.raises(CvlError, match="is not used"):
        checked(runner, {**HANDLE, name: str(place)})


@ROOT_ONLY
@pytest.mark.parametrize(
    ("runner", "name", "value"),
    [
        ("ssh", "config", "/etc/hosts"),
        ("k8s", "kubeconfig", "/etc/hosts"),
        ("sagemaker", "endpoint", "https://x"),
        ("docker", "base", "/x"),
        ("local", "base", "~/here"),
        ("docker", "config", "~/checkout/ssh_config"),
        ("k8s", "kubeconfig", "~/checkout/config"),
    ],
)
def test_a_ledger_in_others_hands_decides_nothing_that_acts(
    home: Path, runner: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = {**HANDLE, name: value}
    assert checked(runner, handle)
    swap_ledger(home)
    with pytest.raises(CvlError, match="cannot be trusted"):
        checked(runner, handle)
    assert checked("lambda", {**HANDLE, "machine": "cvl-x", "base": "~/there"})
    if variable := {"config": "CVL_SSH_CONFIG", "endpoint": "AWS_ENDPOINT_URL"}.get(name):
        monkeypatch.setenv(variable, value)
        assert checked(runner, handle)


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": "../../x"},
        {"run": ""},
        {"address": "1.2.3.4\nx"},
        {"host": "a\0"},
        {"image": "\x1b"},
    ],
)
def test_a_handle_that_makes_no_sense_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(CvlError, match="damaged"):
        checked("ssh", {**HANDLE, **wrong})


@pytest.mark.parametrize("word", [*"'`\"$\\;&<>|(){}", "$(id)", "-oProxyCommand=id"])
def test_no_shell_ever_sees_a_hosts_name(word: str) -> None:
    """As ssh itself since 9.6 (CVE-2023-51385)."""
    for host in (f"{word}a", f"user@{word}a", f"ssh://{word}a"):
        with pytest.raises(UsageError):
            parse(host)
    if word not in "$\\":
        with pytest.raises(UsageError):
            parse(f"{word}a@host")
    assert replace(parse("host"), user="dom\\me") == parse("dom\\me@host")


def test_the_mode_of_what_is_no_file_of_ours_stays(home: Path) -> None:
    """A pipe or a device that a link leads to may belong to the whole machine."""
    pipe = home / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    paths.ledger_file().unlink()
    paths.ledger_file().symlink_to(pipe)
    assert privacy.secured() == []
    assert mode(pipe) == 0o666


def lose_config(_home: Path) -> None:
    """A file in the place of the folder."""
    shutil.rmtree(paths.config_dir())
    paths.config_dir().touch()


@ROOT_ONLY
@pytest.mark.parametrize(
    "wrong", [give_config, open_parent, foreign_parent, give_state, lose_config]
)
def test_no_timer_is_installed_that_others_could_change(
    home: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("LAMBDA_API_KEY", "secret")
    monkeypatch.setenv("PATH", "/nowhere")
    wrong(home)
    with pytest.raises(CvlError, match="no timer was installed"):
        install(os.environ, {})
    assert not list(home.rglob("reap.env"))
