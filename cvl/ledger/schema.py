"""The tables, and how values become rows, byte for byte; `columns` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from cvl.ledger.formats import FORMAT
from cvl.ledger.values import money

if TYPE_CHECKING:
    from sqlite3 import Connection

APPLICATION = 0x63766C31
"""`PRAGMA application_id`: "cvl1". A database without it is not ours and is left alone."""

TABLES = ("ledger", "runs", "leases")
SCHEMA = f"""
CREATE TABLE ledger (id TEXT NOT NULL);
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE,
    example TEXT, preset TEXT, args TEXT,
    runner TEXT, "where" TEXT, handle TEXT, room REAL,
    state TEXT, exit_code INTEGER, cause TEXT, detail TEXT,
    started REAL, ended REAL, deadline REAL,
    price_per_hour TEXT, cost TEXT, currency TEXT,
    results TEXT, fetched INTEGER, detached INTEGER,
    owner TEXT, guardian TEXT
);
CREATE INDEX runs_open ON runs (seq) WHERE state <> 'ended';
CREATE TABLE leases (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT REFERENCES runs (id),
    provider TEXT, kind TEXT, name TEXT, id TEXT,
    state TEXT, deadline REAL, price_per_hour TEXT,
    note TEXT,
    intended REAL, created REAL, released REAL,
    UNIQUE (provider, kind, name, id)
);
CREATE INDEX leases_of ON leases (run_id);
CREATE INDEX leases_open ON leases (run_id) WHERE state <> 'released';
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""
"""As `formats` makes it of older ones. Rows are not NOT NULL: damage is read all the same."""

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
            return _stored(value)
        case _:
            from json import dumps

            return dumps(dict(value) if isinstance(value, Mapping) else value)


def _stored(text: str) -> str | bytes:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text
