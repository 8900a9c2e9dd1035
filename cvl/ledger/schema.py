"""The tables, and how values become rows and rows become values, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from cvl.ledger.values import Lease, LeaseState, Run, RunState, money
from cvl.spec import Cause

if TYPE_CHECKING:
    from sqlite3 import Connection, Row

APPLICATION = 0x63766C31
"""`PRAGMA application_id`: "cvl1". A database without it is not ours and is left alone."""

VERSION = 1
"""`PRAGMA user_version`. Raise it with every change that an older cvl would misread."""

SCHEMA = f"""
CREATE TABLE ledger (id TEXT NOT NULL);
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
CREATE TABLE leases (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES runs (id),
    provider TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
    state TEXT NOT NULL, deadline REAL, price_per_hour TEXT,
    note TEXT NOT NULL, context TEXT NOT NULL,
    intended REAL NOT NULL, created REAL, released REAL,
    UNIQUE (provider, kind, name, id)
);
CREATE INDEX leases_of ON leases (run_id);
CREATE INDEX leases_open ON leases (run_id) WHERE state <> 'released';
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""

Sql = str | bytes | int | float | None


def insert(db: Connection, table: str, columns: Mapping[str, object]) -> int:
    """Add a row and return its key. Table and column names are our own, values are bound."""
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    query = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
    key = db.execute(query, [_sql(value) for value in columns.values()]).lastrowid
    assert key is not None  # set by every INSERT
    return key


def update(db: Connection, table: str, key: int, columns: Mapping[str, object]) -> None:
    """Change the row with this integer key."""
    changes = ", ".join(f'"{name}" = ?' for name in columns)
    query = f"UPDATE {table} SET {changes} WHERE rowid = ?"  # noqa: S608
    db.execute(query, [*map(_sql, columns.values()), key])


def run_of(row: Row) -> Run:
    """Return the run in a row of `runs`."""
    return Run(
        id=row["id"],
        example=_str(row["example"]),
        preset=_str(row["preset"]),
        args=tuple(json.loads(row["args"])),
        runner=_str(row["runner"]),
        where=_str(row["where"]),
        handle=json.loads(row["handle"]),
        options=json.loads(row["options"]),
        state=RunState(row["state"]),
        exit_code=row["exit_code"],
        cause=_cause(row["cause"]),
        detail=_str(row["detail"]),
        started=row["started"],
        ended=row["ended"],
        deadline=row["deadline"],
        price_per_hour=_money(row["price_per_hour"]),
        cost=_money(row["cost"]),
        currency=row["currency"],
        results=_str(row["results"]),
        fetched=bool(row["fetched"]),
        detached=bool(row["detached"]),
        owner=row["owner"],
        guardian=row["guardian"],
        seq=row["seq"],
    )


def lease_of(row: Row) -> Lease:
    """Return the lease in a row of `leases`."""
    return Lease(
        key=row["key"],
        run_id=row["run_id"],
        provider=row["provider"],
        kind=row["kind"],
        name=row["name"],
        id=row["id"],
        state=LeaseState(row["state"]),
        deadline=row["deadline"],
        price_per_hour=_money(row["price_per_hour"]),
        note=_str(row["note"]),
        context=json.loads(row["context"]),
        intended=row["intended"],
        created=row["created"],
        released=row["released"],
    )


def _sql(value: object) -> Sql:
    """Return what is stored for a value: money and JSON as text, an enum as its value.

    Text that is not valid Unicode (a path or an argument holding any byte) is stored as bytes.
    """
    match value:
        case None | int() | float():
            return value
        case Decimal():
            return money(value)
        case Enum():
            return str(value.value)
        case str():
            return value if _encodable(value) else value.encode("utf-8", "surrogatepass")
        case Mapping():
            return json.dumps(dict(value))
        case _:
            return json.dumps(value)


def _str(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")


def _money(stored: str | None) -> Decimal | None:
    return None if stored is None else Decimal(stored)


def _cause(stored: str | None) -> Cause | None:
    """A cause that only a newer version knows must not hide the run."""
    try:
        return Cause(stored) if stored else None
    except ValueError:
        return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
