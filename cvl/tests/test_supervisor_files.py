"""Files on the far side: the cache, what a run has changed, tidying up."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvl.tests import farside
from cvl.tests.farside import Content, Host, kill, supervisor

ODD = b"a b\n'\"*[x]\\ \xff\xc3\xa4"
"""All that can go wrong in a name: line break, quotes, pattern, backslash, not UTF-8."""


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def dash(tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, "dash")


def link(target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def executable(content: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.mode, member.size = 0o755, len(content)
    return member


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def changed(host: Host, run: str = "one", image: str = "") -> dict[tuple[str, str, bytes], bytes]:
    """Return (type, area, path) -> size or link target."""
    reply = host.ask("changed", id=run, image=image)
    assert reply.answers == [], reply
    records = iter(reply.body.split(b"\0")[:-1])
    found = {}
    for record in records:
        kind, size, area, path = record.split(b"\t", 3)
        assert size.split(b":")[1].replace(b".", b"").isdigit()
        key = (kind.decode(), area.decode(), path)
        assert key not in found
        found[key] = next(records) if kind == b"l" else size.split(b":")[0]
    return found


# --- the cache and the workspace


def test_a_tree_is_sent_once_and_then_by_its_differences(host: Host) -> None:
    files: dict[str, Content] = {
        "tree/keep": b"1",
        "tree/dir/edit": b"1",
        "tree/dir/go/x": b"1",
        "tree/l": link("keep"),
    }
    show = "find . -path ./.git -prune -o ! -type d -print | sort; cat dir/edit\n"
    first = host.start("r1", show, files, follow=1, cache="c", base="-", tree="t1")
    assert first.body == b"./dir/edit\n./dir/go/x\n./keep\n./l\n1"
    again = host.start("r2", show, follow=1, cache="c", base="t1", tree="t1")
    assert again.body == first.body
    delta = {"gone": b"dir/go\0keep\0", "tree/dir/edit": b"2", "tree/keep/now a folder": b""}
    third = host.start("r3", show, delta, follow=1, cache="c", base="t1", tree="t2")
    assert third.body == b"./dir/edit\n./keep/now a folder\n./l\n2"
    whole = host.start("r4", show, {"tree/dir/edit": b"3"}, follow=1, cache="c", tree="t3")
    assert whole.body == b"./dir/edit\n3"


def test_a_delta_that_does_not_fit_changes_nothing(host: Host) -> None:
    reply = host.start("r1", "true\n", {"tree/f": b"1"}, cache="c", base="t0", tree="t1")
    assert (reply.code, reply.answers) == (1, ["need tree -"])
    host.start("r1", "true\n", {"tree/f": b"1"}, follow=1, cache="c", tree="t1")
    reply = host.start("r2", "true\n", {"tree/f": b"2"}, cache="c", base="t0", tree="t2")
    assert reply.answers == ["need tree t1"]
    assert (host.base / "cache/c/tree/f").read_bytes() == b"1"
    assert not any((host.base / "new").iterdir())
    assert host.ask("status", id="r2").last == "unknown"


def test_an_update_that_was_cut_short_is_noticed(host: Host) -> None:
    host.start("r1", "true\n", {"tree/f": b"1"}, follow=1, cache="c", tree="t1")
    (host.base / "cache/c/id").write_text("")
    reply = host.start("r2", "true\n", cache="c", base="t1", tree="t1")
    assert reply.answers == ["need tree -"]


@pytest.mark.parametrize("what", farside.SPOILT)
def test_a_cache_that_somebody_else_has_changed_is_noticed(host: Host, what: str) -> None:
    files: dict[str, Content] = {"tree/d/f": b"1", "tree/g": b"2"}
    host.start("r1", "true\n", files, follow=1, cache="c", tree="t1")
    kept = host.start("r2", "cat d/f g\n", follow=1, cache="c", base="t1", tree="t1")
    assert kept.body == b"12"
    farside.spoil(host.base / "cache/c/tree", what)
    refused = host.start("r3", "cat d/f g\n", cache="c", base="t1", tree="t1")
    assert refused.answers == ["need tree -"]
    whole = host.start("r3", "cat d/f g; ls d\n", files, follow=1, cache="c", tree="t1")
    assert whole.body == b"12f\n"
    again = host.start("r4", "cat d/f g; ls d\n", follow=1, cache="c", base="t1", tree="t1")
    assert again.body == whole.body


def test_what_another_start_changes_meanwhile_is_no_reason_to_distrust_the_cache(
    tmp_path: Path,
) -> None:
    [host] = farside.hosted(tmp_path, "dash")
    host.start("r1", "true\n", {"tree/f": b"1"}, follow=1, cache="c", tree="t1")
    (tmp_path / "bin/find").write_text(
        f'#!/bin/sh\nuntil [ -e {tmp_path}/go ]; do sleep 0.01; done\nexec /usr/bin/find "$@"\n'
    )
    (tmp_path / "bin/find").chmod(0o755)
    data = farside.script("cat f\n", {"tree/f": b"2"})
    late = host.open(
        "start", {"id": "r2", "cache": "c", "base": "t1", "tree": "t2", "follow": 1}, data
    )
    farside.wait_for(lambda: list(host.base.glob("new/*/end")))
    (host.base / "cache/c/id").write_text("t2\n")
    time.sleep(0.05)  # the clock of a file system ticks
    (host.base / "cache/c/tree/f").write_text("2")
    (tmp_path / "go").touch()
    assert farside.finish(late).body == b"2"
    assert (host.base / "cache/c/id").read_text() == "t2\n"


def test_a_lock_whose_holder_died_is_taken(host: Host) -> None:
    host.start("r1", "true\n", {"tree/f": b"1"}, follow=1, cache="c", tree="t1")
    locks = sorted((host.base / "cache/c").glob("lock.*"))
    locks[-1].with_name("lock.99").write_text("999999 1 no-boot\n")
    reply = host.start("r2", "cat f\n", follow=1, cache="c", base="t1", tree="t1")
    assert reply.body == b"1"


def test_a_lock_that_is_held_is_waited_for(host: Host) -> None:
    holder = subprocess.Popen(["sleep", "1000"])
    try:
        start = Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (host.base / "cache/c").mkdir(parents=True)
        (host.base / "cache/c/lock.1").write_text(f"{holder.pid} {start} {boot} x\n")
        data = farside.script("true\n", {"tree/f": b"1"})
        process = host.open("start", {"id": "one", "cache": "c", "tree": "t", "follow": 1}, data)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    finally:
        holder.kill()
        holder.wait()
    assert farside.finish(process).last.startswith("result exited 0 ")


def test_no_run_can_spoil_another(host: Host) -> None:
    files: dict[str, Content] = {"tree/f": b"1", "tree/x.sh": executable(b"")}
    host.start("r1", "echo spoiled >f; rm x.sh\n", files, follow=1, cache="c", tree="t")
    reply = host.start("r2", "cat f; stat -c %a x.sh\n", follow=1, cache="c", base="t", tree="t")
    assert reply.body == b"1755\n"


def test_a_git_file_of_its_own_is_kept(dash: Host) -> None:
    files = {"tree/.git": b"gitdir: elsewhere\n"}
    reply = dash.start("r1", "cat .git\n", files, follow=1, cache="c", tree="t")
    assert reply.body == b"gitdir: elsewhere\n"


def test_odd_names_travel(host: Host) -> None:
    files = {b"tree/" + ODD: b"1", b"tree/-rf": b"2", b"tree/dir/" + ODD + b"/f": b"3"}
    reply = host.start("r1", "ls -A | wc -l\n", files, follow=1, cache="c", tree="t")
    names = sorted(os.fsdecode(name) for name in (ODD, b"-rf", b"dir", b".git"))
    assert listed(host.job("r1") / "ws") == names
    gone = b"-rf\0" + ODD + b"\0"
    reply = host.start("r2", "true\n", {"gone": gone}, follow=1, cache="c", base="t", tree="t2")
    assert reply.last == "result exited 0 0"
    assert listed(host.job("r2") / "ws") == [".git", "dir"]


# --- what has changed


def test_only_what_the_job_did_is_changed(host: Host) -> None:
    files: dict[str, Content] = {
        "tree/ex/old": b"1",
        "tree/ex/edit": b"1",
        "tree/ex/gone": b"1",
        "tree/ex/mode": b"1",
        "tree/shared/old": b"1",
        "run/place": b"ex",
        "job/work/input": b"1",
    }
    job = """
        echo 2 >edit; rm gone; chmod 700 mode; mkdir -p new/empty new/full; touch new/full/f
        ln -s ../../etc/passwd link; ln -s nowhere "dangling
