"""Results act on nothing here: names that tools go by, and repositories put together by parts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.spec import Source
from cvl.host.download.inert_names import (
    ACTING,
    SHOWN,
    SUFFIX,
    active,
    inert,
    is_head,
    renamed,
    told,
    under_own_names,
)
from cvl.host.download.landing import land_tar
from cvl.host.download.report import Landed
from cvl.host.download.results import Changed, Results, arrange, fresh
from cvl.host.tarstream import END, HARD, Member, TarReader, header, padding
from cvl.host.upload.hashes import Entry
from cvl.host.upload.payload import payload
from cvl.host.upload.selection import select
from cvl.host.upload.tree import Tree, delta
from cvl.testing.cli_harness import Desk
from cvl.tests.pages import ROOT, blocks_of

TROUBLESHOOTING = ROOT / "docs/troubleshooting.md"
LISTED = [b".git", b".envrc", b".vscode", b".idea", b"cvl.toml", b".hg", b".devcontainer"]
SAME = [
    *(".GIT", ".Git", ".git.", ".git ", ".git . .", ".g\u200cit", "\ufeff.git", ".gi\u202et"),
    *("git~1", "GIT~1", ".git::$INDEX_ALLOCATION", ".v\u017fcode", ".ENVRC", "CVL.TOML", ".Idea"),
]
OTHER = [
    *(".gitignore", ".gitattributes", ".gitmodules", "git", "x.git", ".git2", "config", "hooks"),
    *("HEAD", "objects", "refs", "commondir", ".env.example", "env", "vscode", ".editorconfig"),
    *("conftest.py", "Makefile", "cvl.toml.bak", "my-cvl.toml", "_repo", ".hidden", "x.inert", "é"),
]
ATOMS = st.sampled_from(
    [
        *(name.encode() for name in [*ACTING, *SAME, *OTHER]),
        *(b"HEAD.inert", b".git.inert", b".GIT.INERT", b"refs.inert.inert", b".inert", b"\xff"),
    ]
)
NAMES = st.one_of(
    ATOMS,
    st.tuples(ATOMS, st.sampled_from([SUFFIX, b".INERT", b".inert ", b"."])).map(b"".join),
    st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & set(b"/\0")),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
MAIN = b"ref: refs/heads/main\n"
COMMAND = """\
[core]
	repositoryformatversion = 0
	bare = false
	worktree = .
	fsmonitor = "touch {ran}; false"
