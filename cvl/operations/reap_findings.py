"""Finds what should be over and still costs money: from any machine with the key.

Two ways to know. By our ledger: a run whose driver and guardian are dead, a detached one that
has ended. By tags alone: what is past the deadline that it carries, or belongs to a run that our
ledger says is over. Never anything that is not provably ours, never another owner's live machine;
time is the provider's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from cvl.core.errors import CvlError, Elsewhere
from cvl.core.frozen import dataclass
from cvl.core.interfaces import Reapable
from cvl.core.parallel import together
from cvl.core.spec import Resource
from cvl.ledger import Ledger, Orphan, Run, RunState
from cvl.ledger.values import as_json
from cvl.operations.refresh import Hear, latest, silent, undriven
from cvl.run import lifecycle

STRANGER_LIMIT = 30.0
"""Seconds in which it has to be known whether a run is where it is asked for."""
UNTAGGED_AGE = 7200.0
"""Seconds after which something that carries no deadline (a key), and no machine, is stray."""
STAMP = re.compile(r"-(\d{4})-(\d{6})-[0-9a-f]{10}\Z")
"""When a run id was made: month and day, time, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that should be over: a run that nobody drives, or a resource out there.

    `owner` is who lists a resource, and can end it.
    """

    provider: str
    name: str
    why: str
    kind: str = "run"
    id: str = ""
    run_id: str = ""
    price_per_hour: Decimal | None = None
    orphan: Orphan | None = None
    resource: Resource | None = None
    owner: Reapable | None = None


def abandoned(ledger: Ledger) -> list[Finding]:
    """Return the runs that nobody drives and that hold something, or came to nothing."""
    return [
        _nobody_s(orphan, "its driver is dead")
        for orphan in ledger.orphans()
        if orphan.leases or is_over(orphan.run)
    ]


def left_over(ledger: Ledger, hear: Hear = silent) -> list[Finding]:
    """Return the detached runs that have ended by themselves and still hold something.

    `hear` is told of those that are somewhere else than where they were asked for.
    """
    holders = {lease.run_id for lease in ledger.leases(open_only=True)}
    runs = [run for run in ledger.runs() if run.detached and run.id in holders and undriven(run)]
    runs = latest(runs, ledger)
    _tell_strangers([run for run in runs if run.state is not RunState.FETCHING], ledger, hear)
    orphans = [
        Orphan(run=run, leases=tuple(ledger.leases(run.id, open_only=True)))
        for run in runs
        if run.state is RunState.FETCHING
    ]
    return [_nobody_s(orphan, "its job has ended") for orphan in orphans]


def _tell_strangers(runs: Sequence[Run], ledger: Ledger, hear: Hear) -> None:
    from cvl.providers import reopen

    def look(run: Run) -> None:
        lifecycle.refuse_strangers(run, reopen(run.runner, run.handle), ledger)

    answers = together([partial(look, run) for run in runs], STRANGER_LIMIT)
    for run, answer in zip(runs, answers, strict=True):
        if isinstance(answer, Elsewhere):
            hear(run, answer)


def is_over(run: Run) -> bool:
    """Return whether nothing of a run that holds nothing can be out there.

    Whatever is rented for a run is noted before; on a machine of the user's own its job may live.
    """
    from cvl.providers import load

    if run.state in {RunState.PLANNED, RunState.RELEASING}:
        return True
    try:
        return load(run.runner).reapable
    except CvlError:  # a runner that is not installed any more, or whose name is damaged
        return False


def _nobody_s(orphan: Orphan, why: str) -> Finding:
    return Finding(
        provider=orphan.run.runner,
        name=orphan.run.id,
        run_id=orphan.run.id,
        why=why,
        price_per_hour=price(lease.price_per_hour for lease in orphan.leases),
        orphan=orphan,
    )


def dearest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order in which they are ended: by what they cost an hour."""
    return sorted(findings, key=_rate, reverse=True)


def _rate(finding: Finding) -> Decimal:
    return Decimal(0) if finding.price_per_hour is None else finding.price_per_hour


def overdue(
    owner: Reapable, ledger: Ledger, listed: Iterable[Resource] | None = None
) -> list[Finding]:
    """Return what carries our tag out there and should be over. Raises what `owned` raises.

    `listed` is what `owned` has just said.
    """
    listed = [each for each in (owner.owned() if listed is None else listed) if each.alive]
    here, now = ident(ledger), owner.now()
    looked_after = {each.run_id for each in listed if each.price_per_hour is not None}
    return [
        Finding(
            provider=owner.name,
            kind=each.kind,
            name=each.name,
            id=each.id,
            run_id=each.run_id,
            why=why,
            price_per_hour=each.price_per_hour,
            resource=each,
            owner=owner,
        )
        for each in listed
        if each.proven
        for run in (run_of(ledger, each.run_id),)
        if (why := reason(each, run, here, now, alone=each.run_id not in looked_after))
    ]


def reason(each: Resource, run: Run | None, here: str, now: float | None, *, alone: bool) -> str:
    """Return why a resource should be over, "" if it may live; `now` None: nobody knows when."""
    if each.deadline is not None and now is not None and now >= each.deadline:
        return f"its deadline was {moment(each.deadline)}"
    if run is not None and (not each.owner or each.owner == here):
        return f"{run.id} has ended" if run.state is RunState.ENDED else ""
    if each.deadline is None and alone and now is not None:
        made = stamp(each.run_id, now)
        if made is not None and now - made > UNTAGGED_AGE:
            return "its run has no machine"
    return ""


def tagged(owner: Reapable, run_id: str) -> list[Resource]:
    """Return what carries the tag of a run, whatever the ledger says."""
    return [each for each in owner.owned() if each.alive and each.run_id == run_id]


def ident(ledger: Ledger) -> str:
    """Return what names our ledger in tags, "" while it cannot be read."""
    try:
        return ledger.id()
    except CvlError:
        return ""


def run_of(ledger: Ledger, run_id: str) -> Run | None:
    """Return the run of that id if our ledger has it."""
    try:
        return ledger.run(run_id)
    except CvlError:
        return None


def stamp(run_id: str, now: float) -> float | None:
    """Return when a run id was made, in UTC epoch seconds: the latest such day before `now`."""
    match = STAMP.search(run_id)
    if not match:
        return None
    for year in (0, 1):
        text = f"{datetime.fromtimestamp(now, UTC).year - year}{match[1]}{match[2]}+0000"
        try:
            made = datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp()
        except ValueError:
            continue
        if made <= now:
            return made
    return None


def price(prices: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of the prices that are known, None if none is."""
    amounts = [each for each in prices if each is not None]
    return sum(amounts, Decimal(0)) if amounts else None


def moment(seconds: float) -> str:
    """Return a point in time for a person."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def shown(finding: Finding) -> Mapping[str, object]:
    """Return a finding for `--json`; money as a decimal string."""
    what, why = ("provider", "kind", "name", "id"), ("why", "price_per_hour")
    return {**as_json(finding, what), "run": finding.run_id, **as_json(finding, why)}
