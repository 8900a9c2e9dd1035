"""A ledger whose bits have flipped: what is read is a value or a `LedgerError`, nothing else."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cleanup.leases import spent
from cvl.core.errors import CvlError, LedgerError
from cvl.core.process import me
from cvl.core.spec import ExitStatus, Resource
from cvl.ledger import LeaseState, Ledger, Run, RunState, ps_json, store
from cvl.ledger.schema import TABLES
from cvl.operations import reap_findings
from cvl.operations.orphan_notice import notice
from cvl.operations.refresh import undriven

RUN = "damaged-1124-050000-0123456789"
FLIPS, READS = 1000, 7
"""Damaged files that are read; each tenth is written as well, which costs the disk a sync."""


def filled(path: Path, runs: int = 4) -> Ledger:
    """Return a ledger of some runs, each with a machine and a key; the first is `RUN`."""
    ledger = Ledger(path, patience=0.2)
    for number in range(runs):
        run_id = RUN if not number else f"other-{number}-1124-050000-0123456789"
        handle = {"run": run_id, "machine": f"cvl-{run_id}", "address": "127.0.0.1"}
        ledger.begin(Run(id=run_id, runner="lambda", handle=handle, args=("a", "b"), owner=me()))
        ledger.advance(run_id, RunState.LAUNCHING, deadline=2e9)
        for kind in ("ssh-key", "instance"):
            price = Decimal("1.29") if kind == "instance" else None
            wanted = Resource(kind=kind, name=f"cvl-{run_id}", price_per_hour=price, deadline=2e9)
            lease = ledger.intend(run_id, wanted, provider="lambda")
            assert lease
            ledger.confirm(lease, f"{kind}-{number}")
        ledger.advance(run_id, RunState.RUNNING)
    return ledger


def reads(ledger: Ledger) -> dict[str, Callable[[], object]]:
    """Return everything that `ps`, `stop`, `reap`, the guardian and a release ask of a ledger."""
    return {
        "ps": lambda: [
            json.dumps(ps_json(run, ledger.leases(run.id))) and undriven(run) and run.status
            for run in [*ledger.runs(20), *ledger.runs(active_only=True)]
        ],
        "cost": lambda: spent(ledger.leases(RUN), 1.9e9),
        "stop": lambda: ledger.find(RUN),
        "prefix": lambda: ledger.find("damaged"),
        "reap": lambda: [*reap_findings.abandoned(ledger), *reap_findings.left_over(ledger)],
        "notice": ledger.orphans,
        "id": ledger.id,
        "guardian": lambda: ledger.take(RUN, me(), ledger.run(RUN).owner),
        "release": lambda: [ledger.releasing(line) for line in ledger.leases(RUN, open_only=True)],
        "note": lambda: ledger.note(RUN, deadline=1.0),
        "advance": lambda: ledger.advance(RUN, RunState.FETCHING, status=ExitStatus(1)),
        "finish": lambda: ledger.finish(RUN, ExitStatus(1), cost=Decimal(1)),
    }


def test_flipped_bits_never_raise_anything_foreign(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.db")
    sound = ledger.path.read_bytes()
    chance = random.Random(12)
    told = 0
    for number in range(FLIPS):
        data = bytearray(sound)
        for _ in range(chance.choice((1, 1, 1, 8))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        ledger.path.write_bytes(data)
        Path(f"{ledger.path}-journal").unlink(missing_ok=True)
        asks = list(reads(ledger).values())
        for ask in asks if number % 10 == 0 else asks[:READS]:
            try:
                ask()
            except CvlError:
                told += 1
    assert told  # else nothing was damaged at all


COLUMNS = (
    *("state", "handle", "args", "exit_code", "cause", "started", "deadline", "cost", "owner"),
    *("room", "price_per_hour", "results", "fetched", "detached", "example", "guardian"),
)
LEASE_COLUMNS = ("state", "deadline", "price_per_hour", "created", "note", "intended")
ANYTHING = (
    st.none()
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.sampled_from(
        ("[" * 100_000, '{"a": 1}', "NaN", "1e999999", "-1", "9" * 5000, "\0", "liwe")
    )
)


@given(st.sampled_from(COLUMNS), st.sampled_from(LEASE_COLUMNS), ANYTHING, ANYTHING)
def test_whatever_a_column_holds_the_row_is_read_and_the_others_too(
    tmp_path_factory: pytest.TempPathFactory, column: str, of_lease: str, one: object, two: object
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    ledger = filled(folder / "ledger.db", runs=2)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        for table, key, name, value in (
            ("runs", "id", column, one),
            ("leases", "run_id", of_lease, two),
        ):
            try:
                db.execute(f"UPDATE {table} SET {name} = ? WHERE {key} = ?", (value, RUN))
            except (sqlite3.IntegrityError, UnicodeEncodeError):
                return  # what the schema itself refuses does not get there
    assert {run.id for run in ledger.runs()} == {RUN, "other-1-1124-050000-0123456789"}
    for ask in list(reads(ledger).values())[:READS]:
        ask()


def test_text_that_is_no_utf_8_is_read(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.db", runs=1)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.execute("UPDATE runs SET example = CAST(x'ff61' AS TEXT)")
    (run,) = ledger.runs()
    assert run.example == "\\xffa"


@pytest.mark.parametrize("state", ["liwe", "", "released\0", 7])
def test_what_is_in_a_state_that_nobody_knows_is_open(tmp_path: Path, state: object) -> None:
    ledger = filled(tmp_path / "ledger.db", runs=1)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.execute("UPDATE leases SET state = ?", (state,))
    found = ledger.leases(RUN, open_only=True)
    assert [line.state for line in found] == [LeaseState.LIVE] * 2
    assert all(line.damage == ("state",) for line in found)


def test_a_row_longer_than_any_of_ours_does_not_fill_the_memory(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.db", runs=1)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.execute("UPDATE runs SET detail = zeroblob(1 << 26)")
    with pytest.raises(LedgerError):
        ledger.runs()


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"


def changed(ledger: Ledger, script: str) -> None:
    """Change what a ledger is made of."""
    with closing(sqlite3.connect(ledger.path)) as db:
        db.executescript(f"PRAGMA foreign_keys = OFF; {script}")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("what", ["1 FROM n", "count(*) AS id FROM n"])
def test_no_view_takes_a_table_s_place(tmp_path: Path, table: str, what: str) -> None:
    ledger = filled(tmp_path / "ledger.db", runs=1)
    changed(ledger, f"DROP TABLE {table}; CREATE VIEW {table} AS {ENDLESS} {what}")
    before = time.monotonic()
    for ask in reads(ledger).values():
        with pytest.raises(LedgerError, match="its tables are not there, or are something else"):
            ask()
    assert time.monotonic() - before < 5
    with pytest.raises(LedgerError, match="It was kept as"):
        ledger.begin(Run(id="new", runner="local"))
    ledger.begin(Run(id="new", runner="local"))


def test_the_notice_of_every_command_asks_no_endless_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = filled(tmp_path / "ledger.db", runs=1)
    changed(
        ledger, f"DROP TABLE leases; CREATE VIEW leases AS {ENDLESS} 'released' AS state FROM n"
    )
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    before = time.monotonic()
    assert notice() == ""
    assert time.monotonic() - before < 10


def test_a_statement_without_an_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = filled(tmp_path / "ledger.db", runs=1)
    changed(
        ledger,
        "CREATE TABLE n (x); INSERT INTO n VALUES (0); CREATE TRIGGER t AFTER UPDATE ON runs BEGIN"
        f" UPDATE n SET x = (SELECT count(*) FROM ({ENDLESS} x FROM n)); END",
    )
    monkeypatch.setattr(store, "ENOUGH", 0.2)
    with pytest.raises(LedgerError, match="does not come to an end") as raised:
        ledger.note(RUN, deadline=1.0)
    assert "move it away" in raised.value.hint
    assert ledger.run(RUN).deadline != 1.0


def test_waiting_for_others_is_not_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(filled(tmp_path / "ledger.db", runs=1).path, patience=30)
    monkeypatch.setattr(store, "ENOUGH", 0.2)
    monkeypatch.setattr(store, "STEPS", 1)
    other = sqlite3.connect(ledger.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    later = threading.Timer(0.5, other.close)
    later.start()
    assert ledger.note(RUN, deadline=1.0)
    later.join()


def test_a_lock_that_stays_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ending asks many times, and does without the ledger: it must not wait each time."""
    ledger = Ledger(filled(tmp_path / "ledger.db", runs=1).path, patience=2)
    monkeypatch.setattr(store, "STUCK", 0.01)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="locked"):
            ledger.runs()
        before = time.monotonic()
        for _ in range(5):
            with pytest.raises(LedgerError, match="locked"):
                ledger.note(RUN, deadline=1.0)
        assert time.monotonic() - before < 2
    assert ledger.note(RUN, deadline=1.0)
