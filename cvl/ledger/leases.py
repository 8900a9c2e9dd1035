"""Resources as rows: the statements, each inside a transaction that the ledger has opened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cvl.core.errors import LedgerError
from cvl.core.spec import Resource
from cvl.ledger.columns import lease_of
from cvl.ledger.runs import MISSING
from cvl.ledger.schema import insert, update
from cvl.ledger.values import LEASE_STEPS, Lease, LeaseState

if TYPE_CHECKING:
    from sqlite3 import Connection

REFUSED = "refused"
"""The note of what was definitely not made."""
USABLE = frozenset({LeaseState.INTENDED, LeaseState.LIVE})


def used(db: Connection, provider: str, resource: Resource) -> bool:
    """Tell whether the name was ever given to something of that kind there, or may have been."""
    query = (
        "SELECT 1 FROM leases WHERE provider = ? AND kind = ? AND name = ?"
        " AND NOT (state = 'released' AND id = '' AND note = ?)"
    )
    bound = (provider, resource.kind, resource.name, REFUSED)
    return db.execute(query, bound).fetchone() is not None


def add(
    db: Connection,
    run_id: str,
    resource: Resource,
    *,
    provider: str,
    now: float,
) -> Lease:
    """Insert what is to be created; one that was refused under this name is noted anew."""
    columns = {
        "run_id": run_id,
        "provider": provider,
        "kind": resource.kind,
        "name": resource.name,
        "id": resource.id,
        "state": LeaseState.INTENDED,
        "deadline": resource.deadline,
        "price_per_hour": resource.price_per_hour,
        "note": resource.note,
        "intended": now,
    }
    if line := _noted(db, provider, resource):
        key = line.key
        update(db, "leases", key, {**columns, "released": None})
    else:
        key = insert(db, "leases", columns)
    return lease_of(db.execute("SELECT * FROM leases WHERE key = ?", (key,)).fetchone())


def sighted(db: Connection, lease: Lease, resource_id: str, now: float) -> bool:
    """Put an id on record; tell whether the lease may be used under it.

    A second id under the same name gets a line of its own. A closed line opens again: what was
    seen outranks what was concluded.
    """
    current = _current(db, lease)
    if current.id not in {"", resource_id}:
        _open(db, _twin(db, current, resource_id, now), resource_id, now)
        return False
    _open(db, current, resource_id, now)
    return current.state in USABLE


def step(db: Connection, lease: Lease, to: LeaseState, now: float, note: str = "") -> bool:
    """Move a line on if its id is still the one that the caller knows."""
    current = _current(db, lease)
    if current.id != lease.id or to not in LEASE_STEPS[current.state]:
        return False
    gone = {"released": now} if to is LeaseState.RELEASED else {}
    noted = {"note": note} if note else {}
    update(db, "leases", lease.key, {"state": to, **gone, **noted})
    return True


def select(db: Connection, run_id: str | None, *, open_only: bool) -> list[Lease]:
    """Return the lines of a run, or of all, oldest first.

    A line is a run's also by the name of what it notes: its run may be damaged, or an index.
    """
    where, bound = ["1"], []
    if run_id is not None:
        where, bound = ["(run_id = ? OR name = 'cvl-' || ?)"], [run_id, run_id]
    if open_only:
        where.append("state <> 'released'")
    query = f"SELECT * FROM leases WHERE {' AND '.join(where)} ORDER BY key"  # noqa: S608
    return [lease_of(row) for row in db.execute(query, bound)]


def _current(db: Connection, lease: Lease) -> Lease:
    """Return the line as it is now. The same key in another ledger is another line.

    One of run and name will do: the other may be damaged.
    """
    query = "SELECT * FROM leases WHERE key = ? AND (run_id = ? OR name = ?)"
    row = db.execute(query, (lease.key, lease.run_id, lease.name)).fetchone()
    if row is None:
        raise LedgerError(f"the {lease.kind} {lease.name} is not in the ledger", MISSING)
    return lease_of(row)


def _open(db: Connection, lease: Lease, resource_id: str, now: float) -> None:
    live = LeaseState.LIVE in LEASE_STEPS[lease.state]
    columns = {
        "id": resource_id,
        "state": LeaseState.LIVE if live else lease.state,
        "created": now if lease.created is None else lease.created,
        "released": None,
    }
    update(db, "leases", lease.key, columns)


def _twin(db: Connection, lease: Lease, resource_id: str, now: float) -> Lease:
    resource = replace(lease.resource, id=resource_id)
    if line := _noted(db, lease.provider, resource):
        return line
    return add(db, lease.run_id, resource, provider=lease.provider, now=now)


def _noted(db: Connection, provider: str, resource: Resource) -> Lease | None:
    """Return the line with exactly this name and id."""
    query = "SELECT * FROM leases WHERE provider = ? AND kind = ? AND name = ? AND id = ?"
    bound = (provider, resource.kind, resource.name, resource.id)
    row = db.execute(query, bound).fetchone()
    return row and lease_of(row)
