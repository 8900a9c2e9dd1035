"""Brings a run's results here: ask what changed, carry it over, land it safely."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.core.errors import BrokenOff, FetchError, Silent
from cvl.core.frozen import dataclass
from cvl.core.retry import steadily
from cvl.core.scope import Scope
from cvl.core.units import size
from cvl.host.download.inert_names import told
from cvl.host.download.landing import Landing, landing
from cvl.host.download.report import NOTHING, Landed, report
from cvl.host.download.results import Results, TakenPaths, arrange, fresh, mark, parts, produced
from cvl.host.download.spool import DiskSet, Spool
from cvl.host.rpc import FarSide, Headers
from cvl.host.stream import Answer
from cvl.run.log import run_folder

if TYPE_CHECKING:
    from cvl.host.download.fetch_history import FetchHistory

SMALL = 16_000_000
"""Bytes up to which nothing is told while they come."""
TELL = 0.2
"""Seconds between two words about how much has come."""
NOTE = 2.0
"""Seconds between two notes of what has landed, for a fetch after one that was killed."""
FINISH_LIMIT = 30.0
LAST_WORDS = 3.0
"""Seconds for the host to say why what it sends has ended early."""
LISTING_LIMIT = 300.0
"""Seconds without a byte while a host looks for what has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What is to come; `arrived` notes what has landed."""

    new: Results
    into: Path
    arrived: Callable[[Landed], None]
    between: Callable[[], None]


def fetch(
    far: FarSide,
    handle: Mapping[str, str],
    into: Path,
    scope: Scope,
    between: Callable[[], None] = lambda: None,
) -> Landed:
    """Bring everything new or changed into `into`; what is here already is not moved again.

    However much that is, it is dealt with in parts, and little of it is in memory at once. What
    may pass is tried again until `scope` is over; `between` two attempts may raise to end that.
    Raises `FetchError`, `Unreachable` and `NotReady`; what has landed by then stays.
    """
    run_id, where = handle["run"], far.transport.where
    headers = [("id", run_id), *([("image", handle["image"])] if handle.get("image") else [])]
    example = os.fsencode(handle.get("place", ""))
    here = os.fsencode(into) if "host" not in handle else b""
    with Spool(run_folder(run_id), where) as spool:
        broken: set[bytes] = set()
        steadily(scope, lambda: _listed(far, headers, spool, scope, broken), between=between)
        if spool.empty:  # as after many a job: then no history has to be opened
            report(scope, NOTHING, into)
            return NOTHING
        from cvl.host.download.fetch_history import FetchHistory

        taken = TakenPaths(set if spool.small else DiskSet)
        with closing(FetchHistory(run_folder(run_id) / "fetched.db", os.fsencode(into))) as history:
            total, arrived = NOTHING, partial(_arrived, scope, history)
            for part in parts(spool.fields()):
                results = arrange(produced(part, example, here), example, taken)
                new = fresh(results, into, history.marks(piece.target for piece in results.files))
                scope.tell("fetching", f"{len(new.files)} files, {size(new.size)}")
                load = _Load(new=new, into=into, arrived=arrived, between=between)
                landed = _carried(load, far, headers, scope)
                arrived(landed)
                total = total.joined(landed)
    report(scope, total, into)
    return total


def _listed(far: FarSide, headers: Headers, spool: Spool, scope: Scope, broken: set[bytes]) -> None:
    """Have the host list what has changed, however long it looks for it.

    One that ends in the middle may be whole the next time. Raises `FetchError` for one that was
    in `broken` before: that is no list of ours, but what something over there says instead.
    """
    spool.clear()
    with far.patient(scope, LISTING_LIMIT) as limit:
        for piece in far.pieces("changed", headers, limit, []):
            spool.take(piece)
    if not spool.whole:
        what = f"the list of results from {far.transport.where}"
        if (digest := spool.mark()) in broken:
            raise FetchError(f"{what} makes no sense: it ends in the middle each time")
        broken.add(digest)
        raise BrokenOff(f"{what} broke off")


def _carried(load: _Load, far: FarSide, headers: Headers, scope: Scope) -> Landed:
    """Bring the files of a load: those that have not come, whenever the connection breaks."""
    if not load.new.pieces:
        return replace(NOTHING, skipped=load.new.skipped)
    with landing(load.new, load.into) as it:
        try:
            steadily(scope, lambda: _brought(load, it, far, headers, scope), between=load.between)
        except BaseException:
            load.arrived(it.landed())
            raise
        return it.finish()


def _brought(load: _Load, it: Landing, far: FarSide, headers: Headers, scope: Scope) -> None:
    """Bring the rest of a file that has broken off, if it is still the same, then all others."""
    if part := it.part:
        wanted = mark(part.piece) + b"\n" + part.piece.source
        rest = ("rest", [*headers, ("offset", str(part.size))], wanted)
        came = it.landed().size + part.size
        answers = _taken(far, rest, lambda data: it.go_on(_told(data, came, load, scope)), scope)
        it.settle(same=Answer("same", "") in answers)
    if it.awaited:
        wanted = b"".join(piece.source + b"\0" for piece in it.awaited.values())
        done, pack = it.landed().size, ("pack", headers, wanted)

        def take(data: Iterable[bytes]) -> None:
            it.take(_told(_noted(data, it, load, scope), done, load, scope))

        answers = _taken(far, pack, take, scope)
        for padded in (each.rest for each in answers if each.word == "padded"):
            it.doubt(padded)
            scope.warn(f"not brought whole: {padded}; `cvl fetch` again")


def _taken(
    far: FarSide,
    request: tuple[str, Headers, bytes],
    take: Callable[[Iterator[bytes]], None],
    whole: Scope,
) -> list[Answer]:
    """Have `take` take what a request brings; return its answers."""
    with far.patient(whole) as scope:
        stream = far.open(*request, scope)
        try:
            take(stream.payload(scope))
            failure = stream.finish(FINISH_LIMIT, scope)
            far.check(stream, stream.answers(), failure)
            return stream.answers()
        except BrokenOff:  # what broke it off says more; what we end ourselves says nothing
            failure = stream.finish(LAST_WORDS, scope)
            far.check(stream, stream.answers(), None if isinstance(failure, Silent) else failure)
            raise
        finally:
            stream.close()


def _told(data: Iterable[bytes], done: int, load: _Load, scope: Scope) -> Iterator[bytes]:
    """Pass `data` on, behind the `done` bytes; tell how much has come where that takes a while."""
    whole, began, then = load.new.size, scope.clock.monotonic(), 0.0
    came = 0
    for piece in data:
        came += len(piece)
        now = scope.clock.monotonic()
        if whole > SMALL and now - then >= TELL:
            then, here = now, min(done + came, whole)
            rate = came / 1e6 / max(now - began, TELL)
            scope.tell("fetch", f"{here / 1e6:.1f} MB, {100 * here // whole} %, {rate:.1f} MB/s")
        yield piece


def _noted(data: Iterable[bytes], it: Landing, load: _Load, scope: Scope) -> Iterator[bytes]:
    """Pass `data` on; note now and then what has landed."""
    then = scope.clock.monotonic()
    for piece in data:
        if (now := scope.clock.monotonic()) - then >= NOTE:
            then = now
            load.arrived(it.landed())
        yield piece


def _arrived(scope: Scope, history: FetchHistory, landed: Landed) -> None:
    """Note what has landed, and say what is inert of it for the first time."""
    if new := history.add(landed.seen.items(), landed.inert):
        scope.warn(told(set(new)))