link"; mkfifo pipe; touch -d 2001-01-01 backdated
        cp -p old copied; echo 3 >../shared/new; echo 4 >"$CVL_WORK_DIR/out"; touch ../.git/x
    """
    host.start("one", job, files, follow=1, cache="c", tree="t")
    assert changed(host) == {
        ("f", "e", b"edit"): b"2",
        ("f", "e", b"mode"): b"1",
        ("d", "e", b"new/empty"): b"0",
        ("f", "e", b"new/full/f"): b"0",
        ("l", "e", b"link"): b"../../etc/passwd",
        ("l", "e", b"dangling\nlink"): b"nowhere",
        ("o", "e", b"pipe"): b"0",
        ("f", "e", b"backdated"): b"0",
        ("f", "e", b"copied"): b"1",
        ("f", "r", b"shared/new"): b"2",
        ("f", "w", b"out"): b"2",
    }


def test_a_change_in_the_first_instant_counts(host: Host) -> None:
    for number in range(5):
        run = f"r{number}"
        host.start(run, ": >f\n", {"tree/g": b""}, follow=1, cache="c", tree="t")
        assert changed(host, run) == {("f", "e", b"f"): b"0"}


def test_nothing_is_changed_by_doing_nothing(host: Host) -> None:
    files = {f"tree/d{n % 7}/f{n}": b"x" for n in range(200)}
    host.start("one", "cat d0/f0\n", files, follow=1, cache="c", tree="t")
    assert changed(host) == {}


def test_odd_names_come_back(host: Host) -> None:
    files = {b"run/place": b"p[*]/" + ODD, b"tree/p[*]/" + ODD + b"/f": b"1"}
    job = (
        b"echo 1 >'"
        + ODD.replace(b"'", b"'\\''")
        + b"'; mkdir -- -d; ln -s '\n\n' ../l; echo x >-f\n"
    )
    reply = host.start("one", job, files, follow=1, cache="c", tree="t")
    assert reply.last == "result exited 0 0"
    assert changed(host) == {
        ("f", "e", ODD): b"2",
        ("d", "e", b"-d"): b"0",
        ("f", "e", b"-f"): b"2",
        ("l", "r", b"p[*]/l"): b"\n\n",
    }


def test_in_place_what_was_there_is_left_out(host: Host, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    (place / ".git").mkdir(parents=True)
    (place / "old").write_text("1")
    files = {"run/place": os.fsencode(place), "run/inplace": b""}
    host.start("one", 'echo new >new; echo 1 >"$CVL_WORK_DIR/w"\n', files, follow=1)
    assert changed(host) == {("f", "e", b"new"): b"4", ("f", "w", b"w"): b"2"}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(
        st.binary(min_size=1, max_size=30).filter(lambda b: not set(b) & {0, 1, 2, 47}),
        min_size=1,
        max_size=8,
        unique=True,
    ).filter(lambda names: not {b".", b"..", b".git"} & set(names))
)
def test_any_name_that_a_file_can_have(
    tmp_path_factory: pytest.TempPathFactory, names: list[bytes]
) -> None:
    for shell in ("dash", "busybox"):
        for host in farside.hosted(tmp_path_factory.mktemp("any"), shell):
            host.start("one", "true\n", follow=1)
            for name in names:
                Path(os.fsdecode(os.fsencode(host.job("one") / "ws") + b"/" + name)).write_bytes(
                    b"1"
                )
            assert changed(host) == {("f", "e", name): b"1" for name in names}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_what_may_not_be_read_is_told(open_folder: Path) -> None:
    """As nobody, with files that root has left."""
    for shell in ("dash", "busybox"):
        for host in farside.hosted(open_folder / shell, shell):
            mine = as_nobody(host)
            mine.start("one", "mkdir d; echo 1 >f\n", follow=1)
            workspace = host.job("one") / "ws"
            (workspace / "closed").write_bytes(b"12")
            (workspace / "closed").chmod(0o600)
            (workspace / "shut").mkdir(mode=0o700)
            (workspace / "shut" / "in").touch()
            assert changed(mine) == {
                ("d", "e", b"d"): b"0",
                ("f", "e", b"f"): b"2",
                ("u", "e", b"closed"): b"2",
                ("u", "e", b"shut"): b"0",
            }
            reply = mine.ask("clean", id="one")
            assert reply.answers[-1] == "result exited 0 0"
            assert f"warn cannot remove {workspace}" in reply.answers[0]


def test_what_is_ours_and_closed_is_opened(open_folder: Path) -> None:
    for shell in ("dash", "busybox"):
        for host in farside.hosted(open_folder / shell, shell):
            mine = as_nobody(host)
            job = "mkdir d; echo 1 >d/f; echo 22 >g; chmod 0 d/f d g\n"
            mine.start("one", job, {"tree/old": b"1"}, follow=1, cache="c", tree="t")
            assert changed(mine) == {("f", "e", b"d/f"): b"2", ("f", "e", b"g"): b"3"}
            assert mine.ask("pack", b"ws/d/f\0", id="one").answers == []
            mine.ask("clean", id="one")
            assert listed(host.run("one")) == ["result"]


def test_an_unknown_run_has_no_files(dash: Host) -> None:
    for verb in ("changed", "pack", "rest"):
        assert dash.ask(verb, id="x").answers == ["fail unknown no such run: x"]


def test_pack_brings_what_is_asked_for(host: Host) -> None:
    job = b"printf 123 >'" + ODD.replace(b"'", b"'\\''") + b"'; mkdir d; echo >d/f; ln -s x l\n"
    host.start("one", job, follow=1)
    names = [b"ws/" + ODD, b"ws/d", b"ws/l"]
    reply = host.ask("pack", b"".join(name + b"\0" for name in names), id="one")
    with tarfile.open(fileobj=io.BytesIO(reply.body), ignore_zeros=True) as archive:
        assert sorted(os.fsencode(name) for name in archive.getnames()) == sorted(names)
        member = archive.extractfile(os.fsdecode(names[0]))
        assert member
        assert member.read() == b"123"


def mark_of(host: Host, name: bytes) -> bytes:
    """Return what `rest` wants to know of a file: how `changed` marks it."""
    records = host.ask("changed", id="one").body.split(b"\0")
    found = next(each for each in records if each.endswith(b"\t" + name))
    return found.split(b"\t")[1].replace(b":", b" ")


@pytest.mark.parametrize("name", [ODD, b"plain", b"ends\n\n"])
def test_the_rest_of_a_file_comes_if_that_is_marked_as_it_was(name: bytes, host: Host) -> None:
    quoted = b"'" + name.replace(b"'", b"'\\''") + b"'"
    host.start("one", b"printf 0123456789 >" + quoted + b"\n", follow=1)
    asked = mark_of(host, name) + b"\nws/" + name
    reply = host.ask("rest", asked, id="one", offset=4)
    assert (reply.body, reply.answers) == (b"456789", ["same"])
    assert host.ask("rest", asked, id="one", offset=10).body == b""
    time.sleep(0.02)  # the clock of files has ticks
    path = Path(os.fsdecode(os.fsencode(host.job("one")) + b"/ws/" + name))
    path.write_bytes(b"9876543210")
    reply = host.ask("rest", asked, id="one", offset=4)
    assert (reply.body, reply.answers) == (b"", [])
    path.unlink()
    reply = host.ask("rest", asked, id="one", offset=4)
    assert (reply.body, reply.answers) == (b"", [])


@pytest.mark.parametrize("size", [3 << 30, 5 << 30], ids=["3 GiB", "5 GiB"])
def test_the_rest_comes_of_a_file_however_large_it_is(size: int, host: Host) -> None:
    """The tail of busybox counts up to 2 GiB, and reads all that is before."""
    job = f"printf 0123456789 | dd of=big bs=65536 seek={size >> 16} 2>/dev/null\n"
    host.start("one", job, follow=1)
    asked = mark_of(host, b"big") + b"\nws/big"
    reply = host.ask("rest", asked, id="one", offset=size + 4)
    assert (reply.body, reply.answers) == (b"456789", ["same"])
    assert host.ask("rest", asked, id="one", offset=size - 2).body == b"\0\x000123456789"


def test_a_file_of_gigabytes_is_listed_with_its_size(host: Host) -> None:
    """The awk of busybox writes whole numbers up to 2 GiB."""
    host.start("one", f"printf 1 | dd of=big bs=65536 seek={5 << 14} 2>/dev/null\n", follow=1)
    assert changed(host)["f", "e", b"big"] == b"%d" % ((5 << 30) + 1)


def test_pack_tells_what_it_could_not_read(host: Host) -> None:
    host.start("one", "echo 1 >f\n", follow=1)
    reply = host.ask("pack", b"ws/f\0ws/not-there\0", id="one")
    assert reply.answers == ["warn some files could not be read"]
    assert b"not-there" in reply.noise
    with tarfile.open(fileobj=io.BytesIO(reply.body), ignore_zeros=True) as archive:
        assert archive.getnames() == ["ws/f"]


def test_pack_tells_of_a_file_that_shrinks_while_it_is_sent(dash: Host) -> None:
    host = dash
    host.start("one", "head -c 9000000 /dev/zero | tr '\\0' x >f\n", follow=1)
    sending = host.open("pack", {"id": "one"}, b"ws/f\0")
    assert sending.stdout
    begins = sending.stdout.read(100_000)
    os.truncate(host.job("one") / "ws/f", 4_000_000)
    reply = farside.finish(sending)
    assert "padded ws/f: File shrank by 5000000 bytes; padding with zeros" in reply.answers
    assert len(begins) == 100_000


# --- tidying up


def test_clean_leaves_the_result_and_what_ran(host: Host) -> None:
    files = {"tree/f": b"1", "run/meta.json": b"{}"}
    host.start("one", "echo hello >f; echo out\n", files, follow=1, cache="c", tree="t")
    assert host.ask("clean", id="one").answers == ["result exited 0 4"]
    assert listed(host.run("one")) == ["meta.json", "result"]
    assert host.ask("status", id="one").last == "result exited 0 4"
    assert host.ask("follow", id="one").answers == ["result exited 0 4"]
    assert host.ask("clean", id="one").answers == ["result exited 0 4"]
    assert host.ask("clean", id="two").answers == ["unknown"]
    assert host.start("one", "echo again\n", follow=1).last == "result exited 0 4"


def test_a_living_run_is_not_cleaned_nor_swept(host: Host) -> None:
    host.start("one", "exec sleep 1000\n")
    assert host.ask("clean", id="one").answers == ["fail usage one is still running"]
    assert host.ask("sweep", days=0).body == b""
    assert host.ask("runs").body == b"one running\n"
    host.ask("stop", id="one", grace=1)
    host.result("one")


def test_runs_tells_all_and_settles_what_is_lost(host: Host) -> None:
    assert host.ask("runs").body == b""
    host.start("a", "exit 3\n", follow=1)
    host.start("b", "exec sleep 1000\n")
    kill(supervisor(host, "b"))
    farside.wait_for(lambda: b"running" not in host.ask("runs").body)
    assert host.ask("runs").body == b"a result exited 3 0\nb result lost 125 0\n"


def test_sweep_removes_what_is_old(host: Host) -> None:
    host.start("old", "true\n", {"tree/f": b"1"}, follow=1, cache="c", tree="t")
    host.start("new", "true\n", {"tree/f": b"1"}, follow=1, cache="d", tree="t")
    leftover = host.base / "new" / "999999-1"
    leftover.mkdir()
    past = time.time() - 31 * 86400
    os.utime(host.run("old") / "result", (past, past))
    os.utime(host.base / "cache/c/used", (past, past))
    reply = host.ask("sweep")
    assert reply.body.splitlines() == [b"old removed", b"new/999999-1 removed", b"cache/c removed"]
    assert listed(host.base / "runs") == ["new"]
    assert listed(host.base / "cache") == ["d"]
    assert host.ask("sweep", days=0).body.splitlines() == [b"new removed", b"cache/d removed"]


def as_nobody(host: Host) -> Host:
    """Return the host as the user nobody sees it; all of it is nobody's."""
    for folder in (host.base.parent, *host.base.parent.rglob("*")):
        if not folder.is_symlink():
            shutil.chown(folder, "nobody")
    wrapper = host.base.parent / "as-nobody"
    setpriv = shutil.which("setpriv")
    wrapper.write_text(
        f'#!/bin/sh\nexec {setpriv} --reuid 65534 --regid 65534 --clear-groups {host.sh} "$@"\n'
    )
    wrapper.chmod(0o755)
    return Host(base=host.base, env=host.env, sh=str(wrapper))
