"""`cvl trust`: these very bytes, shown and agreed to; and files of other owners on the way up."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.catalog import Lookup, find, find_root, root
from cvl.cli.config import load
from cvl.core import trust
from cvl.core.errors import NotFound
from cvl.core.file_owner import judged, stranger
from cvl.testing.cli_harness import EXAMPLE, Desk, Done

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
FILE = (
    'output = "results"\nrunner.lambda.request_template = "/x"\n'
    '[runner.local]\ntimeout_action = "touch mark\\u001b"\n'
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=())


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))


def say(desk: Desk, text: str = FILE) -> Path:
    path = desk.repo / "cvl.toml"
    path.write_text(text)
    return path


def plan(desk: Desk) -> tuple[object, str]:
    """Return what would run after a timeout, and what is said of the file."""
    done = desk.cvl("run", "--local", "--dry-run", "--json", "one", "sh", "exit 3")
    assert done.code == 0, done
    return json.loads(done.out)["request"]["timeout_action"], done.err


def test_what_is_agreed_to_is_shown_first_and_counts_until_a_byte_changes(desk: Desk) -> None:
    path = say(desk)
    assert plan(desk)[0] is None
    done = desk.cvl("trust", ".", "-y")
    assert done.code == 0
    for words in ("output = 'results'", r"timeout_action = 'touch mark\x1b'", "request_template"):
        assert words in done.out.decode()
    action, said = plan(desk)
    assert action == "touch mark\x1b"
    assert "request_template" in said
    assert "output" not in said
    path.write_text(FILE + "\n")
    action, said = plan(desk)
    assert action is None
    assert "has changed since you trusted it" in said
    assert b"changed since" in desk.cvl("trust", "--list").out
    path.write_text(FILE)
    assert plan(desk)[0] == "touch mark\x1b"
    assert desk.cvl("trust", "--remove", ".").code == 0
    assert plan(desk)[0] is None
    assert desk.cvl("trust", "--list").out == b""
    assert desk.cvl("trust", "--remove", ".").code == 2


def test_results_land_in_the_project_if_trusted_and_never_outside(desk: Desk) -> None:
    say(desk, 'output = "results"')
    assert desk.cvl("trust", "-y").code == 0
    assert desk.cvl("run", "one", "sh", "echo x >$CVL_WORK_DIR/x").code == 0
    assert [file.read_text() for file in (desk.repo / "results").rglob("x")] == ["x\n"]
    (desk.folder / "outside").mkdir()
    (desk.repo / "results").rename(desk.repo / "before")
    (desk.repo / "results").symlink_to(desk.folder / "outside")
    done = desk.cvl("run", "one", "sh", "echo x >$CVL_WORK_DIR/x")
    assert "output" in done.err
    assert list((desk.folder / "outside").iterdir()) == []


def test_nobody_to_ask_is_no_agreement(desk: Desk) -> None:
    say(desk)
    done = desk.cvl("trust", ".")
    assert (done.code, done.err) == (2, "cvl: nobody is there to ask\nhint: agree with -y\n")
    assert b"timeout_action" in done.out
    assert desk.cvl("trust", "--list").out == b""


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 125), (b"\n", 125)])
def test_on_a_terminal_it_asks_and_a_change_meanwhile_is_not_trusted(
    answer: bytes, code: int, desk: Desk
) -> None:
    path = say(desk)
    main, other = pty.openpty()
    command = [sys.executable, "-m", "cvl", "trust"]
    with subprocess.Popen(
        command, stdin=other, stdout=other, stderr=other, cwd=desk.repo, env=desk.environment
    ) as child:
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(main, 4096)
        path.write_text(FILE.replace("mark", "evil"))
        os.write(main, answer)
        assert child.wait(60) == code
    os.close(main)
    os.close(other)
    assert b"touch mark" in shown
    assert plan(desk)[0] is None
    path.write_text(FILE)
    assert (plan(desk)[0] == "touch mark\x1b") is (code == 0)


def test_what_is_noted_is_only_ours(desk: Desk) -> None:
    path = say(desk)
    assert desk.cvl("trust", "-y", env={"PYTHONUTF8": "1"}).code == 0
    (note,) = (desk.state / "trust").iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    found = json.loads(note.read_text())
    assert (found["file"], found["folder"]) == (str(path), str(desk.repo))
    assert found["digest"] == trust.fingerprint(path.read_bytes())
    for mode in (0o620, 0o602):
        note.chmod(mode)
        assert plan(desk)[0] is None
    note.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(note, STRANGER, STRANGER)
        assert plan(desk)[0] is None


@given(
    text=st.one_of(
        st.binary(max_size=60),
        st.builds(
            json.dumps,
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
                lambda inner: st.dictionaries(
                    st.sampled_from(["folder", "file", "digest", "owner"]), inner, max_size=4
                ),
            ),
        ).map(str.encode),
    )
)
def test_a_damaged_note_agrees_to_nothing(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVL_STATE_DIR", str(folder / "state"))
        trust.keep(trust.Trust(folder=str(folder), owner=STRANGER))
        assert trust.find(folder) is not None
        (note,) = trust.folder_of_notes().iterdir()
        note.write_bytes(text)
        assert trust.find(folder) is None
        trust.everything()


def test_the_file_that_is_meant_is_the_nearest(desk: Desk) -> None:
    say(desk)
    assert desk.cvl("trust", "examples", "-y").code == 0
    assert plan(desk)[0] is not None
    assert desk.cvl("trust", "--remove", "cvl.toml").code == 0
    assert plan(desk)[0] is None
    (desk.repo / "cvl.toml").unlink()
    done = desk.cvl("trust", "-y")
    assert (done.code, done.out) == (2, b"")
    assert "there is no cvl.toml" in done.err


def test_there_may_be_nothing_to_agree_to(desk: Desk) -> None:
    say(desk, 'timeout = "1h"\n')
    assert b"nothing to agree to" in desk.cvl("trust").out
    assert desk.cvl("trust", "--list").out == b""


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("gone"),
    ],
)
def test_what_cannot_be_read_cannot_be_trusted(make: object, desk: Desk) -> None:
    make(desk.repo / "cvl.toml")  # type: ignore[operator]
    done = desk.cvl("trust", "-y")
    assert (done.code, done.out) == (2, b"")
    assert "cannot be read" in done.err


def test_a_linked_file_is_trusted_by_where_it_leads(desk: Desk) -> None:
    for name in ("one", "two"):
        (desk.folder / name).write_text(FILE)
    link = desk.repo / "cvl.toml"
    link.symlink_to(desk.folder / "one")
    assert desk.cvl("trust", "-y").code == 0
    assert plan(desk)[0] is not None
    link.unlink()
    link.symlink_to(desk.folder / "two")
    assert plan(desk)[0] is None


def test_every_part_of_a_long_value_is_shown(desk: Desk) -> None:
    hidden = "x" * 9000 + "; evil;" + "x" * 9000
    say(desk, f'[runner.local]\ntimeout_action = "{hidden}"\n')
    assert hidden in desk.cvl("trust", "-y").out.decode().replace("\n", "")


def test_a_note_that_cannot_be_written_is_said(desk: Desk) -> None:
    say(desk)
    done = desk.cvl("trust", "-y", env={"CVL_STATE_DIR": "/proc/nowhere"})
    assert done.code == 125
    assert "/proc/nowhere" in done.err


# Whose a file is


def status(uid: int, mode: int) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))


def test_ours_and_roots_files_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    me, folder, file = os.geteuid(), stat.S_IFDIR, stat.S_IFREG
    for uid in (0, me):
        assert judged(status(uid, folder | 0o755)) == ""
        assert judged(status(uid, file | 0o664)) == ""
        assert judged(status(uid, folder | 0o1777)) == ""
        assert "everybody" in judged(status(uid, folder | 0o777))
        assert "everybody" in judged(status(uid, file | 0o666))
    assert "uid 12345" in judged(status(STRANGER, file | 0o600))
    assert judged(status(STRANGER, file | 0o600), STRANGER) == ""
    assert "uid 54321" in judged(status(54321, file | 0o600), STRANGER)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert judged(status(STRANGER, file | 0o600)) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    assert judged(status(STRANGER, file | 0o600)) != ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for text in ("", "-1", "x", "²"):
        monkeypatch.setenv("SUDO_UID", text)
        assert judged(status(STRANGER, file | 0o600)) != ""


def test_of_a_link_both_ends_count(tmp_path: Path) -> None:
    assert stranger(str(tmp_path / "nowhere")) == ""
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o666)
    (tmp_path / "link").symlink_to("open")
    assert "everybody" in stranger(str(tmp_path / "link"))


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A stranger's folder with an example and a cvl.toml, and a folder of ours in it."""
    folder = tmp_path / "theirs"
    for inner in ("examples/one", "mine/deep"):
        (folder / inner).mkdir(parents=True)
    (folder / "examples/one/example.yaml").write_text(EXAMPLE)
    (folder / "examples/one/sh.sh").touch()
    (folder / "cvl.toml").write_text('timeout = "1s"\n[runner.local]\ntimeout_action = "evil"\n')
    for path in (folder, folder / "examples", folder / "examples/one", folder / "cvl.toml"):
        os.chown(path, STRANGER, STRANGER)
    return folder


