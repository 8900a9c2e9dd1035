"""What the ledger holds, as values: runs and leases, their states, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import TypedDict

from cvl.core.frozen import dataclass
from cvl.core.spec import IN_DOUBT, Cause, ExitStatus, Resource


class RunState(StrEnum):
    """Where a run is in its life."""

    PLANNED = "planned"
    """Noted; nothing was started and nothing can be out there."""
    LAUNCHING = "launching"
    """From before the first request until the job is known to have started."""
    RUNNING = "running"
    FETCHING = "fetching"
    """The job is over, or nobody waits for it any more: results are brought back."""
    RELEASING = "releasing"
    """Only clean-up is left. It ends when nothing of the run is open."""
    ENDED = "ended"


class LeaseState(StrEnum):
    """Where a resource is in its life. All but the last may cost money."""

    INTENDED = "intended"
    """Noted before the create call; whether it exists is not known."""
    LIVE = "live"
    RELEASING = "releasing"
    RELEASED = "released"
    """Seen gone, or seen not to be there until the provider's listing lag had passed."""


RUN_STEPS: Mapping[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.PLANNED: frozenset({RunState.LAUNCHING, RunState.ENDED}),
        RunState.LAUNCHING: frozenset(
            {RunState.RUNNING, RunState.FETCHING, RunState.RELEASING, RunState.ENDED}
        ),
        RunState.RUNNING: frozenset({RunState.FETCHING, RunState.RELEASING, RunState.ENDED}),
        RunState.FETCHING: frozenset({RunState.RELEASING, RunState.ENDED}),
        RunState.RELEASING: frozenset({RunState.ENDED}),
        RunState.ENDED: frozenset(),
    }
)
"""What may follow what. Forward only: whoever is late loses, and an ended run stays ended."""

LEASE_STEPS: Mapping[LeaseState, frozenset[LeaseState]] = MappingProxyType(
    {
        LeaseState.INTENDED: frozenset(
            {LeaseState.LIVE, LeaseState.RELEASING, LeaseState.RELEASED}
        ),
        LeaseState.LIVE: frozenset({LeaseState.RELEASING, LeaseState.RELEASED}),
        LeaseState.RELEASING: frozenset({LeaseState.RELEASED}),
        LeaseState.RELEASED: frozenset({LeaseState.LIVE}),
    }
)
"""Backwards only where something was seen alive after all: a sighting outranks a conclusion."""

EARLY = frozenset({RunState.PLANNED, RunState.LAUNCHING})
"""The states in which nobody can say whether the job was started but who starts it."""

MAY_ACQUIRE = frozenset({RunState.LAUNCHING, RunState.RUNNING, RunState.FETCHING})
"""The states in which a run may still be given resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. Times are UTC epoch seconds; `seq` is the order of insertion, whatever clocks do.

    `handle` is what `Provider.attach` needs: no secrets. `room` are the seconds after `deadline` in
    which to stop the job and to fetch. `owner` is the process that drives the run ("": nobody, on
    purpose), `guardian` the one that will go on if the owner dies; see `cvl.core.process`.
    `fetched` says that the results are complete in the folder `results`. `exit_code` may be known
    before the run has ended.
    `damage` names the columns that cannot be read: what they say is not known.
    """

    id: str
    example: str = ""
    preset: str = ""
    args: tuple[str, ...] = ()
    runner: str = ""
    where: str = ""
    handle: Mapping[str, str] = field(default_factory=dict)
    room: float | None = None
    state: RunState = RunState.PLANNED
    exit_code: int | None = None
    cause: Cause | None = None
    detail: str = ""
    started: float | None = None
    ended: float | None = None
    deadline: float | None = None
    price_per_hour: Decimal | None = None
    cost: Decimal | None = None
    currency: str = "USD"
    results: str = ""
    fetched: bool = False
    detached: bool = False
    owner: str = ""
    guardian: str = ""
    seq: int = 0
    damage: tuple[str, ...] = ()

    @property
    def reach(self) -> Mapping[str, str]:
        """The handle for whoever brings the run to its end, `IN_DOUBT` until it is known to run."""
        return {**self.handle, IN_DOUBT: "1"} if self.state in EARLY else self.handle

    @property
    def status(self) -> ExitStatus | None:
        """How the job ended, or None while that is not known."""
        if self.exit_code is None:
            return None
        cause = self.cause or Cause.LOST
        return ExitStatus(self.exit_code, cause=cause, run_id=self.id, detail=self.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One resource of one run. `key` names this line, `name` and `id` the thing itself.

    `damage` names the columns that cannot be read.
    """

    key: int
    run_id: str
    provider: str
    kind: str
    name: str
    id: str = ""
    state: LeaseState
    deadline: float | None = None
    price_per_hour: Decimal | None = None
    note: str = ""
    intended: float
    created: float | None = None
    released: float | None = None
    damage: tuple[str, ...] = ()

    @property
    def resource(self) -> Resource:
        """The same, as providers know it."""
        return Resource(
            kind=self.kind,
            name=self.name,
            id=self.id,
            run_id=self.run_id,
            deadline=self.deadline,
            price_per_hour=self.price_per_hour,
            alive=self.state is not LeaseState.RELEASED,
            note=self.note,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A run that nobody looks after any more, and what of it is still open."""

    run: Run
    leases: tuple[Lease, ...] = ()


class Facts(TypedDict, total=False):
    """What may be noted about a run after it has begun. `status` sets code, cause and detail."""

    status: ExitStatus
    where: str
    handle: Mapping[str, str]
    deadline: float | None
    price_per_hour: Decimal | None
    cost: Decimal | None
    currency: str
    results: str
    fetched: bool
    detached: bool
    guardian: str
    room: float


AFTER_THE_END = frozenset({"results", "fetched", "cost"})
"""The facts that may still be noted about an ended run: a later `fetch`, a late bill."""


RUN_JSON = (
    *("id", "example", "preset", "args", "runner", "where", "state", "exit_code", "cause"),
    *("started", "ended", "price_per_hour", "cost"),
)
LEASE_JSON = ("provider", "kind", "name", "id", "state", "deadline", "price_per_hour")


def ps_json(run: Run, leases: Iterable[Lease] = ()) -> dict[str, object]:
    """Return what `cvl ps --json` shows of a run. Money is in decimal strings, times in seconds."""
    resources = [as_json(lease, LEASE_JSON) for lease in leases]
    return {**as_json(run, RUN_JSON), "resources": resources}


def as_json(it: object, names: Iterable[str]) -> dict[str, object]:
    """Return what those of its values are in JSON."""
    return {name: _plain(getattr(it, name)) for name in names}


def money(amount: Decimal | None) -> str | None:
    """Return an amount as a plain decimal string, never with an exponent."""
    return None if amount is None else format(amount, "f")


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return money(value)
        case StrEnum():
            return value.value
        case tuple():
            return list(value)
        case _:
            return value
