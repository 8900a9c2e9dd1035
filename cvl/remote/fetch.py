"""Brings a run's results here: ask what changed, carry it over, land it safely."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from cvl.errors import FetchError, NotReady, Silent, Unreachable
from cvl.paths import private, replace_file
from cvl.provider import Transport
from cvl.remote.far import FarSide, Headers
from cvl.remote.incoming import incoming
from cvl.remote.inert import told
from cvl.remote.landing import Landed, land_staged, land_tar
from cvl.remote.record import folder_of
from cvl.remote.results import Results, arrange, fresh, parse_changed, produced
from cvl.runlog import run_folder
from cvl.scope import Scope
from cvl.units import size
from cvl.values import dataclass

T = TypeVar("T")
SMALL = 16_000_000
"""Bytes up to which one tar stream is used: one round trip, no second program."""
SHOWN = 5
"""Skipped results that are named one by one."""
PATIENCE = 60.0
"""Seconds without a connection after which a fetch gives up."""
FINISH_LIMIT = 30.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noted:
    """What earlier fetches into a folder have noted: `Landed.seen` and `Landed.inert` of them."""

    seen: Mapping[bytes, bytes]
    inert: frozenset[bytes]


def fetch(far: FarSide, handle: Mapping[str, str], into: Path, scope: Scope) -> Landed:
    """Bring everything new or changed into `into`; what is here already is not moved again.

    Raises `FetchError`, `Unreachable` and `NotReady`; what has landed by then stays.
    """
    run_id = handle["run"]
    headers = [("id", run_id), *([("image", handle["image"])] if handle.get("image") else [])]
    answers, listing = steadily(scope, lambda: far.ask("changed", headers, scope=scope))
    place = os.fsencode(handle.get("place", ""))
    here = os.fsencode(into) if "host" not in handle else b""
    results = arrange(produced(parse_changed(listing), place, here), place)
    noted = _noted(run_id, into)
    new = fresh(results, into, noted.seen)
    scope.tell("fetching", f"{len(new.files)} files, {size(new.size)}")
    folder = folder_of(answers, far.transport.where)

    def arrived(landed: Landed) -> None:
        _remember(run_id, into, noted, landed)

    load = _Load(new=new, folder=folder, into=into, arrived=arrived)
    landed = _carried(load, far, headers, scope)
    arrived(landed)
    _tell(scope, landed, into, noted.inert)
    return landed


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


def _tell(scope: Scope, landed: Landed, into: Path, known: frozenset[bytes]) -> None:
    count = f"{landed.files} file{'' if landed.files == 1 else 's'}"
    scope.tell(
        "fetched", f"{count}, {size(landed.size)}, in {into}" if landed.files else "nothing new"
    )
    if new := set(landed.inert) - known:
        scope.warn(told(new))
    for old, way in landed.moved[:SHOWN]:
        scope.warn(f"made way: {os.fsdecode(old)!r} is now {os.fsdecode(way)!r}")
    for each in sorted(landed.skipped, key=lambda each: not each.stays)[:SHOWN]:
        scope.warn(f"{'left there' if each.stays else 'not brought'}: {each}")
    if len(landed.skipped) > SHOWN:
        scope.warn(f"not brought: {len(landed.skipped) - SHOWN} more")


def _notes(run_id: str) -> Path:
    return run_folder(run_id) / "fetched.json"


def _noted(run_id: str, into: Path) -> _Noted:
    try:
        found = json.loads(_notes(run_id).read_bytes())
        if found["into"] == str(into):
            seen = {os.fsencode(path): os.fsencode(mark) for path, mark in found["seen"].items()}
            return _Noted(seen=seen, inert=frozenset(map(os.fsencode, found.get("inert", ()))))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return _Noted(seen={}, inert=frozenset())


def _remember(run_id: str, into: Path, noted: _Noted, landed: Landed) -> None:
    notes = _notes(run_id)
    seen = {**noted.seen, **landed.seen}
    rows = {os.fsdecode(path): os.fsdecode(mark) for path, mark in seen.items()}
    inert = sorted(map(os.fsdecode, noted.inert.union(landed.inert)))
    private(notes.parent)
    replace_file(notes, json.dumps({"into": str(into), "seen": rows, "inert": inert}).encode())