def from_mine(theirs: Path, *words: str) -> Done:
    env = {**os.environ, "HOME": str(theirs.parent), "CVL_STATE_DIR": str(theirs.parent / "state")}
    done = subprocess.run(
        [sys.executable, "-m", "cvl", *words],
        cwd=theirs / "mine/deep",
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr.decode())


@as_root
def test_a_strangers_file_and_examples_are_passed_over_and_said_once(theirs: Path) -> None:
    done = from_mine(theirs, "list")
    assert b"examples/one" not in done.out
    for name in ("cvl.toml", "examples"):
        (line,) = [line for line in done.err.splitlines() if f"{theirs}/{name} is not read" in line]
        assert f"uid {STRANGER}" in line
        assert f"`cvl trust {theirs}`" in line
    done = from_mine(theirs, "run", "--local", "--dry-run", "--json", "digits", "train")
    assert json.loads(done.out)["request"]["timeout_seconds"] is None
    assert done.err.count("is not read") == 2
    assert (
        json.loads(
            from_mine(
                theirs, "run", "--local", "--root", str(theirs), "--dry-run", "--json", "one", "sh"
            ).out
        )["runner"]
        == "local"
    )


@as_root
def test_a_stranger_who_is_trusted_is_read_until_the_bytes_or_the_owner_change(
    theirs: Path,
) -> None:
    shown = from_mine(theirs, "trust", str(theirs), "-y").out.decode()
    for words in (f"uid {STRANGER}", "timeout = '1s'", "timeout_action = 'evil'"):
        assert words in shown
    done = from_mine(theirs, "run", "--dry-run", "--json", "one", "sh")
    assert json.loads(done.out)["request"]["timeout_action"] == "evil"
    (theirs / "cvl.toml").write_text('timeout = "2s"\n')
    done = from_mine(theirs, "run", "--dry-run", "--json", "one", "sh")
    assert json.loads(done.out)["request"]["timeout_seconds"] is None
    assert "it has changed since you trusted it" in done.err
    os.chown(theirs / "examples", 54321, 54321)
    done = from_mine(theirs, "list")
    assert "uid 54321" in done.err
    assert b"examples/one" not in done.out


