"""Results come home, and nothing else is ever touched: hostile records, tars and links."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvl.core.errors import BrokenOff, FetchError
from cvl.core.staging import incoming
from cvl.host.download.landing import SLACK, land_tar, landing, stays_inside
from cvl.host.download.report import Landed
from cvl.host.download.results import (
    Changed,
    Piece,
    Results,
    arrange,
    fault,
    fresh,
    parts,
    produced,
)
from cvl.host.tarstream import END, FILE, FOLDER, HARD, LINK, Member, TarReader, header, padding

PLACE = b"examples/a/b"


def tar(*members: tuple[Member, bytes]) -> bytes:
    parts = [header(member) + data + padding(len(data)) for member, data in members]
    return b"".join(parts) + END


def file(name: bytes, data: bytes = b"new", mode: int = 0o644) -> tuple[Member, bytes]:
    return Member(name=name, size=len(data), mode=mode, mtime=1_700_000_000), data


def wanted(*names: bytes) -> Results:
    return Results(pieces=tuple(Piece(source=b"work/" + name, target=name) for name in names))


def land(into: Path, *names: bytes) -> Landed:
    """Bring home files of these names, each with the content `new`."""
    return land_tar([tar(*[file(b"work/" + name) for name in names])], wanted(*names), into)


def whys(landed: Landed) -> dict[bytes, str]:
    return {skipped.path: skipped.why for skipped in landed.skipped}


def test_results_that_lie_deep_land_where_few_files_may_be_open(tmp_path: Path) -> None:
    deep = Path(tmp_path, *"d" * 150)
    deep.mkdir(parents=True)
    free = [os.dup(1) for _ in range(110)]
    for each in free:
        os.close(each)
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1] + 1, usual[1]))
    try:
        landed = land(tmp_path, os.fsencode(deep.relative_to(tmp_path) / "x"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert not landed.skipped
    assert (deep / "x").read_bytes() == b"new"


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about a folder that an escape would change."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        found = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        seen[str(path)] = (found.st_mode, found.st_ino, found.st_mtime_ns, content)
    return seen


@contextmanager
def trap() -> Iterator[Path]:
    """Give a results folder that is full of ways out, and check that none was taken."""
    with tempfile.TemporaryDirectory() as name:
        outside, into = Path(name, "outside"), Path(name, "world", "results")
        (outside / "b").mkdir(parents=True)
        for path in (outside / "a", outside / "b" / "a", outside / "b" / "b"):
            path.write_bytes(b"sentinel")
        (into / "b").mkdir(parents=True)
        (into / "a").symlink_to(outside)
        (into / "c").symlink_to(outside / "a")
        (into / "b" / "a").symlink_to("../../../outside/b")
        (into / "b" / "c").symlink_to("/")
        (into / "loop").symlink_to("loop")
        before = snapshot(outside)
        yield into
        assert snapshot(outside) == before
        assert {path.name for path in Path(name).iterdir()} == {"outside", "world"}
        assert [path.name for path in Path(name, "world").iterdir()] == ["results"]
        assert not [path for path in into.iterdir() if path.name.startswith(".incoming")]


NAMES = st.sampled_from(
    [b"a", b"b", b"c", b"loop", b"..", b".", b"", b".git", b"\xff\n", b"_repo", b"d" * 256]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
LINKS = st.one_of(
    PATHS, st.sampled_from([b"/etc", b"../..", b"a/../../..", b"b/../b/../../x", b""])
)
RECORDS = st.lists(
    st.builds(
        Changed,
        kind=st.sampled_from("fldou"),
        size=st.integers(0, 9),
        area=st.sampled_from("wer"),
        path=PATHS,
        link=LINKS,
    ),
    max_size=8,
)
MEMBERS = st.lists(
    st.tuples(
        st.builds(
            Member,
            name=st.one_of(PATHS, PATHS.map(b"work/".__add__), PATHS.map(b"/".__add__)),
            kind=st.sampled_from([FILE, HARD, LINK, FOLDER, b"3", b"4", b"6", b"S"]),
            mode=st.integers(0, 0o7777),
            mtime=st.integers(0, 8**11 - 1),
            link=LINKS,
        ),
        st.binary(max_size=5),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(records=RECORDS, strangers=MEMBERS, place=st.sampled_from([PLACE, b"", b"/abs/x", b".git"]))
def test_no_record_and_no_tar_leads_out_of_the_folder(
    records: list[Changed], strangers: list[tuple[Member, bytes]], place: bytes
) -> None:
    with trap() as into:
        results = arrange(records, place)
        parts = [file(piece.source) for piece in results.files]
        for member, data in strangers:
            size = len(data) if member.kind not in {HARD, LINK, FOLDER} else 0
            changed = Member(
                name=member.name,
                kind=member.kind,
                size=size,
                mode=member.mode,
                mtime=member.mtime,
                link=member.link,
            )
            parts.append((changed, data[:size]))
        landed = land_tar([tar(*parts)], results, into)
        for path in into.rglob("*"):
            assert stat_is_harmless(path)
        assert landed.files + len(landed.skipped) >= len(results.files)


def stat_is_harmless(path: Path) -> bool:
    known = path.is_symlink() or path.is_dir() or path.is_file()
    return known and (path.is_symlink() or path.stat().st_mode & 0o7000 == 0)


@settings(max_examples=60, deadline=None)
@given(records=RECORDS)
def test_links_that_are_made_never_resolve_outside(records: list[Changed]) -> None:
    with tempfile.TemporaryDirectory() as name:
        into = Path(name, "results")
        results = arrange(records, PLACE)
        land_tar([tar(*[file(piece.source) for piece in results.files])], results, into)
        for path in into.rglob("*"):
            if path.is_symlink():
                real = os.path.realpath(path)
                assert real == str(into.resolve()) or real.startswith(f"{into.resolve()}/")


def listed(data: bytes) -> list[Changed]:
    """The records of a whole list."""
    fields = data.split(b"\0")
    if fields.pop():
        raise FetchError("the list broke off")
    return [item for part in parts(fields) for item in part]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_an_error(data: bytes) -> None:
    try:
        records = listed(data)
    except FetchError:
        return
    assert len(records) <= data.count(b"\0")
    arrange(records, PLACE)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=2000),
        st.tuples(MEMBERS, st.integers(0, 3000), st.binary(min_size=1, max_size=9)).map(
            lambda it: (
                (data := tar(*[(m, b"") for m, _ in it[0]]))[: it[1]]
                + it[2]
                + data[it[1] + len(it[2]) :]
            )
        ),
    )
)
def test_any_bytes_are_a_tar_or_an_error(data: bytes) -> None:
    try:
        for _ in TarReader([data]).members():
            pass
    except FetchError:
        pass


def test_records_are_read_with_every_byte_of_their_names() -> None:
    data = b"f\t12\te\tout/a\tb\n\xff\0l\t0\tw\tlatest\0ckpt/7\0u\t5:1700.5\tr\tx\0"
    assert listed(data) == [
        Changed(kind="f", size=12, area="e", path=b"out/a\tb\n\xff"),
        Changed(kind="l", size=0, area="w", path=b"latest", link=b"ckpt/7"),
        Changed(kind="u", size=5, area="r", path=b"x", stamp=b"1700.5"),
    ]
    assert listed(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"f\t1\te\tcut",
        b"x\t1\te\ta\0",
        b"f\t-1\te\ta\0",
        b"f\t1\tq\ta\0",
        b"f\t1\0",
        b"l\t0\te\ta\0",
        b"f\t" + b"9" * 30 + b"\te\ta\0",
        "f\t²\te\ta\0".encode(),
        b"\0",
    ],
)
def test_records_that_make_no_sense_are_an_error(data: bytes) -> None:
    with pytest.raises(FetchError):
        listed(data)


def test_the_work_folder_and_the_example_land_at_the_top_and_the_rest_below_repo() -> None:
    changed = [
        Changed(kind="f", size=1, area="e", path=b"outputs/m.bin"),
        Changed(kind="f", size=1, area="e", path=b"both.txt"),
        Changed(kind="f", size=1, area="w", path=b"both.txt"),
        Changed(kind="f", size=1, area="r", path=b"data/cache.csv"),
    ]
    pieces = arrange(changed, PLACE).pieces
    assert {piece.source: piece.target for piece in pieces} == {
        b"work/both.txt": b"both.txt",
        b"ws/examples/a/b/both.txt": b"_repo/examples/a/b/both.txt",
        b"ws/examples/a/b/outputs/m.bin": b"outputs/m.bin",
        b"ws/data/cache.csv": b"_repo/data/cache.csv",
    }


def test_a_folder_of_one_area_does_not_take_the_place_of_a_file_of_another() -> None:
    changed = [
        Changed(kind="f", size=1, area="w", path=b"out"),
        Changed(kind="f", size=1, area="e", path=b"out/a"),
        Changed(kind="f", size=1, area="r", path=b"examples/a/b/out/a"),
    ]
    results = arrange(changed, PLACE)
    targets = [piece.target for piece in results.pieces]
    assert targets == [b"out", b"_repo/examples/a/b/out/a"]
    assert [skipped.path for skipped in results.skipped] == [b"examples/a/b/out/a"]


def test_what_another_fetch_brought_into_the_folder_of_a_job_in_place_is_no_result() -> None:
    paths = [b"cvl-runs", b"cvl-runs/x/a", b"b/cvl-runs/a", b"out", b"out/a", b"out2", b"a"]
    changed = [Changed(kind="f", size=1, area=area, path=path) for area in "we" for path in paths]

    def kept(place: bytes, into: bytes = b"") -> list[bytes]:
        return [item.path for item in produced(changed, place, into) if item.area == "e"]

    assert kept(b"/repo/one") == paths[3:]
    assert kept(b"/repo/one/", b"/repo/one/out") == [b"out2", b"a"]
    assert kept(b"/repo/one", b"/repo/one") == paths[3:]
    assert kept(b"/repo/one", b"/repo/one2/out") == paths[3:]
    assert kept(b"repo/one") == paths
    assert len(produced(changed, b"/repo/one")) == len(paths) + len(paths[3:])


def test_results_of_a_job_that_worked_in_place_are_asked_for_by_their_absolute_path() -> None:
    results = arrange([Changed(kind="f", size=3, area="e", path=b"o/x")], b"/home/u/repo/ex/")
    (piece,) = results.pieces
    assert (piece.source, piece.target) == (b"/home/u/repo/ex/o/x", b"o/x")


@pytest.mark.parametrize("tool", [["tar"], ["tar", "--format=posix"], ["busybox", "tar"]])
def test_what_a_real_tar_packs_lands(tmp_path: Path, tool: list[str]) -> None:
    run = tmp_path / "run"
    long = "/".join(["d" * 90] * 4) + "/" + "f" * 200
    names = ["plain", "bl ank", "new\nline", "ü", os.fsdecode(b"\xff"), long, "-x"]
    for name in names:
        (run / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / "work" / name).write_text(name, errors="surrogateescape")
    (run / "work/plain").chmod(0o6755)
    os.link(run / "work/plain", run / "work/twin")
    os.utime(run / "work/ü", (-5, -5))
    paths = [b"work/" + os.fsencode(name) for name in [*names, "twin"]]
    (tmp_path / "list").write_bytes(b"\0".join(paths))
    # busybox reads no NUL-separated list
    listed = ["--", *paths] if tool[0] == "busybox" else ["--null", "-T", str(tmp_path / "list")]
    packed = subprocess.run([*tool, "-cf", "-", *listed], cwd=run, stdout=PIPE, check=True)
    results = wanted(*[path.removeprefix(b"work/") for path in paths])
    chunks = [packed.stdout[at : at + 700] for at in range(0, len(packed.stdout), 700)]
    landed = land_tar(chunks, results, tmp_path / "into")
    assert landed.skipped == ()
    assert landed.files == len(paths)
    for name in names:
        text = (tmp_path / "into" / name).read_text(errors="surrogateescape")
        assert text == name
    assert (tmp_path / "into/plain").stat().st_mode & 0o7111 == 0o111 & ~umask()
    assert (tmp_path / "into/twin").read_text() == "plain"


def umask() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split("Umask:")[1].split()[0], 8)


def test_an_older_file_is_replaced_and_keeps_its_other_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    os.link(tmp_path / "a", tmp_path / "backup")
    land(tmp_path, b"a")
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "backup").read_text() == "old"


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("mine")
    into = tmp_path / "into"
    into.mkdir()
    (into / "x").symlink_to("../mine/x")
    (into / "sub").symlink_to("../mine")
    landed = land(into, b"x", b"sub/x")
    assert (tmp_path / "mine" / "x").read_text() == "mine"
    assert (into / "x").read_text() == (into / "sub" / "x").read_text() == "new"
    assert landed.moved == ((b"sub", b"sub.old1"),)
    assert (into / "sub.old1").readlink() == Path("../mine")


def test_a_file_where_a_folder_is_needed_makes_way_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("mine")
    (tmp_path / "b.old1").write_text("older")
    landed = land(tmp_path, b"a/x", b"b")
    assert landed.moved == ((b"a", b"a.old1"), (b"b", b"b.old2"))
    assert (tmp_path / "a.old1").read_text() == (tmp_path / "b.old2/mine").read_text() == "mine"
    assert (tmp_path / "a/x").read_text() == (tmp_path / "b").read_text() == "new"


def test_links_that_stay_inside_are_made_and_others_reported(tmp_path: Path) -> None:
    links = {
        b"latest": b"ckpt/7",
        b"up/x": b"../ckpt",
        b"out": b"../x",
        b"abs": b"/etc",
        b"sly": b"ckpt/../../x",
    }
    pieces = [Piece(source=b"ws/" + n, target=n, kind="l", link=to) for n, to in links.items()]
    landed = land_tar([END], Results(pieces=tuple(pieces)), tmp_path)
    made = {os.fsencode(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_symlink()}
    assert made == {b"latest", b"up/x"}
    assert whys(landed).keys() == {b"out", b"abs", b"sly"}
    assert "'/etc'" in whys(landed)[b"abs"]


@pytest.mark.parametrize(
    ("place", "link", "inside"),
    [
        (b"a", b"b", True),
        (b"a", b"./b//c", True),
        (b"a", b"..", False),
        (b"d/a", b"..", True),
        (b"d/a", b"../../x", False),
        (b"d/a", b"b/..", False),
        (b"a", b"/", False),
        (b"a", b"", False),
    ],
)
def test_a_link_may_climb_only_through_real_folders(
    place: bytes, link: bytes, *, inside: bool
) -> None:
    assert stays_inside(place, link) is inside


def test_a_foreign_repository_does_not_become_one_here(tmp_path: Path) -> None:
    changed = [
        Changed(kind="f", size=1, area="w", path=b".git/config"),
        Changed(kind="f", size=1, area="e", path=b"clone/.GIT/hooks/x"),
        Changed(kind="f", size=1, area="w", path=b".gitignore"),
    ]
    targets = [piece.target for piece in arrange(changed, PLACE).pieces]
    assert targets == [b".git.inert/config", b".gitignore", b"clone/.GIT.inert/hooks/x"]


def test_members_that_nobody_asked_for_and_files_that_did_not_come_are_reported(
    tmp_path: Path,
) -> None:
    members = [file(b"work/a"), file(b"work/a", b"again"), file(b"etc/passwd")]
    members.append((Member(name=b"work/c", kind=LINK, link=b"/etc"), b""))
    landed = land_tar([tar(*members)], wanted(b"a", b"b", b"c"), tmp_path)
    assert (tmp_path / "a").read_text() == "new"
    assert (landed.files, landed.size) == (1, 3)
    assert whys(landed) == {
        b"work/a": "was not asked for",
        b"etc/passwd": "was not asked for",
        b"b": "did not arrive: gone, or not readable there",
        b"c": "is no file any more",
    }


def test_archives_that_follow_one_another_all_land(tmp_path: Path) -> None:
    """What xargs makes of more paths than fit on one command line."""
    data = tar(file(b"work/a")) + bytes(8192) + tar(file(b"work/b")) + bytes(512)
    landed = land_tar([data[:700], b"", data[700:]], wanted(b"a", b"b"), tmp_path)
    assert (landed.files, landed.skipped) == (2, ())


def test_a_tar_that_breaks_off_leaves_no_half_file(tmp_path: Path) -> None:
    data = tar(file(b"work/a"), file(b"work/b", b"x" * 2000))
    (tmp_path / "b").write_text("old")
    for cut in range(0, len(data) - len(END), 300):
        with pytest.raises(FetchError, match="broke off"):
            land_tar([data[:cut]], wanted(b"a", b"b"), tmp_path)
        assert (tmp_path / "b").read_text() == "old"
        assert {path.name for path in tmp_path.iterdir()} <= {"a", "b"}


PARTS = Results(
    pieces=tuple(
        Piece(source=b"work/" + name, target=name, size=len(data), stamp=b"1")
        for name, data in ((b"a", b"0123456789" * 60), (b"b", b"x"), (b"c", b"y" * 700))
    )
)
CONTENT = {b"work/a": b"0123456789" * 60, b"work/b": b"x", b"work/c": b"y" * 700}


@settings(max_examples=80, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=5), same=st.booleans())
def test_what_breaks_off_goes_on_where_it_was(cuts: list[int], same: bool) -> None:
    """However often: nothing is missing, nothing comes twice, unless the file has changed."""
    with tempfile.TemporaryDirectory() as name, landing(PARTS, Path(name, "into")) as it:
        for cut in [*cuts, 9999]:
            if part := it.part:
                rest = CONTENT[part.piece.source][part.size :]
                rest = rest if same else b"?" * len(rest)
                it.go_on([rest[:cut]])
                if cut < len(rest):
                    continue
                it.settle(same=same)
            data = tar(*[file(each.source, CONTENT[each.source]) for each in it.awaited.values()])
            with suppress(BrokenOff):
                it.take([data[:cut]])
        landed = it.finish()
        assert {path.name for path in Path(name, "into").iterdir()} >= {"a", "b", "c"}
        for source, content in CONTENT.items():
            assert Path(name, "into", source[5:].decode()).read_bytes() == content
        assert landed.files == len(CONTENT)
        assert landed.seen.keys() == {b"a", b"b", b"c"}


def test_what_the_host_could_not_read_whole_is_fetched_again(tmp_path: Path) -> None:
    """Its size and ctime may be as they were: a disk over there that cannot be read."""
    with landing(PARTS, tmp_path / "into") as it:
        it.take([tar(*[file(*each) for each in CONTENT.items()])])
        it.doubt("work/a: Read error at byte 0, while reading 600 bytes: padding with zeros")
        assert fresh(PARTS, tmp_path / "into", it.finish().seen).files == PARTS.files[:1]


def test_more_than_the_rest_of_a_file_is_not_taken(tmp_path: Path) -> None:
    with landing(PARTS, tmp_path / "into") as it:
        with suppress(BrokenOff):
            it.take([tar(file(b"work/a", CONTENT[b"work/a"]))[:700]])
        with pytest.raises(FetchError, match="more than it has listed"):
            it.go_on([b"0" * 5000])


def test_a_file_that_has_grown_beyond_all_measure_does_not_keep_the_others(tmp_path: Path) -> None:
    grown = header(Member(name=b"work/a", size=SLACK + 2 * PARTS.size + 1))
    with landing(PARTS, tmp_path / "into") as it:
        with pytest.raises(BrokenOff, match="more than it has listed: 'a'"):
            it.take([tar(file(b"work/b", b"x")), grown])
        it.take([tar(*[file(each.source, CONTENT[each.source]) for each in it.awaited.values()])])
        landed = it.finish()
    assert {path.name for path in (tmp_path / "into").iterdir()} == {"b", "c"}
    assert whys(landed) == {b"a": "has grown too much since it was listed"}
    assert landed.seen.keys() == {b"b", b"c"}


def test_a_full_disk_is_named_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FetchError, match=f"no room for the results in {tmp_path}"):
        land(tmp_path, b"a")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_this_disk_refuses_is_reported_and_the_rest_lands(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    landed = land(tmp_path, b"x" * 250 + b"/a", b"locked/a", b"b")
    assert (tmp_path / "b").read_text() == "new"
    if os.geteuid() != 0:
        assert b"locked/a" in whys(landed)


def test_only_what_is_new_is_fetched_again(tmp_path: Path) -> None:
    def changed(stamp: bytes) -> Results:
        return arrange([Changed(kind="f", size=3, area="w", path=b"a", stamp=stamp)], PLACE)

    landed = land_tar([tar(file(b"work/a"))], changed(b"1"), tmp_path)
    assert fresh(changed(b"1"), tmp_path, landed.seen).pieces == ()
    assert len(fresh(changed(b"2"), tmp_path, landed.seen).pieces) == 1
    assert len(fresh(changed(b""), tmp_path, landed.seen).pieces) == 1
    (tmp_path / "a").unlink()
    assert len(fresh(changed(b"1"), tmp_path, landed.seen).pieces) == 1


def test_a_file_that_grew_while_it_was_sent_is_fetched_again(tmp_path: Path) -> None:
    item = Changed(kind="f", size=2, area="w", path=b"a", stamp=b"1")
    landed = land_tar([tar(file(b"work/a"))], arrange([item], PLACE), tmp_path)
    assert landed.seen == {}


def test_left_overs_of_a_killed_fetch_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    dead = tmp_path / ".incoming-dead"
    dead.mkdir()
    (dead / "1.arriving").write_text("half")
    os.utime(dead, (time.time() - 3600,) * 2)
    with incoming(tmp_path) as living:
        os.utime(living, (time.time() - 3600,) * 2)
        with incoming(tmp_path):
            assert not dead.exists()
            assert living.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"cannot write results to .*file"):
        land(tmp_path / "file", b"a")


@pytest.mark.parametrize(
    "craft",
    [
        lambda info: info.__setattr__("name", "../../evil"),
        lambda info: info.__setattr__("name", "/tmp/evil"),
        lambda info: info.__setattr__("type", tarfile.CHRTYPE),
        lambda info: info.__setattr__("type", tarfile.FIFOTYPE),
        lambda info: info.pax_headers.update(path="../evil"),
    ],
)
def test_a_tar_made_by_another_hand_is_held_to_what_was_asked_for(
    tmp_path: Path, craft: Callable[[tarfile.TarInfo], None]
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("work/a")
        craft(info)
        archive.addfile(info)
    landed = land_tar([out.getvalue()], wanted(b"a"), tmp_path / "into")
    assert landed.files == 0
    assert landed.skipped
    assert [path.name for path in tmp_path.iterdir()] == ["into"]


def test_a_name_of_a_gigabyte_is_refused_before_it_is_read() -> None:
    endless = (b"\0" * 65536 for _ in range(1 << 30))

    def chunks() -> Iterator[bytes]:
        yield header(Member(name=b"x", kind=b"L", size=1 << 30))
        yield from endless

    with pytest.raises(FetchError, match="absurdly long"):
        next(TarReader(chunks()).members())


@pytest.mark.parametrize(
    "path", [b"", b"/a", b"..", b"a/../b", b"a//b", b"./a", b"a/", b"a\0b", b"x" * 256]
)
def test_a_path_that_is_not_plain_is_no_place(path: bytes) -> None:
    assert fault(path)


@pytest.mark.parametrize("path", [b"a", b"..a/b..", b"\xff\n", b"-rf", b"a b/" + b"c" * 255])
def test_a_plain_path_is_a_place(path: bytes) -> None:
    assert fault(path) == ""
