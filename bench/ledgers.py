"""Ledgers with many past runs, made at once: not by a hundred thousand commits."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from cvl.core.spec import Cause, ExitStatus
from cvl.ledger import Ledger, Run, RunState
from cvl.ledger.schema import insert
from cvl.ledger.store import Store

STARTED = 1_700_000_000.0


def filled(path: Path, count: int) -> Ledger:
    """Make a ledger in which `count` runs have ended; the first one is noted as any run is."""
    ledger = Ledger(path)
    first = ledger.begin(past(0))
    ledger.advance(first.id, RunState.LAUNCHING)
    ledger.finish(first.id, ExitStatus(0, run_id=first.id))
    names = [each.name for each in fields(Run) if each.name not in {"seq", "damage"}]
    with Store(path).writing() as db:
        for number in range(1, count):
            run = past(number, ended=True)
            insert(db, "runs", {name: getattr(run, name) for name in names})
    return ledger


def past(number: int, *, ended: bool = False) -> Run:
    """Return a run as the ledger holds it."""
    facts = (
        {"state": RunState.ENDED, "exit_code": 0, "cause": Cause.EXITED, "ended": STARTED + 60}
        if ended
        else {}
    )
    return Run(
        id=f"train-{number:06d}",
        example="examples/vision/detection/train",
        preset="train",
        args=("--epochs", "10", "--batch-size", "64"),
        runner="ssh",
        where="gpu-box",
        handle={"run": f"train-{number:06d}", "host": "gpu-box", "base": "", "key": ""},
        started=STARTED + number,
        results=f"/home/user/cvl-runs/train-{number:06d}",
        **facts,  # type: ignore[arg-type]
    )