"""


@pytest.mark.parametrize("name", [*LISTED, *map(str.encode, [*ACTING, *SAME])])
def test_a_name_that_acts_gets_a_suffix(name: bytes) -> None:
    for before, after in ((b"", b""), (b"a/b/", b""), (b"", b"/c"), (b"a/", b"/b/c")):
        assert inert(before + name + after) == before + name + SUFFIX + after


@pytest.mark.parametrize("name", OTHER)
def test_no_other_name_does(name: str) -> None:
    assert inert(b"a/" + name.encode()) == b"a/" + name.encode()


@given(PATHS)
def test_a_path_gets_back_the_name_that_it_had(path: bytes) -> None:
    assert active(inert(path)) == path
    assert not any(name.decode("utf-8", "replace") in ACTING for name in inert(path).split(b"/"))
    assert bool(renamed(inert(path))) == (inert(path) != path)


@given(PATHS, PATHS)
def test_two_paths_stay_two(one: bytes, other: bytes) -> None:
    assert (inert(one) == inert(other)) == (one == other)


@given(st.lists(PATHS, max_size=6, unique=True))
def test_own_names_take_no_place(paths: list[bytes]) -> None:
    own = under_own_names(paths)
    there = [own.get(path, path) for path in paths]
    assert len(set(there)) == len(paths)
    assert all(active(path) == own[path] != path for path in own)
    changed = [path for path in paths if path in own]
    folders = {"/".join(p) for path in there for p in _prefixes(path)}
    assert not [path for path in changed if os.fsdecode(own[path]) in folders]


def _prefixes(path: bytes) -> Iterator[list[str]]:
    names = os.fsdecode(path).split("/")
    return (names[:at] for at in range(1, len(names)))


@pytest.mark.parametrize(
    ("content", "link", "is_one"),
    [
        (MAIN, False, True),
        (b"ref:refs/x", False, True),
        (b"ref: \t\n refs/x", False, True),
        (b"0" * 40 + b"\n", False, True),
        (b"AB" * 32, False, True),
        (b"ref: elsewhere", False, False),
        (b"HTTP/1.1 200 OK", False, False),
        (b"", False, False),
        (b"refs/heads/main", False, False),
        (b"refs/heads/main", True, True),
        (b"objects/x", True, False),
    ],
)
def test_what_git_takes_for_a_head(content: bytes, *, link: bool, is_one: bool) -> None:
    assert is_head(content, link=link) is is_one


def test_what_got_a_suffix_is_told_in_one_short_line() -> None:
    line = told([b"%05d/.git.inert" % number for number in range(10_000)])
    assert line.count(".git") == SHOWN
    assert line.endswith(f"00007/.git and {10_000 - SHOWN} more")


class Job:
    """A host with a folder of results, and where they land."""

    def __init__(self, folder: Path) -> None:
        self.ran, self.into = folder / "ran", folder / "into"
        self.files: dict[bytes, bytes] = {}
        self.links: dict[bytes, bytes] = {}
        self.seen: dict[bytes, bytes] = {}
        self.into.mkdir(exist_ok=True)

    def repository(self, at: bytes = b"") -> None:
        """Make a repository that runs a command at `git status`."""
        config = COMMAND.format(ran=self.ran).encode()
        parts = {b"HEAD": MAIN, b"config": config, b"objects/info/x": b"", b"refs/heads/x": b""}
        self.files |= {at + name: content for name, content in parts.items()}

    def results(self) -> Results:
        changed = [
            Changed(kind="f", size=len(data), area="w", path=path, stamp=b"%d" % hash(data))
            for path, data in self.files.items()
        ]
        changed += [
            Changed(kind="l", size=0, area="w", path=path, link=link)
            for path, link in self.links.items()
        ]
        return arrange(changed, b"")

    def fetch(self, *only: bytes) -> Landed:
        """Bring what is new by tar; `only` these paths and what lies in them, where given."""
        new = fresh(self.results(), self.into, self.seen)
        chosen = [p for p in new.pieces if not only or p.source[5:].startswith(only)]
        new = Results(pieces=tuple(chosen), skipped=new.skipped)
        landed = land_tar([self.tar(new)], new, self.into)
        self.seen |= landed.seen
        return landed

    def tar(self, new: Results) -> bytes:
        parts = []
        for piece in new.files:
            data = self.files[piece.source[5:]]
            parts += [header(Member(name=piece.source, size=len(data), mode=0o644))]
            parts += [data + padding(len(data))]
        return b"".join(parts) + END

    def ask_git(self) -> None:
        """Do what a prompt does, in every folder there is."""
        for folder in (self.into, *(path for path in self.into.rglob("*") if path.is_dir())):
            for words in (["status"], ["rev-parse", "--git-dir"]):
                self.git(folder, *words)
        assert not self.ran.exists()

    def git(self, folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(self.into.parent)}
        done = ["git", "-C", str(folder), *words]
        return subprocess.run(done, capture_output=True, check=False, env=env)

    def tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.into)): path.read_bytes()
            for path in sorted(self.into.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def job(tmp_path: Path) -> Job:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    return Job(tmp_path)


def test_the_trap_works_where_nobody_disarms_it(job: Job) -> None:
    """Else nothing below would prove anything."""
    job.repository()
    for path, data in job.files.items():
        place = job.into / os.fsdecode(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    job.git(job.into, "status")
    assert job.ran.exists()


@pytest.mark.parametrize("at", [b"", b".git/", b"a/b/", b"x.git/", b".GIT/", b"a/.git/modules/m/"])
def test_a_repository_becomes_none(at: bytes, job: Job) -> None:
    job.repository(at)
    landed = job.fetch()
    job.ask_git()
    assert landed.files == 4
    assert {active(path.encode()) for path in job.tree()} == job.files.keys()
    assert landed.inert


@pytest.mark.parametrize("parts", [*permutations([b"HEAD", b"objects", b"refs"])])
def test_nor_do_several_fetches_make_one(parts: tuple[bytes, ...], job: Job) -> None:
    job.repository()
    everything = job.files
    for number in range(1, len(parts) + 1):
        kept = (b"config", *parts[:number])
        job.files = {path: data for path, data in everything.items() if path.startswith(kept)}
        job.fetch()
        job.ask_git()
    before = job.tree()
    assert before.keys() == {"HEAD.inert", "config", "objects/info/x", "refs/heads/x"}
    assert job.fetch().files == 0
    assert job.tree() == before


def test_a_head_that_turns_into_one_later(job: Job) -> None:
    job.repository()
    job.files[b"HEAD"] = b"HTTP/1.1 200 OK"
    assert job.fetch().inert == ()
    job.files[b"HEAD"] = MAIN
    landed = job.fetch()
    assert (landed.files, landed.inert) == (1, (b"HEAD.inert",))
    job.ask_git()
    assert job.fetch().files == 0


def test_links_make_none(job: Job) -> None:
    job.repository(b"real/")
    job.links = {
        b"HEAD": b"refs/heads/main",
        b"objects": b"real/objects",
        b"refs": b"real/refs",
        b"sub/.git": b"../real",
        b"commondir": b"real",
    }
    job.fetch()
    job.ask_git()
    assert (job.into / "HEAD.inert").is_symlink()
    assert (job.into / "sub/.git.inert").is_symlink()


def test_a_worktree_and_a_file_that_leads_to_a_repository_make_none(job: Job) -> None:
    job.repository(b"common/")
    job.files |= {b"w/HEAD": MAIN, b"w/commondir": b"../common\n", b"v/.git": b"gitdir: ../w\n"}
    job.fetch()
    job.ask_git()


def test_a_second_name_of_a_file_is_looked_at_as_well(job: Job) -> None:
    job.repository()
    job.files[b"A"] = MAIN
    results = job.results()
    first = header(Member(name=b"work/A", size=len(MAIN), mode=0o644)) + MAIN + padding(len(MAIN))
    second = header(Member(name=b"work/HEAD", kind=HARD, link=b"work/A"))
    third = header(Member(name=b"work/config", kind=HARD, link=b"work/HEAD"))
    landed = land_tar([first + second + third + END], results, job.into)
    assert (landed.files, landed.inert) == (3, (b"HEAD.inert",))
    assert (job.into / "HEAD.inert").read_bytes() == (job.into / "config").read_bytes() == MAIN
    job.ask_git()


def test_nothing_of_the_users_is_changed_where_results_land_beside_it(job: Job) -> None:
    """With `-o .` in a checkout, in a bare repository, and beside a HEAD of the user's own."""
    for bare in (["init", "-q"], ["init", "-q", "--bare", "mine.git"]):
        subprocess.run(["git", *bare], cwd=job.into, check=True, capture_output=True)
    (job.into / "half").mkdir()
    (job.into / "half/HEAD").write_bytes(MAIN)
    before = job.tree()
    for at in (b"", b".git/", b"mine.git/", b"half/"):
        job.repository(at)
    landed = job.fetch()
    after = job.tree()
    assert {name: after[name] for name in before} == before
    assert not job.ran.exists()
    job.ask_git()
    left = {each.path: each for each in landed.skipped}
    assert left.keys() == {path for path in job.files if path.startswith(b"mine.git/")}
    assert all(each.stays and "is left alone" in each.why for each in left.values())
    assert {"half/objects.inert/info/x", "half/refs.inert/heads/x"} <= after.keys()
    assert "half/HEAD.inert" in after


