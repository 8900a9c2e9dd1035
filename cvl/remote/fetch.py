"""Brings a run's results here: ask what changed, carry it over, land it safely."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from cvl.errors import FetchError, NotReady
from cvl.remote.far import FarSide, Headers
from cvl.remote.incoming import incoming
from cvl.remote.landing import Landed, land_staged, land_tar
from cvl.remote.results import Results, arrange, fresh, parse_changed
from cvl.runlog import run_folder
from cvl.scope import Scope
from cvl.units import size

SMALL = 16_000_000
"""Bytes up to which one tar stream is used: one round trip, no second program."""
SHOWN = 5
"""Skipped results that are named one by one."""


def fetch(far: FarSide, handle: Mapping[str, str], into: Path, scope: Scope) -> Landed:
    """Bring everything new or changed into `into`; what is here already is not moved again.

    Raises `FetchError`, `Unreachable` and `NotReady`; what has landed by then stays.
    """
    run_id = handle["run"]
    headers = [("id", run_id), *([("image", handle["image"])] if handle.get("image") else [])]
    answers, listing = far.ask("changed", headers)
    place = next((answer.rest for answer in answers if answer.word == "place"), "")
    results = arrange(parse_changed(listing), os.fsencode(handle.get("place", place)))
    seen = _seen(run_id, into)
    new = fresh(results, into, seen)
    scope.tell("fetching", f"{len(new.files)} files, {size(new.size)}")
    landed = _carried(far, headers, run_id, new, into, scope)
    _remember(run_id, into, {**seen, **landed.seen})
    _tell(scope, landed, into)
    return landed


def _carried(
    far: FarSide, headers: Headers, run_id: str, new: Results, into: Path, scope: Scope
) -> Landed:
    if not new.files:
        return _without_files(new, into)
    if new.size <= SMALL:
        return _by_tar(far, headers, new, into)
    try:
        return _by_rsync(far, run_id, new, into, scope)
    except NotReady:  # no rsync over there
        return _by_tar(far, headers, new, into)


def _by_tar(far: FarSide, headers: Headers, new: Results, into: Path) -> Landed:
    wanted = b"".join(piece.source + b"\0" for piece in new.files)
    stream = far.open("pack", headers, wanted)
    try:
        landed = land_tar(stream.payload(), new, into)
        failure = stream.finish(30.0)
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


def _by_rsync(far: FarSide, run_id: str, new: Results, into: Path, scope: Scope) -> Landed:
    in_place = any(piece.source.startswith(b"/") for piece in new.files)
    runs = f"{far.base or '.cvl'}/runs/{run_id}"
    with incoming(into) as staging:
        for source, files in (
            ("/", [p.source for p in new.files if p.source.startswith(b"/")] if in_place else []),
            (runs, [p.source for p in new.files if not p.source.startswith(b"/")]),
        ):
            if files:
                names = [name.lstrip(b"/") for name in files]
                far.transport.pull(source, names, staging, scope)
        return land_staged(staging, new, into)


def _tell(scope: Scope, landed: Landed, into: Path) -> None:
    count = f"{landed.files} file{'' if landed.files == 1 else 's'}"
    scope.tell(
        "fetched", f"{count}, {size(landed.size)}, in {into}" if landed.files else "nothing new"
    )
    for each in landed.skipped[:SHOWN]:
        scope.warn(f"left there: {each}")
    if len(landed.skipped) > SHOWN:
        scope.warn(f"left there: {len(landed.skipped) - SHOWN} more")


def _notes(run_id: str) -> Path:
    return run_folder(run_id) / "fetched.json"


def _seen(run_id: str, into: Path) -> dict[bytes, bytes]:
    try:
        noted = json.loads(_notes(run_id).read_bytes())
        if noted["into"] != str(into):
            return {}
        return {os.fsencode(path): os.fsencode(mark) for path, mark in noted["seen"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def _remember(run_id: str, into: Path, seen: Mapping[bytes, bytes]) -> None:
    notes = _notes(run_id)
    notes.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = notes.with_suffix(f".{os.getpid()}")
    rows = {os.fsdecode(path): os.fsdecode(mark) for path, mark in seen.items()}
    new.write_text(json.dumps({"into": str(into), "seen": rows}))
    new.replace(notes)
