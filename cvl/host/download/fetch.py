"""Brings a run's results here: ask what changed, carry it over, land it safely."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.core.errors import (
    AuthError,
    Blocked,
    BrokenOff,
    CvlError,
    FetchError,
    HostKeyError,
    MissingTool,
    NotReady,
    Silent,
    Unreachable,
    UsageError,
)
from cvl.core.frozen import dataclass
from cvl.core.retry import steadily
from cvl.core.scope import Scope
from cvl.core.staging import incoming
from cvl.core.units import size
from cvl.host.download.inert_names import told
from cvl.host.download.landing import NOTHING, Landed, land_staged, land_tar
from cvl.host.download.report import report
from cvl.host.download.results import Results, TakenPaths, arrange, fresh, parts, produced
from cvl.host.download.spool import DiskSet, Spool
from cvl.host.record import folder_of
from cvl.host.rpc import FarSide, Headers
from cvl.host.stream import Answer
from cvl.run.log import run_folder

if TYPE_CHECKING:
    from cvl.host.download.fetch_history import FetchHistory

SMALL = 16_000_000
"""Bytes up to which one tar stream is used: one round trip, no second program."""
FINISH_LIMIT = 30.0
LAST_WORDS = 3.0
"""Seconds for the host to say why what it sends has ended early."""
SSH_SAYS = (Unreachable, AuthError, HostKeyError, UsageError)
"""What ssh's last words may mean, if it was ssh: the rsync over there may have said them."""
LISTING_LIMIT = 300.0
"""Seconds without a byte while a host looks for what has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What is to come from a job's `folder`; `arrived` notes what has landed."""

    new: Results
    folder: str
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
        answers = steadily(
            scope, lambda: _listed(far, headers, spool, scope, broken), between=between
        )
        if spool.empty:  # as after many a job: then no history has to be opened
            report(scope, NOTHING, into)
            return NOTHING
        from cvl.host.download.fetch_history import FetchHistory

        folder, taken = folder_of(answers, where), TakenPaths(set if spool.small else DiskSet)
        with closing(FetchHistory(run_folder(run_id) / "fetched.db", os.fsencode(into))) as history:
            total, arrived = NOTHING, partial(_arrived, scope, history)
            for part in parts(spool.fields()):
                results = arrange(produced(part, example, here), example, taken)
                new = fresh(results, into, history.marks(piece.target for piece in results.files))
                scope.tell("fetching", f"{len(new.files)} files, {size(new.size)}")
                load = _Load(new=new, folder=folder, into=into, arrived=arrived, between=between)
                landed = _carried(load, far, headers, scope)
                arrived(landed)
                total = total.joined(landed)
    report(scope, total, into)
    return total


def _listed(
    far: FarSide, headers: Headers, spool: Spool, scope: Scope, broken: set[bytes]
) -> list[Answer]:
    """Have the host list what has changed, however long it looks for it.

    One that ends in the middle may be whole the next time. Raises `FetchError` for one that was
    in `broken` before: that is no list of ours, but what something over there says instead.
    """
    spool.clear()
    answers: list[Answer] = []
    with far.patient(scope, LISTING_LIMIT) as limit:
        for piece in far.pieces("changed", headers, limit, answers):
            spool.take(piece)
    if not spool.whole:
        what = f"the list of results from {far.transport.where}"
        if (mark := spool.mark()) in broken:
            raise FetchError(f"{what} makes no sense: it ends in the middle each time")
        broken.add(mark)
        raise BrokenOff(f"{what} broke off")
    return answers


def _carried(load: _Load, far: FarSide, headers: Headers, scope: Scope) -> Landed:
    """Bring the files of a load; by rsync if they are many bytes, by tar if that does not work."""
    if not load.new.files:
        return _without_files(load.new, load.into)
    landed = NOTHING
    if load.new.size > SMALL:
        try:
            return _by_rsync(load, far, scope)
        except _Useless as useless:
            scope.warn(f"{useless}; going on with tar")
            landed = useless.landed
    pieces = tuple(each for each in load.new.pieces if each.target not in landed.seen)
    left = replace(load, new=replace(load.new, pieces=pieces))
    return landed.joined(
        steadily(scope, lambda: _by_tar(far, headers, left, scope), between=load.between)
    )


