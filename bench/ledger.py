"""The ledger: whether it stays quick with 100,000 runs, and after a crash."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench import commands
from bench.ledgers import filled, past
from bench.pairs import in_turns
from bench.profiles import functions
from bench.values import Failed, Goal, Measure, Sample, Topic
from bench.work import Work
from cvl.ledger import Ledger

REASONS = {
    "noted": "The ledger opens and checks its file each time, and syncs a rollback journal and the "
    "file (no WAL: homes lie on NFS), where the base keeps its connection open.",
    "ps": "See the functions below.",
}
FEW = 20
INSERTS = 20
CRASH = """\
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = TRUNCATE")
db.execute("PRAGMA cache_size = 10")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE runs SET detail = 'never committed', exit_code = 99")
print("ready", flush=True)
time.sleep(600)
"""
"""Writes all rows, with so small a cache that they are in the file before the commit."""


def measure(work: Work) -> Topic:
    """Measure `ps`, a run noted, and the first look after a kill -9 in a transaction."""
    topic = Topic(
        name="ledger",
        title="The ledger",
        question="Does it stay quick with very many runs, and after a crash?",
    )
    count, folder = work.sizes.many_runs, work.disk
    filled(folder / "few" / "ledger.db", min(FEW, count))
    filled(folder / "many" / "ledger.db", count)
    few, many = f"{min(FEW, count)} runs", f"{count:,} runs"
    share = work.seconds / 3
    _ps(topic, work, few, many, share)
    _inserts(topic, work, few, many, share)
    _crashes(topic, work, many, share)
    topic.reasons = REASONS
    if topic.missed():
        cvl = work.cvls[0]
        env = cvl.environment(CVL_STATE_DIR=str(folder / "many"))
        topic.profiles[f"functions of `cvl ps`, {many}"] = functions(cvl, ["ps"], env)
    return topic


def _ps(topic: Topic, work: Work, few: str, many: str, seconds: float) -> None:
    measures: dict[str, Measure] = {}
    for cvl in work.cvls:
        for name, state in ((few, "few"), (many, "many")):
            env = cvl.environment(CVL_STATE_DIR=str(work.disk / state))
            measures[f"{cvl.called('ps')} ({name})"] = partial(
                commands.timed, [cvl.program, "ps"], env
            )
    found = in_turns(measures, rounds=work.sizes.rounds, seconds=seconds)
    topic.missing |= found.missing
    cvl = work.cvls[0]
    base, goal = f"{cvl.called('ps')} ({few})", {f"{cvl.called('ps')} ({many})": Goal(limit=1.2)}
    topic.tables.append(found.table("`cvl ps`", "s", "ms", base, goal, scale=1000))


def _inserts(topic: Topic, work: Work, few: str, many: str, seconds: float) -> None:
    base = "sqlite: one INSERT, synchronous=FULL"
    bare = sqlite3.connect(work.disk / "bare.db", isolation_level=None)
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE runs (id TEXT PRIMARY KEY, data TEXT)")
    numbers = itertools.count(10_000_000)

    def insert() -> Sample:
        began = time.perf_counter()
        for _ in range(INSERTS):
            bare.execute("INSERT INTO runs VALUES (?, ?)", (str(next(numbers)), "x" * 400))
        return {"s": (time.perf_counter() - began) / INSERTS}

    def begin(ledger: Ledger) -> Sample:
        began = time.perf_counter()
        for _ in range(INSERTS):
            ledger.begin(past(next(numbers)))
        return {"s": (time.perf_counter() - began) / INSERTS}

    measures: dict[str, Measure] = {base: insert}
    for name, state in ((few, "few"), (many, "many")):
        copy = work.disk / f"{state}-written" / "ledger.db"
        copy.parent.mkdir()
        shutil.copyfile(work.disk / state / "ledger.db", copy)
        measures[f"a run noted, {name}"] = partial(begin, Ledger(copy))
    found = in_turns(measures, rounds=work.sizes.rounds, seconds=seconds)
    bare.close()
    note = "On the disk before it returns; the ledger opens its file anew each time."
    goals = {f"a run noted, {many}": Goal(limit=3.0)}
    topic.tables.append(found.table("One run noted", "s", "ms", base, goals, scale=1000, note=note))


def _crashes(topic: Topic, work: Work, many: str, seconds: float) -> None:
    source, count = work.disk / "many" / "ledger.db", work.sizes.many_runs
    numbers = itertools.count()

    def look(*, crashed: bool) -> Sample:
        path = work.disk / f"crash-{next(numbers)}" / "ledger.db"
        path.parent.mkdir()
        shutil.copyfile(source, path)
        if crashed:
            _crash(path)
        began = time.perf_counter()
        runs = Ledger(path).runs(FEW)
        spent = time.perf_counter() - began
        if any(run.exit_code == 99 for run in runs) or len(Ledger(path).runs()) != count:
            raise Failed("the ledger is not what it was before the crash")
        shutil.rmtree(path.parent)
        return {"s": spent}

    base = f"a first look, {many}"
    measures: dict[str, Measure] = {
        base: lambda: look(crashed=False),
        "the same after kill -9 in a change of every row": lambda: look(crashed=True),
    }
    found = in_turns(measures, rounds=min(5, work.sizes.rounds), seconds=seconds, warm=False)
    topic.missing |= found.missing
    note = "All that was committed is there afterwards, nothing else: checked each time."
    topic.tables.append(
        found.table("Recovery from a crash", "s", "ms", base, scale=1000, note=note)
    )


def _crash(path: Path) -> None:
    """Leave a half-written transaction behind, as a killed cvl would."""
    argv = [sys.executable, "-c", CRASH, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        if not child.stdout.readline():
            raise Failed("the crash did not happen")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    if not Path(f"{path}-journal").stat().st_size:
        raise Failed("the killed process left no journal")
