"""A ledger of an older format: nothing is lost on its way to that of now, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cvl.cleanup.leases import room_of
from cvl.core.errors import LedgerError
from cvl.core.spec import Cause
from cvl.ledger import LeaseState, Ledger, Run, RunState, formats
from cvl.ledger.formats import FORMAT
from cvl.tests.test_ledger_crash import ROOT, memory, python, saboteur

__all__ = ["memory", "saboteur"]

FORMAT_1 = r"""
CREATE TABLE leases (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES runs (id),
    provider TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
    state TEXT NOT NULL, deadline REAL, price_per_hour TEXT,
    note TEXT NOT NULL, context TEXT NOT NULL,
    intended REAL NOT NULL, created REAL, released REAL,
    UNIQUE (provider, kind, name, id)
);
CREATE TABLE ledger (id TEXT NOT NULL);
INSERT INTO "ledger" VALUES('255ba09f83a69592');
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    example TEXT NOT NULL, preset TEXT NOT NULL, args TEXT NOT NULL,
    runner TEXT NOT NULL, "where" TEXT NOT NULL, handle TEXT NOT NULL, options TEXT NOT NULL,
    state TEXT NOT NULL, exit_code INTEGER, cause TEXT, detail TEXT NOT NULL,
    started REAL, ended REAL, deadline REAL,
    price_per_hour TEXT, cost TEXT, currency TEXT NOT NULL,
    results TEXT NOT NULL, fetched INTEGER NOT NULL, detached INTEGER NOT NULL,
    owner TEXT NOT NULL, guardian TEXT NOT NULL
);
CREATE INDEX runs_open ON runs (seq) WHERE state <> 'ended';
CREATE INDEX leases_of ON leases (run_id);
CREATE INDEX leases_open ON leases (run_id) WHERE state <> 'released';
INSERT INTO leases VALUES(1,'launching-1124-050000-0123456789','lambda','ssh-key',
'cvl-launching-1124-050000-0123456789','ssh-key-0','live',1750003600.0,NULL,'','{}',
1750000003.0,1750000004.0,NULL);
INSERT INTO leases VALUES(2,'launching-1124-050000-0123456789','lambda','instance',
'cvl-launching-1124-050000-0123456789','','intended',1750003600.0,'1.29','','{}',1750000005.0,
NULL,NULL);
INSERT INTO leases VALUES(3,'running-1124-050001-0123456789','lambda','ssh-key',
'cvl-running-1124-050001-0123456789','ssh-key-1','live',1750003600.0,NULL,'','{}',1750000007.0,
1750000008.0,NULL);
INSERT INTO leases VALUES(4,'running-1124-050001-0123456789','lambda','instance',
'cvl-running-1124-050001-0123456789','instance-1','live',1750003600.0,'1.29','','{}',
1750000009.0,1750000010.0,NULL);
INSERT INTO leases VALUES(5,'fetching-1124-050002-0123456789','lambda','ssh-key',
'cvl-fetching-1124-050002-0123456789','ssh-key-2','live',1750003600.0,NULL,'','{}',1750000012.0,
1750000013.0,NULL);
INSERT INTO leases VALUES(6,'fetching-1124-050002-0123456789','lambda','instance',
'cvl-fetching-1124-050002-0123456789','instance-2','live',1750003600.0,'1.29','','{}',
1750000014.0,1750000015.0,NULL);
INSERT INTO leases VALUES(7,'releasing-1124-050003-0123456789','lambda','ssh-key',
'cvl-releasing-1124-050003-0123456789','ssh-key-3','releasing',1750003600.0,NULL,'','{}',
1750000017.0,1750000018.0,NULL);
INSERT INTO leases VALUES(8,'releasing-1124-050003-0123456789','lambda','instance',
'cvl-releasing-1124-050003-0123456789','instance-3','releasing',1750003600.0,'1.29','','{}',
1750000019.0,1750000020.0,NULL);
INSERT INTO leases VALUES(9,'ended-1124-050004-0123456789','lambda','ssh-key',
'cvl-ended-1124-050004-0123456789','ssh-key-4','released',1750003600.0,NULL,'','{}',
1750000024.0,1750000025.0,1750000030.0);
INSERT INTO leases VALUES(10,'ended-1124-050004-0123456789','lambda','instance',
'cvl-ended-1124-050004-0123456789','instance-4','released',1750003600.0,'1.29','','{}',
1750000026.0,1750000027.0,1750000031.0);
INSERT INTO ledger VALUES('255ba09f83a69592');
INSERT INTO runs VALUES(1,'planned-1124-050000-0123456789','generative/llm/nanogpt','train',
'["--lr", "0.1"]','lambda','gpu_1x_a10 in us-east-1',
'{"run": "planned-1124-050000-0123456789"}','{}','planned',NULL,NULL,'',1750000001.0,NULL,NULL,
NULL,NULL,'USD','',0,0,'','');
INSERT INTO runs VALUES(2,'launching-1124-050000-0123456789','e','p','["\udcff", "\u00e4"]',
'lambda','w',
'{"run": "launching-1124-050000-0123456789", "machine": "cvl-launching-1124-050000-0123456789"}',
'{"room": 600.5}','launching',NULL,NULL,'',1750000002.0,NULL,1750003600.0,'1.29',NULL,'USD',
X'2F746D702FEDB3A4',0,0,'h:m:b:s:0:1','h:m:b:s:9:1');
INSERT INTO runs VALUES(3,'running-1124-050001-0123456789','e','p','["\udcff", "\u00e4"]',
'lambda','w',
'{"run": "running-1124-050001-0123456789", "machine": "cvl-running-1124-050001-0123456789"}',
'{"room": 600.5}','running',NULL,NULL,'',1750000006.0,NULL,1750003600.0,'1.29',NULL,'USD',
X'2F746D702FEDB3A4',0,0,'h:m:b:s:1:1','h:m:b:s:9:1');
INSERT INTO runs VALUES(4,'fetching-1124-050002-0123456789','e','p','["\udcff", "\u00e4"]',
'lambda','w',
'{"run": "fetching-1124-050002-0123456789", "machine": "cvl-fetching-1124-050002-0123456789"}',
'{"room": 600.5}','fetching',7,'exited','x',1750000011.0,NULL,1750003600.0,'1.29',NULL,'USD',
X'2F746D702FEDB3A4',0,0,'h:m:b:s:2:1','h:m:b:s:9:1');
INSERT INTO runs VALUES(5,'releasing-1124-050003-0123456789','e','p','["\udcff", "\u00e4"]',
'lambda','w',
'{"run": "releasing-1124-050003-0123456789", "machine": "cvl-releasing-1124-050003-0123456789"}',
'{"room": 600.5}','releasing',7,'exited','x',1750000016.0,NULL,1750003600.0,'1.29',NULL,'USD',
X'2F746D702FEDB3A4',1,0,'h:m:b:s:3:1','h:m:b:s:9:1');
INSERT INTO runs VALUES(6,'ended-1124-050004-0123456789','e','p','["\udcff", "\u00e4"]',
'lambda','w',
'{"run": "ended-1124-050004-0123456789", "machine": "cvl-ended-1124-050004-0123456789"}',
'{"room": 600.5}','ended',7,'exited','',1750000023.0,1750000032.0,1750003600.0,'1.29','0.43',
'USD',X'2F746D702FEDB3A4',1,0,'','');
PRAGMA application_id = 1668705329;
PRAGMA user_version = 1;
"""
"""A run in each state of its life, as cvl wrote them then. Not to be changed any more."""

DROPPED = {"runs": {"options"}, "leases": {"context"}, "ledger": set[str]()}
STATES = tuple(state for state in RunState if state is not RunState.PLANNED)

CHILD = r"""
import ctypes, json, os, shutil, sys
from pathlib import Path
from cvl.ledger import Ledger

