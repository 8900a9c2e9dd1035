"""Brings a run's results here: ask what changed, carry it over, land it safely."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cvl.errors import FetchError, NotReady, Silent, Unreachable
from cvl.provider import Transport
from cvl.remote.far import FarSide, Headers
from cvl.remote.heap import DiskSet, Heap
from cvl.remote.incoming import incoming
from cvl.remote.inert import told
from cvl.remote.landing import NOTHING, Landed, land_staged, land_tar
from cvl.remote.record import folder_of
from cvl.remote.results import Places, Results, arrange, fresh, parts, produced
from cvl.remote.stream import Answer
from cvl.runlog import run_folder
from cvl.scope import DeadlineExceeded, Scope
from cvl.units import size
from cvl.values import dataclass

if TYPE_CHECKING:
    from cvl.remote.notes import Notes

T = TypeVar("T")
SMALL = 16_000_000
"""Bytes up to which one tar stream is used: one round trip, no second program."""
SHOWN = 5
"""Skipped results that are named one by one."""
PATIENCE = 60.0
"""Seconds without a connection after which a fetch gives up."""
FINISH_LIMIT = 30.0
LISTING_LIMIT = 300.0
"""Seconds without a byte while a host looks for what has changed."""
CONTACT = 5.0
"""Seconds after which a connection that broke had been a good one."""
PAUSES = (0.0, 0.3, 1.0, 3.0)
"""Seconds between attempts; the last one repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What is to come from a job's `folder`; `arrived` notes what has landed."""

    new: Results
    folder: str
    into: Path
    arrived: Callable[[Landed], None]


def fetch(far: FarSide, handle: Mapping[str, str], into: Path, scope: Scope) -> Landed:
    """Bring everything new or changed into `into`; what is here already is not moved again.

    However much that is, it is dealt with in parts, and little of it is in memory at once. Raises
    `FetchError`, `Unreachable` and `NotReady`; what has landed by then stays.
    """
    run_id, where = handle["run"], far.transport.where
    headers = [("id", run_id), *([("image", handle["image"])] if handle.get("image") else [])]
    place = os.fsencode(handle.get("place", ""))
    here = os.fsencode(into) if "host" not in handle else b""
    with Heap(run_folder(run_id), where) as heap:
        answers = steadily(scope, lambda: _listed(far, headers, heap, scope))
        if heap.empty:  # as after many a job: then no notes have to be opened
            _tell(scope, NOTHING, into)
            return NOTHING
        folder, places = folder_of(answers, where), Places(set if heap.small else DiskSet)
        with _noted(run_id, into) as notes:
            total, arrived = NOTHING, partial(_arrived, scope, notes)
            for part in parts(heap.fields()):
                results = arrange(produced(part, place, here), place, places)
                new = fresh(results, into, notes.marks(piece.target for piece in results.files))
                scope.tell("fetching", f"{len(new.files)} files, {size(new.size)}")
                load = _Load(new=new, folder=folder, into=into, arrived=arrived)
                landed = _carried(load, far, headers, scope)
                arrived(landed)
                total = total.joined(landed)
    _tell(scope, total, into)
    return total


def _listed(far: FarSide, headers: Headers, heap: Heap, scope: Scope) -> list[Answer]:
    """Have the host list what has changed, however long it looks for it."""
    heap.clear()
    try:
        return far.collect("changed", headers, heap.take, scope.patient(lambda: LISTING_LIMIT))
    except DeadlineExceeded:
        scope.checkpoint()
        raise far.silent() from None


def steadily(scope: Scope, step: Callable[[], T]) -> T:
    """Do `step`, again whenever the connection broke, until there is none for `PATIENCE`."""
    clock, attempt = scope.clock, 0
    since = clock.monotonic()
    while True:
        began = clock.monotonic()
        try:
            return step()
        except Unreachable as error:
            now = clock.monotonic()
            if now - began > CONTACT and not isinstance(error, Silent):
                attempt, since = 0, now
            if now - since > PATIENCE:
                raise
            scope.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1


def _carried(load: _Load, far: FarSide, headers: Headers, scope: Scope) -> Landed:
    if not load.new.files:
        return _without_files(load.new, load.into)
    if load.new.size > SMALL:
        with suppress(NotReady):  # no rsync over there
            return _by_rsync(load, far.transport, scope)
    return steadily(scope, lambda: _by_tar(far, headers, load, scope))


def _by_tar(far: FarSide, headers: Headers, load: _Load, whole: Scope) -> Landed:
    wanted = b"".join(piece.source + b"\0" for piece in load.new.files)
    with far.patient(whole) as scope:
        stream = far.open("pack", headers, wanted, scope)
        try:
            landed = land_tar(stream.payload(scope), load.new, load.into)
            failure = stream.finish(FINISH_LIMIT, scope)
            far.check(stream, stream.answers(), failure)
            return landed
        except FetchError as error:
            raise stream.finish(1.0) or error from error
        finally:
            stream.close()


def _without_files(new: Results, into: Path) -> Landed:
    """Make the links and folders that are to be made; nothing at all if there are none."""
    if not new.pieces:
        return Landed(files=0, size=0, skipped=new.skipped, moved=(), seen={})
    with incoming(into) as staging:
        return land_staged(staging, new, into)


def _by_rsync(load: _Load, transport: Transport, scope: Scope) -> Landed:
    """Let rsync fill a private folder, then land it; if that ends early, what is there whole."""
    sources = [piece.source for piece in load.new.files]
    with incoming(load.into) as staging:
        try:
            for folder, absolute in (("/", True), (load.folder, False)):
                names = [s.lstrip(b"/") for s in sources if s.startswith(b"/") is absolute]
                if names:
                    steadily(scope, partial(transport.pull, folder, names, staging, scope))
        except BaseException:
            load.arrived(land_staged(staging, load.new, load.into))
            raise
        return land_staged(staging, load.new, load.into)


def _tell(scope: Scope, landed: Landed, into: Path) -> None:
    count = f"{landed.files} file{'' if landed.files == 1 else 's'}"
    scope.tell(
        "fetched", f"{count}, {size(landed.size)}, in {into}" if landed.files else "nothing new"
    )
    for old, way in landed.moved[:SHOWN]:
        scope.warn(f"made way: {os.fsdecode(old)!r} is now {os.fsdecode(way)!r}")
    for each in sorted(landed.skipped, key=lambda each: not each.stays)[:SHOWN]:
        scope.warn(f"{'left there' if each.stays else 'not brought'}: {each}")
    if len(landed.skipped) > SHOWN:
        scope.warn(f"not brought: {len(landed.skipped) - SHOWN} more")


def _arrived(scope: Scope, notes: Notes, landed: Landed) -> None:
    """Note what has landed, and say what is inert of it for the first time."""
    if new := notes.add(landed.seen.items(), landed.inert):
        scope.warn(told(set(new)))


@contextmanager
def _noted(run_id: str, into: Path) -> Iterator[Notes]:
    from cvl.remote.notes import noted

    with noted(run_folder(run_id) / "fetched.db", str(into)) as notes:
        yield notes