@as_root
def test_a_strangers_folder_is_not_mistaken_for_the_project_around_it(theirs: Path) -> None:
    (theirs / "cvl.toml").unlink()
    (theirs.parent / "cvl.toml").write_text(FILE)
    assert f"{theirs}:" in from_mine(theirs, "trust", str(theirs), "-y").out.decode()
    (agreed,) = trust.everything()
    assert (agreed.folder, agreed.file, agreed.owner) == (str(theirs), "", STRANGER)
    (theirs / "cvl.toml").write_text('timeout = "1s"')
    assert [layer.path.parent for layer in load(theirs, {}).layers] == [theirs.parent]


@as_root
@pytest.mark.parametrize("name", ["cvl.toml", "examples"])
def test_in_a_folder_for_everybody_the_owner_of_each_thing_counts(name: str, theirs: Path) -> None:
    os.chown(theirs, 0, 0)
    theirs.chmod(0o1777)
    for path in (theirs / "cvl.toml", theirs / "examples"):
        os.chown(path, os.geteuid(), -1)
    assert len(load(theirs, {}).layers) == 1
    assert find_root(Lookup(env={}, cwd=theirs)) == theirs
    os.chown(theirs / name, STRANGER, -1)
    said: list[str] = []
    found = find_root(Lookup(env={}, cwd=theirs, warn=said.append))
    assert (found == theirs, len(said)) == ((False, 1) if name == "examples" else (True, 0))
    assert len(load(theirs, {}).layers) == (0 if name == "cvl.toml" else 1)
    os.chown(theirs / name, os.geteuid(), -1)
    theirs.chmod(0o777)
    assert load(theirs, {}).layers == ()
    assert find_root(Lookup(env={}, cwd=theirs)) != theirs