def one(path, calls):
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).sabotage(ctypes.c_long(calls), 0)
        Ledger(path, patience=5).note(sys.argv[3], where="elsewhere")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

folder, old = Path(sys.argv[1]), sys.argv[2]
codes = []
while not codes or codes[-1]:
    here = folder / str(len(codes))
    here.mkdir()
    shutil.copy(old, here / "ledger.db")
    codes.append(one(here / "ledger.db", len(codes)))
print(json.dumps(codes))
"""

TOGETHER = r"""
import sys
from pathlib import Path
from cvl.ledger import Ledger, Run
book = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
assert book.note(sys.argv[2], where="elsewhere")
book.begin(Run(id="by-" + sys.argv[2]))
"""


def older(path: Path, change: str = "") -> Ledger:
    """Return a ledger of format 1, as cvl wrote them then."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_1 + change)
    return Ledger(path, patience=5)


def rows(path: Path) -> dict[str, list[dict[str, object]]]:
    """Return all that stands in a ledger's tables, read past our code."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        return {
            name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")] for name in DROPPED
        }


def number(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return formats.format_of(db)


def run_id(state: RunState) -> str:
    return f"{state}-1124-05000{max(STATES.index(state), 0)}-0123456789"


def check(ledger: Ledger) -> None:
    """All runs and all that is open of them are there, and say what they said."""
    runs = {run.id: run for run in ledger.runs()}
    assert len(runs) == 6
    for state in STATES:
        run = runs[run_id(state)]
        assert (run.state, run.damage, run.args) == (state, (), ("\udcff", "ä"))
        assert (run.results, room_of(run)) == ("/tmp/\udce4", 600.5)
        assert run.handle["machine"] == f"cvl-{run.id}"
        assert (run.exit_code is None) == (state in {RunState.LAUNCHING, RunState.RUNNING})
        key, machine = ledger.leases(run.id)
        assert key.id == f"ssh-key-{STATES.index(state)}"
        assert str(machine.price_per_hour) == "1.29"
        closed = {line.state is LeaseState.RELEASED for line in (key, machine)}
        assert closed == {state is RunState.ENDED}
    planned = runs["planned-1124-050000-0123456789"]
    assert (planned.state, planned.args, planned.room) == (RunState.PLANNED, ("--lr", "0.1"), None)
    ended = runs[run_id(RunState.ENDED)]
    assert (ended.cause, str(ended.cost), ended.fetched) == (Cause.EXITED, "0.43", True)
    assert ledger.id() == "255ba09f83a69592"
    assert len(ledger.leases(open_only=True)) == 8


def test_who_only_reads_an_older_ledger_leaves_it_as_it_is(tmp_path: Path) -> None:
    ledger = older(tmp_path / "ledger.db")
    before = ledger.path.read_bytes()
    check(ledger)
    assert ledger.find("running").state is RunState.RUNNING
    assert ledger.path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_the_first_who_writes_raises_it_and_keeps_every_value(tmp_path: Path) -> None:
    ledger = older(tmp_path / "ledger.db")
    before = rows(ledger.path)
    assert ledger.note(run_id(RunState.ENDED), fetched=True)  # which it was
    after = rows(ledger.path)
    for table, dropped in DROPPED.items():
        for one, two in zip(before[table], after[table], strict=True):
            assert two == {name: one.get(name, 600.5) for name in two} or not two["deadline"]
            assert one.keys() - two.keys() == dropped
    assert number(ledger.path) == FORMAT
    check(ledger)
    ledger.begin(Run(id="new"))
    assert ledger.run("new").seq == 7


def test_it_becomes_what_a_new_ledger_is(tmp_path: Path) -> None:
    old, new = older(tmp_path / "old.db"), Ledger(tmp_path / "new.db")
    for ledger in (old, new):
        ledger.begin(Run(id="new"))
    assert made_of(old.path) == made_of(new.path)


def made_of(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {name: " ".join(sql.replace('"', "").split()) for name, sql in found}


def test_killed_at_every_system_call_it_is_one_or_the_other_and_whole(
    memory: Path, saboteur: str
) -> None:
    ledger = older(memory / "old.db")
    done = python(CHILD, memory, ledger.path, run_id(RunState.RUNNING), LD_PRELOAD=saboteur)
    assert done.returncode == 0, done.stderr
    *killed, last = json.loads(done.stdout)
    assert len(killed) > 20
    assert (set(killed), last) == ({-signal.SIGKILL}, 0)
    numbers = set()
    for point in range(len(killed) + 1):
        after = Ledger(memory / str(point) / "ledger.db", patience=5)
        check(after)
        numbers.add(number(after.path))
        assert after.note(run_id(RunState.RUNNING), where="there")
        assert (number(after.path), after.run(run_id(RunState.RUNNING)).where) == (FORMAT, "there")
        check(after)
    assert numbers == {1, FORMAT}


def test_many_processes_raise_it_once(tmp_path: Path) -> None:
    ledger = older(tmp_path / "ledger.db")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(ledger.path), run_id(state)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for state in (RunState.LAUNCHING, RunState.RUNNING, RunState.FETCHING, RunState.RELEASING)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    for writer in writers:
        assert writer.stdout
        writer.stdout.close()
    assert len(ledger.runs()) == 6 + 4
    assert sum(run.where == "elsewhere" for run in ledger.runs()) == 4
    assert (number(ledger.path), len(ledger.leases(open_only=True))) == (FORMAT, 8)


def test_a_row_that_is_damaged_is_carried_over_with_the_others(tmp_path: Path) -> None:
    ledger = older(tmp_path / "ledger.db")
    nulls = "UPDATE runs SET example = NULL, options = NULL WHERE seq = 3"
    strange = "UPDATE runs SET options = '[{' WHERE seq = 4; UPDATE leases SET state = 'liwe'"
    past_the_schema(ledger.path, f"{nulls}; {strange}")
    assert ledger.note(run_id(RunState.RUNNING), where="x")
    assert ledger.run(run_id(RunState.RUNNING)).damage == ("example",)
    assert ledger.run(run_id(RunState.FETCHING)).room is None
    assert len(ledger.leases(open_only=True)) == 10


def past_the_schema(path: Path, change: str) -> None:
    """Change rows as only a bit that has flipped can: against NOT NULL."""
    with closing(sqlite3.connect(path)) as db:
        made = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        for loose in (True, False):
            db.execute("PRAGMA writable_schema = ON")
            for name, sql in made.items():
                text = sql.replace(" NOT NULL", "") if loose else sql
                db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, name))
            db.commit()
            with closing(sqlite3.connect(path)) as other:
                if loose:
                    other.executescript(change)


@pytest.mark.parametrize("found", [0, -1, 1])
def test_a_damaged_number_does_no_harm(tmp_path: Path, found: int) -> None:
    ledger = older(tmp_path / "ledger.db")
    ledger.begin(Run(id="new"))
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute(f"PRAGMA user_version = {found}")
    assert len(ledger.runs()) == 7
    assert ledger.note("new", where="x")
    assert (number(ledger.path), len(ledger.runs())) == (FORMAT, 7)


def test_what_a_newer_cvl_has_raised_meanwhile_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = older(tmp_path / "ledger.db")

    def overtaken(before: Callable[[sqlite3.Connection], None], db: sqlite3.Connection) -> None:
        before(db)
        db.execute("PRAGMA user_version = 9")

    step = formats.STEPS[-1]
    monkeypatch.setattr(formats, "FORMAT", 9)
    monkeypatch.setattr(formats, "STEPS", (lambda db: overtaken(step, db),))
    with pytest.raises(LedgerError, match=r"newer cvl \(format 9"):
        ledger.begin(Run(id="new"))
