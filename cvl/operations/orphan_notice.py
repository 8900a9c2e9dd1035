"""Machines of dead runs: every command says so first, and it has to cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cvl.core.paths import ledger_file, no_file

QUERY = "SELECT 1 FROM leases WHERE state <> 'released' LIMIT 1"
PATIENCE = 0.2
"""Seconds to wait for other processes: the command itself waits longer, and says so."""
ENOUGH = 10_000_000
"""Instructions of SQLite's for it, which needs a few dozen: about a second's work."""


def notify(complain: Callable[[str], None]) -> None:
    """Say what nobody looks after, if anything; never a reason not to go on."""
    with suppress(Exception):
        if orphans := notice():
            complain(orphans)


def notice() -> str:
    """Return one line if something rented belongs to a dead run, else "".

    One query of a file that is there; the ledger itself is loaded only when that finds something.
    A ledger that cannot be read is for the command itself to report.
    """
    path = ledger_file()
    if not path.exists() or no_file(path.resolve()) or not _any_open(path.resolve()):
        return ""
    from cvl.core.errors import LedgerError
    from cvl.ledger import Ledger
    from cvl.operations.reap_findings import price

    with suppress(LedgerError):
        orphans = [each for each in Ledger(path, patience=PATIENCE).orphans() if each.leases]
        rates = price(lease.price_per_hour for each in orphans for lease in each.leases)
        cost = f", {rates} USD an hour" if rates is not None else ""
        if orphans:
            runs = ", ".join(each.run.id for each in orphans)
            return f"nobody looks after {runs} any more{cost}: `cvl reap` ends it"
    return ""


def _any_open(path: Path) -> bool:
    import sqlite3

    with suppress(sqlite3.Error):
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
        db.set_progress_handler(lambda: True, ENOUGH)
        try:
            return db.execute(QUERY).fetchone() is not None
        finally:
            db.close()
    return True