def test_results_in_a_repository_of_the_users_own_are_left_there(job: Job) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(job.into)], check=True, capture_output=True)
    before = job.tree()
    job.files = {b"config": b"evil", b"hooks/post-checkout": b"evil"}
    assert job.fetch().files == 0
    assert job.tree() == before


def test_both_a_name_and_what_it_would_become(job: Job) -> None:
    job.files = {b".envrc": b"1", b".envrc.inert": b"2", b".envrc.inert.inert": b"3"}
    job.fetch()
    assert job.tree() == {
        ".envrc.inert": b"1",
        ".envrc.inert.inert": b"2",
        ".envrc.inert.inert.inert": b"3",
    }


def test_results_travel_under_their_own_names_again(job: Job) -> None:
    job.repository(b".git/")
    job.files |= {b".envrc": b"x", b"plain": b"y", b".vscode/tasks.json": b"z"}
    job.fetch()
    entries = {path.encode(): Entry("f", False, 1, b"") for path in job.tree()}
    tree = Tree(entries, job.into, None, under_own_names(entries))
    assert tree.entries.keys() == job.files.keys()
    for path, data in job.files.items():
        assert (job.into / os.fsdecode(tree.local.get(path, path))).read_bytes() == data
    known = Tree({path: Entry("f", False, 1, b"") for path in job.files})
    assert tree.id == known.id