@as_root
def test_a_strangers_example_is_not_found_by_a_mere_name(theirs: Path) -> None:
    os.chown(theirs / "examples/one/example.yaml", STRANGER, STRANGER)
    folder = theirs / "examples"
    for query in ("one", "one/example.yaml"):
        said: list[str] = []
        with pytest.raises(NotFound):
            find(query, Lookup(env={}, cwd=folder, warn=said.append))
        assert f"{folder}/one/example.yaml is not read" in said[-1]
    assert find("./one", Lookup(env={}, cwd=folder)).name == "one"
    os.chown(folder / "one", 0, 0)
    os.chown(folder / "one/example.yaml", 0, 0)
    assert find("one", Lookup(env={}, cwd=folder)).name == "one"


@as_root
def test_a_strangers_link_is_a_strangers_file(theirs: Path) -> None:
    os.chown(theirs, 0, 0)
    (theirs.parent / "own").write_text('timeout = "1s"')
    (theirs / "cvl.toml").unlink()
    (theirs / "cvl.toml").symlink_to(theirs.parent / "own")
    assert len(load(theirs, {}).layers) == 1
    os.lchown(theirs / "cvl.toml", STRANGER, STRANGER)
    assert load(theirs, {}).layers == ()


@as_root
def test_a_strangers_repository_is_no_root_of_an_example_that_lies_in_it(tmp_path: Path) -> None:
    mine = tmp_path / "theirs/mine/e"
    mine.mkdir(parents=True)
    (tmp_path / "theirs/.git").mkdir()
    assert root.own_root(mine) == tmp_path / "theirs"
    os.chown(tmp_path / "theirs/.git", STRANGER, STRANGER)
    said: list[str] = []
    assert root.own_root(mine, said.append) == mine
    assert [f"{tmp_path}/theirs/.git is not read" in line for line in said] == [True]


@as_root
@pytest.mark.parametrize("mode", [0o666, None])
def test_a_users_file_of_another_owner_is_refused(mode: int | None, desk: Desk) -> None:
    mine = desk.folder / "home/.config/cvl/cvl.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('timeout = "1s"')
    assert desk.cvl("list").code == 0
    if mode:
        mine.chmod(mode)
    else:
        os.chown(mine, STRANGER, STRANGER)
    done = desk.cvl("run", "--local", "one", "sh", "exit 3")
    assert (done.code, done.out) == (2, b"")
    assert "not read" in done.err
    assert desk.cvl("ps").code == 0


@as_root
def test_another_user_reads_roots_files_and_not_a_strangers(open_folder: Path) -> None:
    def seen(owner: int) -> tuple[int, int]:
        os.chown(open_folder / "cvl.toml", owner, -1)
        os.seteuid(STRANGER)
        try:
            found = load(open_folder, {})
            return len(found.layers), len(found.warnings)
        finally:
            os.seteuid(0)

    (open_folder / "cvl.toml").write_text('timeout = "1s"')
    assert seen(0) == (1, 0)
    assert seen(STRANGER) == (1, 0)
    assert seen(54321) == (0, 1)


def test_looking_for_examples_runs_nothing(desk: Desk) -> None:
    mark = desk.folder / "mark"
    example = desk.repo / "examples/conformance/one"
    (example / "example.yaml").write_text(
        f"name: one\ndescription: $(touch {mark})\n"
        f"x: !!python/object/apply:os.system ['touch {mark}']\n"
        "presets:\n  sh: {script: sh.sh}\n"
    )
    (example / "sh.sh").write_text(f"touch {mark}\n")
    for command in (("list",), ("info", "one"), ("list", "--json"), ("info", "one", "--json")):
        desk.cvl(*command)
    assert not mark.exists()
