"""Runs, and everything of theirs that must not outlive them: noted first, never forgotten."""

from __future__ import annotations

from cvl.ledger.ledger import Ledger
from cvl.ledger.values import (
    EARLY,
    LEASE_STEPS,
    MAY_ACQUIRE,
    RUN_STEPS,
    Facts,
    Lease,
    LeaseState,
    Orphan,
    Run,
    RunState,
    ps_json,
)

__all__ = [
    "EARLY",
    "LEASE_STEPS",
    "MAY_ACQUIRE",
    "RUN_STEPS",
    "Facts",
    "Lease",
    "LeaseState",
    "Ledger",
    "Orphan",
    "Run",
    "RunState",
    "ps_json",
]