def test_the_page_makes_a_repository_usable_again(job: Job) -> None:
    (command,) = (block.text for block in blocks_of(TROUBLESHOOTING) if ".inert" in block.text)
    work = job.into.parent / "there/it's one"
    author = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"], ["branch", "b"]):
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", *author, *words], cwd=work, check=True, capture_output=True)
    for path in filter(Path.is_file, work.rglob("*")):
        job.files[os.fsencode(path.relative_to(work.parent))] = path.read_bytes()
    job.files |= {b"envs/.envrc": b"theirs"}
    job.fetch()
    here = job.into / work.name
    assert job.git(here, "log").returncode
    (job.into / "envs/.envrc").write_text("mine")
    subprocess.run(["sh", "-c", command], cwd=job.into, check=True)
    assert job.git(here, "log", "--format=%s", "b").stdout == b"one\n"
    assert [path.name for path in job.into.rglob("*.inert")] == [".envrc.inert"]
    assert (job.into / "envs/.envrc").read_text() == "mine"


def test_what_is_sent_has_its_own_name_and_its_own_content(tmp_path: Path) -> None:
    """A small file, one that is not held in memory, a link, and a folder given as an input."""
    folder = tmp_path / "examples/one"
    large = os.urandom(3_000_000)
    sent = {b".vscode/tasks.json": b"small", b".idea/large": large, b"sub/.jj/x": b"y"}
    for path, data in sent.items():
        place = folder / os.fsdecode(inert(path))
        place.parent.mkdir(parents=True)
        place.write_bytes(data)
    (folder / "example.yaml").write_text("name: one\n")
    (folder / "cvl.toml.inert").symlink_to(".idea/large")
    state = tmp_path / "state"
    state.mkdir()
    tree = select(Source(root=tmp_path, folder="examples/one"), state).tree
    reader = TarReader(payload({"input": folder}, delta(None, tree)))
    got = {member.name: member.link or b"".join(reader.content()) for member in reader.members()}
    for path, data in sent.items():
        assert got[b"tree/examples/one/" + path] == data
        assert got[b"input/" + path] == data
    assert got[b"tree/examples/one/cvl.toml"] == b".idea/large"
    assert not [name for name in got if SUFFIX in name]


def test_what_lies_here_keeps_its_place_before_what_gets_its_name_back() -> None:
    paths = [b".envrc", b".envrc.inert", b".git", b".git.inert/HEAD", b"a/HEAD.inert", b"a/HEAD"]
    assert under_own_names(paths) == {}
    assert under_own_names([b"refs.inert/HEAD", b"refs/HEAD.inert"]) == {
        b"refs.inert/HEAD": b"refs/HEAD"
    }


SCRIPT = """
cd "$CVL_WORK_DIR"
mkdir -p .git/objects .git/refs .vscode
echo 'ref: refs/heads/main' >.git/HEAD
for name in .git/config .vscode/tasks.json .envrc cvl.toml plain; do echo x >$name; done
"""


def test_a_run_says_what_it_has_renamed_and_says_it_once(tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=("--local",))
    done = desk.sh(SCRIPT)
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if ".inert" in line]
    assert len(said) == 1
    assert said[0].endswith(": .envrc, .git, .vscode, cvl.toml")
    (run,) = desk.runs()
    into = desk.repo / "cvl-runs" / run

    def landed() -> dict[str, float]:
        return {str(path.relative_to(into)): path.lstat().st_mtime for path in into.rglob("*")}

    before = landed()
    assert {name for name in before if "/" not in name} == {
        *(".envrc.inert", ".git.inert", ".vscode.inert", "cvl.toml.inert", "plain")
    }
    assert ".git.inert/HEAD.inert" in before
    again = desk.cvl("fetch", run)
    assert (again.code, "nothing new" in again.err, ".inert" in again.err) == (0, True, False)
    assert set(landed()) == before.keys()


def test_each_name_says_who_acts_on_it() -> None:
    assert all(re.fullmatch(r"\S.*", reason) for reason in ACTING.values())
    assert all(name == name.casefold() for name in ACTING)
