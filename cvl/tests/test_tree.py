"""Trees: ids, what is read again, deltas, and the tar that carries them, by real tars."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvl.core.errors import CvlError
from cvl.core.safe_dir import Folders
from cvl.host.tarstream import Member, TarReader, header, padding
from cvl.host.upload import hashes as hashes_module
from cvl.host.upload import payload as payloads
from cvl.host.upload.hashes import BLOCK, Entry, Hashes
from cvl.host.upload.repository_files import walk
from cvl.host.upload.tree import KEPT, Delta, Tree, delta, keep, known

TARS = [["tar", "-xpof", "-"], ["busybox", "tar", "-xpof", "-"]]


def read(root: Path, kept: Path | None = None) -> Tree:
    hashes = Hashes(root, kept)
    found = ((path, hashes.entry(path)) for path in walk(os.fsencode(root), b"", everything=True))
    tree = Tree({path: entry for path, entry in found if entry}, root)
    hashes.save()
    return tree


def put(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def age(root: Path) -> None:
    """Give all files a time long ago, so that they count as settled. ctime cannot be set."""
    for file in root.rglob("*"):
        os.utime(file, (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def payload(files: Mapping[str, bytes | Path], change: Delta | None) -> bytes:
    return b"".join(payloads.payload(files, change))


def unpack(tar: list[str], data: bytes, into: Path) -> None:
    done = subprocess.run(tar, input=data, cwd=into, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def apply(change: Delta, tar: list[str], far: Path) -> None:
    """Do to `far` what the far side does with a payload (docs/far-side.md)."""
    incoming = far.parent / "incoming"
    incoming.mkdir()
    unpack(tar, payload({}, change), incoming)
    assert (incoming / "end").exists()
    if (incoming / "gone").exists():
        script = f"xargs -0 rm -rf -- <{incoming}/gone"
        subprocess.run(["sh", "-c", script], cwd=far, check=True, timeout=60)
    if (incoming / "tree").exists():
        script = f"(cd {incoming}/tree && tar -cf - .) | tar -xpof -"
        subprocess.run(["sh", "-c", script], cwd=far, check=True, timeout=60)
    shutil.rmtree(incoming)


def test_equal_content_has_an_equal_id_wherever_it_lies(tmp_path: Path) -> None:
    files = {"a/x": b"1", "b": b"2"}
    one, two = put(tmp_path / "one", files), put(tmp_path / "two", files)
    age(two)
    assert read(one).id == read(two).id
    assert len(read(one).id) == 32


@pytest.mark.parametrize("change", ["content", "name", "mode", "kind", "gone", "more"])
def test_whatever_differs_gives_another_id(tmp_path: Path, change: str) -> None:
    root = put(tmp_path, {"a": b"1", "b": b"2"})
    before = read(root).id
    match change:
        case "content":
            (root / "a").write_bytes(b"3")
        case "name":
            (root / "a").rename(root / "c")
        case "mode":
            (root / "a").chmod(0o755)
        case "kind":
            (root / "a").unlink()
            (root / "a").symlink_to("b")
        case "gone":
            (root / "a").unlink()
        case "more":
            (root / "empty").mkdir()
    assert read(root).id != before


def test_a_settled_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, kept = put(tmp_path / "root", {"a": b"1"}), tmp_path / "kept"
    monkeypatch.setattr(time, "time_ns", lambda: int((time.time() + 60) * 1e9))
    first = read(root, kept).id
    monkeypatch.setattr(Folders, "open", lambda _, path: pytest.fail(f"{path} is read"))
    assert read(root, kept).id == first


@pytest.mark.parametrize(("tick", "noticed"), [(600, True), (-600, False)])
def test_a_file_read_in_the_tick_in_which_it_was_touched_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: int, *, noticed: bool
) -> None:
    """Other content with the same size, times and inode: what an edit within a tick looks like."""
    monkeypatch.setattr(hashes_module, "TICK_NS", tick * hashes_module.SECOND_NS)
    monkeypatch.setattr(hashes_module, "stamp_of", lambda _: b"the same")
    root, kept = put(tmp_path / "root", {"a": b"1"}), tmp_path / "kept"
    os.utime(root / "a", (1.5, 1.5))
    first = read(root, kept).id
    (root / "a").write_bytes(b"2")
    assert (read(root, kept).id != first) is noticed


@pytest.mark.parametrize("damage", [b"", b"garbage", b"a\0b", b"\0" * 7])
def test_a_damaged_note_of_what_was_read_only_costs_reading(tmp_path: Path, damage: bytes) -> None:
    root, kept = put(tmp_path / "root", {"a": b"1"}), tmp_path / "kept"
    kept.write_bytes(damage)
    assert read(root, kept).id == read(root).id


def test_a_file_that_never_stands_still_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put(tmp_path, {"log": b"1"})
    real = os.fstat

    def busy(fd: int) -> os.stat_result:
        os.utime(root / "log")
        with (root / "log").open("ab") as file:
            file.write(b"more")
        return real(fd)

    monkeypatch.setattr(os, "fstat", busy)
    with pytest.raises(CvlError, match="log changes while it is read"):
        read(root)


def test_what_changes_between_reading_and_sending_is_never_sent_as_what_was_read(
    tmp_path: Path,
) -> None:
    for content in (b"2", b"longer", b"", None):
        root = put(tmp_path, {"a": b"1", "b": b"1"})
        change = delta(None, read(root))
        if content is None:
            (root / "b").unlink()
        else:
            (root / "b").write_bytes(content)
        sent: list[bytes] = []
        with pytest.raises(CvlError, match="b changed while it was sent"):
            sent.extend(payloads.payload({}, change))
        assert b"end" not in b"".join(sent)


def test_what_was_read_just_now_is_sent_as_it_was_read(tmp_path: Path) -> None:
    root = put(tmp_path, {"a": b"1", "gone": b"2"})
    (root / "a").chmod(0o755)
    hashes = Hashes(root)
    entries = {path: entry for path in (b"a", b"gone") if (entry := hashes.entry(path))}
    change = delta(None, Tree(entries, root, hashes))
    (root / "a").write_bytes(b"changed")
    (root / "gone").unlink()
    with tarfile.open(fileobj=io.BytesIO(payload({}, change))) as archive:
        sent = archive.getmember("tree/a")
        assert (archive.extractfile(sent) or io.BytesIO()).read() == b"1"
        assert (sent.mode, sent.size) == (0o755, 1)
        assert archive.getnames() == ["tree/a", "tree/gone", "end"]


def test_only_so_much_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes_module, "HELD_LIMIT", 10)
    monkeypatch.setattr(hashes_module, "BLOCK", 8)
    root = put(tmp_path, {"a": b"1" * 6, "b": b"2" * 6, "c": b"3" * 4, "long": b"4" * 9})
    hashes = Hashes(root)
    for path in (b"a", b"b", b"c", b"long"):
        hashes.entry(path)
    assert {path: held.content for path, held in hashes.held.items()} == {
        b"a": b"1" * 6,
        b"c": b"3" * 4,
    }


def test_a_link_put_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    root = put(tmp_path / "root", {"a": b"secret"})
    change = delta(None, read(root))
    (root / "a").rename(tmp_path / "a")
    (root / "a").symlink_to(tmp_path / "a")
    with pytest.raises(CvlError):
        payload({}, change)


def test_known_trees_are_found_by_id_and_the_oldest_forgotten(tmp_path: Path) -> None:
    trees = [Tree({b"a\xff\nb": Entry("f", True, n, b"%032x" % n)}) for n in range(KEPT + 5)]
    for n, tree in enumerate(trees):
        keep(tmp_path, tree)
        os.utime(tmp_path / f"tree-{tree.id}", (n, n))
    keep(tmp_path, Tree({b"z": Entry("l", content=b"to")}))
    assert known(tmp_path, trees[0].id) is None
    loaded = known(tmp_path, trees[-1].id)
    assert loaded is not None
    assert loaded.entries == trees[-1].entries
    assert len(list(tmp_path.iterdir())) == KEPT
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())


@pytest.mark.parametrize("tree_id", ["-", "", "../../etc/passwd", "0" * 32])
def test_an_id_that_is_none_is_unknown(tmp_path: Path, tree_id: str) -> None:
    assert known(tmp_path, tree_id) is None


def test_a_damaged_tree_is_unknown(tmp_path: Path) -> None:
    tree = Tree({b"a": Entry("f", False, 1, b"0" * 32)})
    keep(tmp_path, tree)
    (tmp_path / f"tree-{tree.id}").write_bytes(b"a\0f0 1 beef\0")
    assert known(tmp_path, tree.id) is None


NAMES = st.sampled_from(["a", "b", "c d", "e\nf", "ü"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.one_of(
    st.tuples(st.just("f"), st.booleans(), st.binary(max_size=4)),
    st.tuples(st.just("l"), st.just(False), st.sampled_from([b"a", b"../x", b"/etc"])),
    st.tuples(st.just("d"), st.just(False), st.just(b"")),
)
SPECS = st.dictionaries(PATHS, CONTENTS, max_size=6)


def build(root: Path, spec: Mapping[str, tuple[str, bool, bytes]]) -> None:
    root.mkdir()
    for name, (kind, executable, content) in spec.items():
        path = root / name
        above = [root / parent for parent in Path(name).parents]
        if os.path.lexists(path) or any(p.is_symlink() or p.is_file() for p in above):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "f":
            path.write_bytes(content)
            path.chmod(0o755 if executable else 0o644)
        elif kind == "l":
            path.symlink_to(os.fsdecode(content))
        else:
            path.mkdir()


@settings(max_examples=40, deadline=None)
@given(old=SPECS, new=SPECS, tar=st.sampled_from(TARS))
def test_a_delta_makes_any_tree_into_any_other(
    old: Mapping[str, tuple[str, bool, bytes]],
    new: Mapping[str, tuple[str, bool, bytes]],
    tar: list[str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, after, far = (Path(folder, name) for name in ("before", "after", "far"))
        build(before, old)
        build(after, new)
        far.mkdir()
        old_tree, new_tree = read(before), read(after)
        apply(delta(None, old_tree), tar, far)
        assert read(far).id == old_tree.id
        apply(delta(old_tree, new_tree), tar, far)
        assert read(far).id == new_tree.id


def test_nothing_is_sent_when_nothing_changed(tmp_path: Path) -> None:
    tree = read(put(tmp_path, {"a": b"1"}))
    change = delta(tree, tree)
    assert (change.gone, change.send) == ((), {})


@pytest.mark.parametrize("tar", TARS, ids=["gnu", "busybox"])
def test_names_of_every_kind_arrive(tmp_path: Path, tar: list[str]) -> None:
    long = "/".join(["d" * 90] * 12) + "/" + "f" * 255
    odd = ["x" * 100, "x" * 101, long, "new\nline", "-dash", "ü", os.fsdecode(b"\xff"), "bl ank"]
    root = put(tmp_path / "root", {name: name.encode(errors="replace") for name in odd})
    (root / "link").symlink_to("t" * 300)
    far = tmp_path / "far"
    far.mkdir()
    apply(delta(None, read(root)), tar, far)
    assert read(far).id == read(root).id


def test_a_payload_is_the_same_each_time_and_comes_in_large_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    root = put(tmp_path, {f"f{n}": b"x" * 5000 for n in range(1000)} | {"big": b"y" * 3_000_001})
    change = delta(None, read(root))
    assert payload({}, change) == payload({}, change)
    assert len(list(payloads.payload({}, change))) < 12


def test_run_files_come_first_and_ours_are_private(tmp_path: Path) -> None:
    root = put(tmp_path / "root", {"a": b"1"})
    inputs = put(tmp_path / "inputs", {"sub/x.jpg": b"jpg", "tool": b"#!"})
    (inputs / "tool").chmod(0o755)
    files: dict[str, bytes | Path] = {
        "run/job.sh": b"exec true\n",
        "job/work/in": inputs,
        "job/work/one": inputs / "sub/x.jpg",
    }
    data = payload(files, delta(Tree({b"old": Entry("l", content=b"x")}), read(root)))
    members = {member.name: member for member in TarReader([data]).members()}
    assert next(iter(members)) == b"run/job.sh"
    assert [*members][-3:] == [b"gone", b"tree/a", b"end"]
    assert members[b"run/job.sh"].mode == 0o600
    assert members[b"job/work/in/tool"].mode == 0o755
    assert members[b"job/work/one"].size == 3


def test_times_stay_within_what_zip_files_can_hold(tmp_path: Path) -> None:
    root = put(tmp_path, {"old": b"", "new": b""})
    os.utime(root / "old", (0, 0))
    os.utime(root / "new", (9e9, 9e9))
    data = payload({}, delta(None, read(root)))
    times = {member.name: member.mtime for member in TarReader([data]).members()}
    assert times[b"tree/old"] == 315_532_800
    assert times[b"tree/new"] <= time.time()


@given(
    name=st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name),
    size=st.sampled_from([0, 1, 511, 512, 513, 8**11 - 1, 8**11, 2**40]),
    cut=st.integers(min_value=1, max_value=700),
)
def test_headers_are_read_as_they_were_written(name: bytes, size: int, cut: int) -> None:
    member = Member(name=name, size=size, mode=0o755, mtime=1_700_000_000)
    data = header(member)
    chunks = [data[at : at + cut] for at in range(0, len(data), cut)]
    assert next(TarReader(chunks).members()) == member
    assert (size + len(padding(size))) % 512 == 0


@pytest.mark.parametrize("settled", [True, False])
def test_a_file_too_long_to_hold_is_hashed_again_only_if_its_times_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, settled: bool
) -> None:
    monkeypatch.setattr(hashes_module, "HELD_LIMIT", 0)
    if settled:
        monkeypatch.setattr(hashes_module, "TICK_NS", 0)
        monkeypatch.setattr(hashes_module, "COARSE_TICK_NS", 0)
    root = put(tmp_path, {"long": b"1" * 100})
    hashes = Hashes(root)
    entry = hashes.entry(b"long")
    assert entry
    wrong = entry._replace(content=b"0" * 32)
    assert bool(hashes.stamp(b"long")) is settled
    hashed_again = pytest.raises(CvlError) if not settled else nullcontext()
    with hashed_again:
        payload({}, delta(None, Tree({b"long": wrong}, root, hashes)))
    whole = delta(None, Tree({b"long": entry}, root, hashes))
    assert b"1" * 100 in payload({}, whole)
    (root / "long").write_bytes(b"2" * 100)
    with pytest.raises(CvlError, match="long changed while it was sent"):
        payload({}, whole)


def test_one_that_is_written_to_while_it_is_sent_is_noticed_by_its_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes_module, "HELD_LIMIT", 0)
    monkeypatch.setattr(hashes_module, "TICK_NS", 0)
    root = put(tmp_path, {"long": b"1" * 3 * BLOCK})
    hashes = Hashes(root)
    entry = hashes.entry(b"long")
    assert entry
    assert hashes.stamp(b"long")

    def send() -> None:
        for _ in payloads.payload({}, delta(None, Tree({b"long": entry}, root, hashes))):
            with (root / "long").open("r+b") as file:
                file.write(b"2")

    with pytest.raises(CvlError, match="long changed while it was sent"):
        send()