def _by_tar(far: FarSide, headers: Headers, load: _Load, whole: Scope) -> Landed:
    wanted = b"".join(piece.source + b"\0" for piece in load.new.files)
    with far.patient(whole) as scope:
        stream = far.open("pack", headers, wanted, scope)
        try:
            landed = land_tar(stream.payload(scope), load.new, load.into)
            failure = stream.finish(FINISH_LIMIT, scope)
            far.check(stream, stream.answers(), failure)
            return landed
        except BrokenOff:  # what broke it off says more; what we end ourselves says nothing
            failure = stream.finish(LAST_WORDS, scope)
            far.check(stream, stream.answers(), None if isinstance(failure, Silent) else failure)
            raise
        finally:
            stream.close()


def _without_files(new: Results, into: Path) -> Landed:
    """Make the links and folders that are to be made; nothing at all if there are none."""
    if not new.pieces:
        return replace(NOTHING, skipped=new.skipped)
    with incoming(into) as staging:
        return land_staged(staging, new, into)


class _Useless(Exception):
    """The two rsyncs do not get on; `landed` is what they have brought all the same."""

    def __init__(self, where: str, error: CvlError, landed: Landed) -> None:
        super().__init__(str(error) if where in str(error) else f"{where}: {error}")
        self.landed = landed


def _by_rsync(load: _Load, far: FarSide, scope: Scope) -> Landed:
    """Let rsync fill a private folder, then land it; if that ends early, what is there whole.

    Raises `_Useless` when it fails in whatever way that is neither the connection's nor ours.
    """
    with incoming(load.into) as staging:
        try:
            _pulled(load, far, staging, scope)
        except (NotReady, MissingTool, FetchError) as error:
            if isinstance(error, Blocked):
                raise
            files = Results(pieces=load.new.files)  # what is made here is made once all are here
            landed = replace(land_staged(staging, files, load.into), skipped=())
            load.arrived(landed)
            raise _Useless(far.transport.where, error, landed) from error
        except BaseException:
            with suppress(FetchError):  # what has ended it says more
                load.arrived(land_staged(staging, load.new, load.into))
            raise
        return land_staged(staging, load.new, load.into)


def _pulled(load: _Load, far: FarSide, staging: Path, scope: Scope) -> None:
    """Have rsync bring a load's files, again whenever the connection breaks."""
    sources = [piece.source for piece in load.new.files]
    for folder, absolute in (("/", True), (load.folder, False)):
        names = [s.lstrip(b"/") for s in sources if s.startswith(b"/") is absolute]
        if names:
            pull = partial(_pulled_once, far, folder, names, staging, scope)
            steadily(scope, pull, between=load.between)


def _pulled_once(
    far: FarSide, folder: str, names: Sequence[bytes], staging: Path, scope: Scope
) -> None:
    """Try once. Raises as `Transport.pull`; `FetchError` where it is not the connection."""
    before = held(staging)
    try:
        far.transport.pull(folder, names, staging, scope)
    except SSH_SAYS as error:
        if isinstance(error, Unreachable) and held(staging) > before:
            raise
        far.script(":", scope=scope)  # raises where there is no connection either
        raise FetchError(f"rsync brings nothing: {error}") from error


def held(folder: Path) -> int:
    """Return the bytes of all files below a folder of ours."""
    inside = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in inside)


def _arrived(scope: Scope, history: FetchHistory, landed: Landed) -> None:
    """Note what has landed, and say what is inert of it for the first time."""
    if new := history.add(landed.seen.items(), landed.inert):
        scope.warn(told(set(new)))
