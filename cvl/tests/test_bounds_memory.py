"""However much a host sends, little of it is in memory here, and what is too much is refused."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvl.core.errors import FetchError
from cvl.host.download import spool as heaps
from cvl.host.download.fetch_history import FetchHistory
from cvl.host.download.landing import STRANGE, land_tar
from cvl.host.download.results import PART, Piece, Results, TakenPaths, arrange, parts
from cvl.host.download.spool import DiskSet, Spool
from cvl.host.tarstream import META_COUNT, META_LIMIT, ZEROS, TarReader
from cvl.testing import hostile
from cvl.testing.hostile import HostileHost, tar_header
from cvl.tests.test_results import listed

REST = 64 << 20
"""Bytes that a process of ours may take, whatever comes."""
CHILD = """
import sys
from pathlib import Path
import cvl.run.lifecycle, cvl.ledger
from cvl.host.rpc import FarSide
from cvl.host.job import RemoteJob
from cvl.core.scope import Scope
from cvl.transports.ssh.openssh import OpenSSH
config, into = sys.argv[1:]
job = RemoteJob(FarSide(OpenSSH("testhost", config=config, control_persist=0)), {"run": "none"},
                patience=0.1)
steps = (job.poll, lambda: job.stop(1.0), lambda: job.fetch(Path(into), Scope(seconds=5)),
         lambda: sum(1 for _ in job.chunks()), job.discard)
from threading import Timer
for step in steps:
    if step is steps[3]:
        Timer(2, job.close).start()
    try:
        step()
    except Exception as error:
        print(type(error).__name__, str(error)[:300], file=sys.stderr)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileHost]:
    with hostile.host(tmp_path_factory.mktemp("hostile")) as made:
        yield made


BIG = (
    *("flood-stderr", "flood-lines", "flood-stdout", "flood-payload", "flood-answers"),
    *("long-answer", "huge-listing", "wide-listing", "more-than-named", "name-bomb"),
)


@pytest.mark.parametrize("name", BIG)
def test_a_process_stays_small_whatever_comes(
    there: HostileHost, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.login.turn(name)
    env = {**os.environ, **there.sshd.env, "CVL_STATE_DIR": str(tmp_path / "state")}
    words = [sys.executable, "-c", CHILD, str(there.sshd.ssh_config), str(tmp_path / "results")]
    done = subprocess.run(words, env=env, capture_output=True, timeout=100, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < REST, done.stderr
    assert len(done.stderr.splitlines()) >= 2


def test_pax_headers_are_read_in_a_time_that_grows_as_they_do() -> None:
    record = b"".join(b"%d k%d=v\n" % (len(b"%d" % i) + 8, i) for i in range(4000, 8000))
    record = b"12 abcd=efg\n" * (META_LIMIT // 12)
    data = tar_header(b"x", len(record), b"x") + record + bytes(-len(record) % 512)
    began = time.monotonic()
    with pytest.raises(FetchError):
        list(TarReader([data] * META_COUNT).members())
    assert time.monotonic() - began < 2


def endless(block: bytes) -> Iterator[bytes]:
    return itertools.repeat(block, 1 << 20)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_about_a_member_that_never_comes(kind: bytes) -> None:
    text = b"12 abcd=efg\n" if kind in b"xg" else b"name\0"
    block = tar_header(b"x", len(text), kind) + text.ljust(512, b"\0")
    with pytest.raises(FetchError, match="does not end"):
        list(TarReader(endless(block)).members())


def test_zeros_without_end() -> None:
    with pytest.raises(FetchError, match="does not end"):
        list(TarReader(endless(bytes(512 * ZEROS))).members())


def test_a_long_name_without_end() -> None:
    block = tar_header(b"x", META_LIMIT + 1, b"L")
    with pytest.raises(FetchError, match="absurdly long"):
        list(TarReader(endless(block)).members())


def wanted() -> Results:
    return Results(pieces=(Piece(source=b"work/a", target=b"a", size=3),))


def test_files_that_nobody_has_asked_for(tmp_path: Path) -> None:
    block = tar_header(b"other", 0)
    with pytest.raises(FetchError, match="more than it has listed"):
        land_tar(endless(block), wanted(), tmp_path)
    few = land_tar(
        [block * STRANGE, tar_header(b"work/a", 3), b"abc".ljust(512, b"\0"), bytes(1024)],
        wanted(),
        tmp_path,
    )
    assert few.files == 1


def test_a_file_that_is_much_larger_than_it_was_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="more than it has listed"):
        land_tar(endless(tar_header(b"work/a", 1 << 40)), wanted(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def rows(count: int, area: str = "w") -> bytes:
    return b"".join(b"f\t%d:1\t%s\td/file-%d\0" % (i, area.encode(), i) for i in range(count))


@pytest.mark.parametrize("small", [1 << 22, 1000])
def test_a_list_is_the_same_in_memory_and_on_disk(
    tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heaps, "SMALL", small)
    data = rows(PART * 2 + 5) + b"l\t0:1\tw\tlink\0to\0"
    with Spool(tmp_path / "state", "a host") as spool:
        for _ in range(2):
            spool.clear()
            for at in range(0, len(data), 9999):
                spool.take(data[at : at + 9999])
        assert spool.small == (small > 1000)
        found = list(parts(spool.fields()))
    assert [len(part) for part in found] == [PART, PART, 6]
    assert [item for part in found for item in part] == listed(data)
    assert list((tmp_path / "state").iterdir() if (tmp_path / "state").exists() else []) == []


def test_a_list_that_breaks_off_or_never_ends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(data: bytes, step: int) -> None:
        with Spool(tmp_path, "a host") as spool:
            for at in range(0, len(data), step):
                spool.take(data[at : at + step])
            list(parts(spool.fields()))

    with pytest.raises(FetchError, match="broke off"):
        taken(rows(5) + b"f\t1", 100)
    with pytest.raises(FetchError, match="without end"):
        taken(b"n" * (1 << 16), 1 << 12)
    monkeypatch.setattr(heaps, "MOST", 10_000)
    with pytest.raises(FetchError, match="without end"):
        taken(rows(10_000), 1000)


def test_places_are_the_same_in_parts_and_at_once() -> None:
    every = listed(rows(50) + rows(70, "e") + rows(90, "r"))
    at_once = arrange(every, b"ex")
    places, pieces = TakenPaths(DiskSet), list[Piece]()
    for at in range(0, len(every), 7):
        pieces += arrange(every[at : at + 7], b"ex", places).pieces
    assert sorted(p.target for p in pieces) == sorted(p.target for p in at_once.pieces)
    assert len({p.target for p in pieces}) == 210


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, None])
def test_damaged_notes_count_as_empty(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "run" / "fetched.db"
    with closing(FetchHistory(file, b"here")) as history:
        assert history.add([(b"a", b"1")], [b"x"]) == [b"x"]
        assert history.marks([b"a", b"b"]) == {b"a": b"1"}
    with closing(FetchHistory(file, b"here")) as history:
        assert history.add([], [b"x", b"y"]) == [b"y"]
        assert history.marks([b"a"]) == {b"a": b"1"}
    if damage is None:
        data = bytearray(file.read_bytes())
        data[100:] = bytes(len(data) - 100)
        damage = bytes(data)
    file.write_bytes(damage)
    with closing(FetchHistory(file, b"here")) as history:
        assert history.marks([b"a"]) == {}
        history.add([(b"a", b"2")], [])
    with closing(FetchHistory(file, b"elsewhere")) as history:
        assert history.marks([b"a"]) == {}
