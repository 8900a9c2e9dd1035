"""The ledger's formats: each older one becomes the next by a step, all of them in one transaction.

A step takes the tables as it finds them, never as `schema` has them now: it stays true when later
ones follow. So it is written once, and not changed any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cvl.ledger.errors import Damaged

if TYPE_CHECKING:
    from sqlite3 import Connection


def format_of(db: Connection) -> int:
    """Return the number of a ledger's format."""
    number: int = db.execute("PRAGMA user_version").fetchone()[0]
    return number


def raise_format(db: Connection) -> None:
    """Make a ledger of an older format one of this, within the transaction that is open.

    `PRAGMA foreign_keys` has to be off. Raises `Damaged` where its rows cannot be carried over.
    """
    import sqlite3

    try:
        for step in STEPS[max(format_of(db) - 1, 0) :]:
            step(db)
    except sqlite3.IntegrityError as error:
        raise Damaged(f"its rows contradict each other: {error}") from error
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _room(db: Connection) -> None:
    """Of a run's `options` only `room` was used; a lease's `context` was empty. All may be NULL.

    So a row of which a bit has flipped can be carried over, too.
    """
    db.create_function("room_in", 1, _room_in)
    before, after = "options TEXT NOT NULL", "room REAL"
    _rebuild(db, "runs", before, after, {"room": "room_in(CAST(options AS BLOB))"})
    _rebuild(db, "leases", ", context TEXT NOT NULL", "", {})


def _room_in(options: bytes | None) -> float | None:
    import json

    try:
        room = json.loads(options or b"")["room"]
        return float(room) if isinstance(room, int | float) else None
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return None


def _rebuild(db: Connection, table: str, before: str, after: str, more: dict[str, str]) -> None:
    """Make a table anew with `after` in place of `before`; `more` are values of its new columns.

    SQLite knows DROP COLUMN since 3.35 only, and its ALTER TABLE needs what `store` forbids.
    """
    query = "SELECT sql FROM sqlite_master WHERE tbl_name = ? ORDER BY type = 'table' DESC"
    made, *indexes = (row[0] for row in db.execute(query, (table,)).fetchall() if row[0])
    if before not in made:
        return  # it is so already: what is damaged is the format's number
    db.execute(f"CREATE TABLE old AS SELECT * FROM {table}")  # noqa: S608
    db.execute(f"DROP TABLE {table}")
    db.execute(made.replace(before, after).replace(" NOT NULL", ""))
    there, here = (
        [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in ("old", table)
    )
    filled = [name for name in here if name in {*there, *more}]
    names = ", ".join(f'"{name}"' for name in filled)
    values = ", ".join(more.get(name, f'"{name}"') for name in filled)
    db.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM old")  # noqa: S608
    db.execute("DROP TABLE old")
    for index in indexes:
        db.execute(index)


STEPS: tuple[Callable[[Connection], None], ...] = (_room,)
"""What makes format 2 of format 1, and so on."""
FORMAT = 1 + len(STEPS)
"""`PRAGMA user_version`: another step with every change that an older cvl would misread."""
