"""The ledger's file when things are not as they should be: nothing is lost, all is said."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cvl.core.errors import LedgerError, NotFound
from cvl.core.spec import ExitStatus
from cvl.ledger import Ledger, Run, RunState

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = 65534


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db", patience=0.2)


@pytest.fixture
def full(book: Ledger) -> Ledger:
    """A ledger of some twenty pages."""
    with book._store.beginning():
        pass
    for number in range(60):
        book.begin(Run(id=f"r{number}", args=("x" * 900,)))
    return book


def kept(book: Ledger) -> list[Path]:
    return sorted(book.path.parent.glob("*.corrupt-*"))


def files(book: Ledger) -> set[str]:
    return {path.name for path in book.path.parent.iterdir()}


def test_what_is_noted_is_on_the_disk_before_it_is_done(full: Ledger) -> None:
    """With less than FULL a power cut may take back what SQLite has said is there."""
    with full._store._connected() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.timeout(60)
def test_what_is_no_file_is_said_and_waited_for_by_no_command(
    full: Ledger, kind: str, suffix: str
) -> None:
    place = Path(f"{full.path}{suffix}")
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place, 0o600)
    elif kind == "folder":
        place.mkdir(mode=0o700)
    else:
        place.symlink_to("/dev/zero")
    for ask in (full.runs, lambda: full.note("r1", deadline=1.0)):
        with pytest.raises(LedgerError, match="no file"):
            ask()
    with pytest.raises(LedgerError):
        full.begin(Run(id="new"))
    env = {**os.environ, "CVL_STATE_DIR": str(full.path.parent)}
    argv = [sys.executable, "-m", "cvl", "ps"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == LedgerError.exit_code
    assert "is no file" in done.stderr


# Missing, and created


def test_asking_a_missing_ledger_creates_nothing(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "a/ledger.db")
    assert (book.runs(), book.orphans(), book.leases(), book.id()) == ([], [], [], "")
    with pytest.raises(NotFound):
        book.find("r")
    with pytest.raises(LedgerError, match="no ledger"):
        book.run("r")
    writes: list[Callable[[], object]] = [
        lambda: book.advance("r", RunState.RUNNING),
        lambda: book.finish("r", ExitStatus(0)),
        lambda: book.take("r", "a", ""),
    ]
    for write in writes:
        with pytest.raises(LedgerError, match="it is not there any more"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_new_ledger_is_private_and_has_an_id_of_its_own(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        book = Ledger(tmp_path / "a/b/ledger.db")
        book.begin(Run(id="r"))
        other = Ledger(tmp_path / "other.db")
        other.begin(Run(id="r"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in book.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "ledger.db" in modes
    assert book.path.parent.stat().st_mode & 0o777 == 0o700
    assert len(book.id()) == 16
    assert book.id() == book.id() != other.id()


def test_what_a_killed_creator_has_left_is_no_hindrance(book: Ledger) -> None:
    Path(f"{book.path}.new").write_bytes(b"half a ledger")
    Path(f"{book.path}.new-journal").write_bytes(b"and its journal")
    book.begin(Run(id="r"))
    assert files(book) <= {"ledger.db", "ledger.db-journal", "ledger.db.lock"}


def test_many_create_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state/ledger.db"
    in_threads(8, lambda number: Ledger(path).begin(Run(id=f"r{number}")))
    assert {run.id for run in Ledger(path).runs()} == {f"r{number}" for number in range(8)}


@pytest.mark.parametrize("name", [b"a?mode=memory", b"50% #1", b"\xff\xfe", "Büro".encode()])
def test_any_path_will_do(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name) / "ledger.db"
    Ledger(path).begin(Run(id="r"))
    assert path.is_file()
    assert [run.id for run in Ledger(path).runs()] == ["r"]


def test_a_symbolic_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    book = Ledger(tmp_path / "ledger.db")
    book.path.symlink_to("real/elsewhere.db")
    book.begin(Run(id="r"))
    assert book.path.is_symlink()
    (tmp_path / "real/elsewhere.db").write_bytes(b"damaged")
    with pytest.raises(LedgerError, match=r"kept as elsewhere\.db\.corrupt-"):
        book.begin(Run(id="s"))
    book.begin(Run(id="s"))
    assert [run.id for run in book.runs()] == ["s"]


# Damaged


def cut(fraction: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * fraction)]


def blank(start: int, end: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:start] + b"\0" * (end - start) + data[end:]


DAMAGE = {
    "text": lambda _: b"{}\n",
    "empty": lambda _: b"",
    "cut to a byte": lambda data: data[:1],
    "cut in the header": lambda data: data[:50],
    "cut to a page": lambda data: data[:4096],
    "cut to half": cut(0.5),
    "cut by a byte": lambda data: data[:-1],
    "cut by a page": lambda data: data[:-4096],
    "zeroed": lambda data: b"\0" * len(data),
    "zeroed header": blank(0, 16),
    "zeroed schema": blank(100, 4096),
    "scrambled runs": lambda data: data[:4096] + bytes(range(256)) * 64 + data[20480:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_ledger_is_kept_aside_by_a_new_run_alone(
    full: Ledger, damage: Callable[[bytes], bytes]
) -> None:
    wreck = damage(full.path.read_bytes())
    full.path.write_bytes(wreck)
    acts: list[Callable[[], object]] = [
        full.runs,
        full.orphans,
        lambda: full.find("r1"),
        lambda: full.advance("r1", RunState.LAUNCHING),
        lambda: full.finish("r1", ExitStatus(0)),
    ]
    for act in acts:
        with pytest.raises(LedgerError) as said:
            act()
        assert "cvl run" in said.value.hint
    assert (full.path.read_bytes(), kept(full)) == (wreck, [])

    with pytest.raises(LedgerError, match=r"It was kept as ledger.db.corrupt-\d{8}-\d{6}-") as said:
        full.begin(Run(id="new"))
    assert "cvl reap" in said.value.hint
    (aside,) = kept(full)
    assert aside.read_bytes() == wreck
    assert not full.path.exists()

    full.begin(Run(id="new"))
    assert [run.id for run in full.runs()] == ["new"]
    assert kept(full) == [aside]


def test_damage_where_nobody_looks_does_not_stop_anybody(full: Ledger) -> None:
    """Moved aside is only what the command itself stumbles over."""
    with closing(sqlite3.connect(full.path)) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'leases_of'"
        ).fetchone()
    data = full.path.read_bytes()
    full.path.write_bytes(blank((page - 1) * 4096, page * 4096)(data))
    full.begin(Run(id="new"))
    assert kept(full) == []


def test_a_damaged_ledger_is_kept_aside_once_and_a_healthy_one_never(full: Ledger) -> None:
    full.path.write_bytes(b"damaged")
    told = []

    def insist(number: int) -> None:
        for _ in range(20):
            try:
                Ledger(full.path).begin(Run(id=f"n{number}"))
            except LedgerError as error:
                told.append(str(error))
            else:
                return

    in_threads(6, insist)
    assert {run.id for run in full.runs()} == {f"n{number}" for number in range(6)}
    (aside,) = kept(full)
    assert aside.read_bytes() == b"damaged"
    assert sum("It was kept as" in text for text in told) == 1


def test_a_ledger_restored_in_the_last_moment_is_not_moved(full: Ledger) -> None:
    import fcntl

    sound = full.path.read_bytes()
    full.path.write_bytes(b"damaged")
    told: list[LedgerError] = []

    def begin() -> None:
        try:
            Ledger(full.path, patience=20).begin(Run(id="new"))
        except LedgerError as error:
            told.append(error)

    with Path(f"{full.path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=begin)
        waiting.start()
        waiting.join(0.2)
        full.path.write_bytes(sound)
    waiting.join(20)
    assert "damaged" in str(told)
    assert (full.path.read_bytes(), kept(full)) == (sound, [])


def test_a_journal_that_has_lost_its_ledger_is_not_played_into_the_next(full: Ledger) -> None:
    journal = Path(f"{full.path}-journal")
    with closing(sqlite3.connect(full.path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE runs SET detail = 'x', args = args || ' '")
        hot = journal.read_bytes()
        db.execute("ROLLBACK")
    assert hot.startswith(bytes.fromhex("d9d505f920a163d7"))
    full.path.unlink()
    journal.write_bytes(hot)
    full.begin(Run(id="new"))
    assert [run.id for run in full.runs()] == ["new"]
    (aside,) = kept(full)
    assert (aside.name[-8:], aside.read_bytes()) == ("-journal", hot)


# Sound, but not for us


def test_a_newer_ledger_is_not_touched(full: Ledger) -> None:
    with closing(sqlite3.connect(full.path)) as db:
        db.execute("PRAGMA user_version = 9")
    before = full.path.read_bytes()
    for act in (full.runs, full.orphans, lambda: full.begin(Run(id="new"))):
        with pytest.raises(LedgerError, match=r"newer cvl \(format 9") as said:
            act()
        assert "upgrade cvl" in said.value.hint
    assert (full.path.read_bytes(), kept(full)) == (before, [])


def test_somebody_elses_database_is_not_touched(book: Ledger) -> None:
    with closing(sqlite3.connect(book.path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = book.path.read_bytes()
    for act in (book.runs, lambda: book.begin(Run(id="new"))):
        with pytest.raises(LedgerError, match="not cvl's"):
            act()
    assert (book.path.read_bytes(), kept(book)) == (before, [])


def test_a_folder_in_its_place_is_an_error(book: Ledger) -> None:
    book.path.mkdir()
    for act in (book.runs, lambda: book.begin(Run(id="new"))):
        with pytest.raises(LedgerError, match="is no file"):
            act()
    assert kept(book) == []


def test_a_ledger_that_stays_locked_says_so(full: Ledger) -> None:
    with closing(sqlite3.connect(full.path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        for act in (full.runs, lambda: full.begin(Run(id="new"))):
            with pytest.raises(LedgerError, match="locked"):
                act()
    full.begin(Run(id="new"))
    assert kept(full) == []
    assert not list(full.path.parent.glob("probe-*"))


def test_a_writer_waits_for_a_reader_and_another_writer(full: Ledger) -> None:
    patient = Ledger(full.path, patience=20)
    done = threading.Event()

    def write() -> None:
        patient.begin(Run(id="new"))
        done.set()

    with closing(sqlite3.connect(full.path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        writer = threading.Thread(target=write)
        writer.start()
        assert not done.wait(0.2)
    writer.join(20)
    assert done.is_set()


def test_who_holds_the_creators_lock_for_ever_is_not_waited_for(book: Ledger) -> None:
    import fcntl

    with Path(f"{book.path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LedgerError, match="locked"):
            book.begin(Run(id="r"))
    book.begin(Run(id="r"))


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Give `folder` to somebody without rights and be that somebody."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that somebody without rights can reach."""
    folder = Path(tempfile.mkdtemp(prefix="cvl-test-"))
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "readable"),
    [
        (0o500, 0o400, True),
        (0o500, 0o600, True),
        (0o700, 0o400, True),
        (0o700, 0, False),
        (0, 0o600, False),
    ],
)
def test_without_permission_it_is_said_and_left_alone(
    open_folder: Path, folder_mode: int, file_mode: int, readable: bool
) -> None:
    book = Ledger(open_folder / "state/ledger.db", patience=0.2)
    book.begin(Run(id="r"))
    book.advance("r", RunState.LAUNCHING)
    before = book.path.read_bytes()
    Path(f"{book.path}-journal").unlink()
    book.path.chmod(file_mode)
    book.path.parent.chmod(folder_mode)
    with unprivileged(open_folder):
        if readable:
            assert [run.id for run in book.runs()] == ["r"]
        else:
            with pytest.raises(LedgerError, match="cannot read the ledger"):
                book.runs()
        for write in (
            lambda: book.begin(Run(id="new")),
            lambda: book.advance("r", RunState.RUNNING),
        ):
            with pytest.raises(LedgerError) as said:
                write()
            assert "CVL_STATE_DIR" in said.value.hint
    book.path.parent.chmod(0o700)
    book.path.chmod(0o600)
    assert (book.path.read_bytes(), kept(book)) == (before, [])


def test_a_state_folder_that_cannot_be_made_is_said(open_folder: Path) -> None:
    open_folder.chmod(0o500)
    book = Ledger(open_folder / "state/ledger.db")
    with unprivileged(open_folder), pytest.raises(LedgerError, match="Permission denied"):
        book.begin(Run(id="r"))


@ROOT_ONLY
def test_a_full_disk_loses_nothing_that_was_noted(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", disk],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        book = Ledger(disk / "ledger.db")
        noted = fill_up(book)
        assert len(book.runs()) == noted > 10
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        book.begin(Run(id="new"))
        assert book.finish("r0", ExitStatus(0))
        assert kept(book) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def fill_up(book: Ledger) -> int:
    """Return how many runs were noted before the disk was full."""
    noted = 0
    with pytest.raises(LedgerError, match="the disk is full") as said:  # noqa: PT012
        for noted in range(1000):
            book.begin(Run(id=f"r{noted}", args=("x" * 500,)))
    assert "make room" in said.value.hint
    return noted


def in_threads(count: int, act: Callable[[int], object]) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            act(number)
        except (AssertionError, LedgerError) as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
