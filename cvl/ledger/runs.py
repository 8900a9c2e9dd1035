"""Runs as rows: the statements, each inside a transaction that the ledger has opened."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING

from cvl.core.errors import Ambiguous, LedgerError, NotFound
from cvl.core.secrets import clean
from cvl.ledger.columns import run_of
from cvl.ledger.schema import insert, update
from cvl.ledger.values import Facts, Run, RunState

if TYPE_CHECKING:
    from sqlite3 import Connection

MISSING = "was the ledger moved, removed or kept aside? Look for `*.corrupt-*` beside it"
FACTS = Facts.__optional_keys__


def add(db: Connection, run: Run, started: float) -> Run:
    """Insert a run; raises `LedgerError` if its id is noted already."""
    if db.execute("SELECT 1 FROM runs WHERE id = ?", (run.id,)).fetchone():
        raise LedgerError(f"the run {run.id} is noted already", "start it under a fresh id")
    columns = {field.name: getattr(run, field.name) for field in fields(run)}
    del columns["seq"], columns["damage"]
    insert(db, "runs", columns | {"started": started})
    return get(db, run.id)


def change(
    db: Connection,
    run_id: str,
    facts: Facts,
    *,
    come_from: Collection[RunState],
    by: str | None,
    **columns: object,
) -> bool:
    """Change a run if it is in one of `come_from`, and `by` is None or its owner."""
    if unknown := facts.keys() - FACTS:
        raise TypeError(unknown)
    run = get(db, run_id)
    if run.state not in come_from or by not in {None, run.owner}:
        return False
    update(db, "runs", run.seq, columns | _columns(facts))
    return True


def get(db: Connection, run_id: str) -> Run:
    """Return the run with this id; raises `LedgerError`, for whoever asks knows it was noted."""
    row = db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise LedgerError(f"the run {run_id} is not in the ledger", MISSING)
    return run_of(row)


def search(db: Connection | None, prefix: str) -> Run:
    """Return the run that a person means; an exact id beats a prefix."""
    if db is None or not prefix.replace("-", "").isalnum():
        raise _not_found(prefix, [])
    rows = db.execute(
        "SELECT * FROM runs WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id = ?1 DESC, seq DESC"
        " LIMIT 5",
        (prefix,),
    ).fetchall()
    if not rows:
        inside = "SELECT * FROM runs WHERE instr(id, ?) ORDER BY seq DESC LIMIT 3"
        raise _not_found(prefix, [run_of(row).id for row in db.execute(inside, (prefix,))])
    if len(rows) > 1 and rows[0]["id"] != prefix:
        listed = ", ".join(run_of(row).id for row in rows)
        raise Ambiguous(f"more than one run begins with {prefix!r}", f"say which: {listed}")
    return run_of(rows[0])


def recent(db: Connection, limit: int | None, *, active_only: bool) -> list[Run]:
    """Return runs in the opposite order of their insertion."""
    where = "WHERE state <> 'ended'" if active_only else ""
    query = f"SELECT * FROM runs {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608
    return [run_of(row) for row in db.execute(query, (-1 if limit is None else limit,))]


def unsettled(db: Connection) -> list[Run]:
    """Return the runs that have not ended, or that have something open; partial indexes do it."""
    query = """
        SELECT * FROM runs WHERE id IN (
            SELECT id FROM runs WHERE state <> 'ended'
            UNION SELECT run_id FROM leases WHERE state <> 'released'
        ) ORDER BY seq
    """
    return [run_of(row) for row in db.execute(query)]


def _columns(facts: Facts) -> dict[str, object]:
    columns: dict[str, object] = {**facts}
    status = facts.get("status")
    if status is not None:
        del columns["status"]
        columns |= {"exit_code": int(status), "cause": status.cause, "detail": clean(status.detail)}
    return columns


def _not_found(prefix: str, near: list[str]) -> NotFound:
    hint = f"did you mean {' or '.join(near)}?" if near else "`cvl ps -a` lists all runs"
    return NotFound(f"no run {prefix!r}", hint)
