"""Runs that came to this machine from elsewhere: not in the ledger here, but in `~/.cvl/runs`.

Whoever is logged in here sees, follows and stops them by the same commands as runs of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import cvl
from cvl.core.errors import Ambiguous, CvlError, NotFound, Unreadable
from cvl.core.regular_file import start_of
from cvl.core.spec import RESULTS, RUN_ID, ExitStatus
from cvl.ledger import Ledger, Run, RunState

WHERE = "this machine, from elsewhere"
HASH = re.compile(r"[0-9a-f]{32}")
"""How a folder is named that `setup.sh` unpacks a cvl into."""
SMALL = 1 << 20
"""Bytes that are read of what a run's sender has said of it: arguments may be long."""


def base() -> Path:
    """Return the folder that runs from elsewhere lie in."""
    return put_here() or Path("~/.cvl").expanduser()


def put_here() -> Path | None:
    """Return the folder that this cvl was put in from elsewhere, None for one installed here.

    `setup.sh` unpacks it into lib/<hash>: whoever calls that one wants to see what came in.
    """
    home = Path(cvl.__file__).absolute().parents[1]
    unpacked = HASH.fullmatch(home.name) and home.parent.name == "lib"
    return home.parents[1] if unpacked and (home / "__main__.py").is_file() else None


def find(prefix: str, ledger: Ledger) -> Run:
    """Return the run that a person means, one of our own or from elsewhere.

    Raises `NotFound` and `Ambiguous`.
    """
    foreign = [name for name in _names() if name.startswith(prefix)] if prefix else []
    try:
        own = ledger.find(prefix)
    except NotFound:
        if len(foreign) == 1 or prefix in foreign:
            return _run(prefix if prefix in foreign else foreign[0])
        if not foreign:
            raise
        own = None
    others = sorted({*foreign, *([own.id] if own else [])})
    if own and (own.id == prefix or others == [own.id]):
        return own
    hint = f"say which: {', '.join(others)}"
    raise Ambiguous(f"more than one run begins with {prefix!r}", hint)


def visitors(ids: Callable[[], Collection[str]]) -> list[Run]:
    """Return the runs from elsewhere: those that are not among the `ids` of our own."""
    names = _names()
    own = ids() if names else ()
    runs = [_run(name) for name in names if name not in own]
    ends = _ends() if any(run.exit_code is None for run in runs) else {}
    return [_ended(run, ends.get(run.id) if run.exit_code is None else None) for run in runs]


def foreign(run: Run) -> bool:
    """Return whether this run came from elsewhere."""
    return run.where == WHERE


def _names() -> list[str]:
    try:
        return [path.name for path in (base() / "runs").iterdir() if RUN_ID.match(path.name)]
    except OSError:
        return []


def _run(name: str) -> Run:
    folder = base() / "runs" / name
    about = _about(folder / "meta.json")
    args = about.get("args")
    run = Run(
        id=name,
        example=_text(about.get("example")),
        preset=_text(about.get("preset")),
        args=tuple(map(_text, args if isinstance(args, list) else ())),
        runner="local",
        where=WHERE,
        handle={"run": name, "base": str(base()), "place": os.fsdecode(_small(folder / "place"))},
        state=RunState.RUNNING,
        started=_began(folder),
        results=str((RESULTS / name).absolute()),
    )
    status = None if os.path.lexists(folder / "supervisor") else _result(folder / "result", name)
    return _ended(run, status)


def _ended(run: Run, end: ExitStatus | Unreadable | None) -> Run:
    if isinstance(end, Unreadable):
        return replace(run, detail=str(end))
    if end is None:
        return run
    when = _time(base() / "runs" / run.id / "result")
    return replace(run, state=RunState.ENDED, exit_code=int(end), cause=end.cause, ended=when)


def _ends() -> dict[str, ExitStatus | Unreadable]:
    """Ask the shell files, which also settle what a crash has left unsettled."""
    from cvl.host.rpc import FarSide
    from cvl.transports.local import Local

    try:
        _, listing = FarSide(Local(), str(base())).ask("runs", [])
    except CvlError:
        return {}
    return dict(filter(None, map(_line, listing.decode("ascii", "replace").split("\n"))))


def _line(line: str) -> tuple[str, ExitStatus | Unreadable] | None:
    """Return the run of one line of `runs` and how it ended, None if it has not."""
    from cvl.host.record import ending, unreadable

    name, _, state = line.partition(" ")
    word, _, rest = state.partition(" ")
    if state == "running" or not RUN_ID.match(name):
        return None
    try:
        return name, ending(rest, name) if word == "result" else unreadable(name, state)
    except Unreadable as error:
        return name, error


def _result(file: Path, name: str) -> ExitStatus | None:
    """Return the ending of a run of which no more is left; the shell files tell of any other."""
    from cvl.host.record import ending_in

    try:
        return ending_in(file, name)
    except Unreadable:
        return None


def _about(file: Path) -> dict[str, object]:
    """Return what the run's sender has said of it: nothing that we rely on."""
    from json import loads

    try:
        about = loads(_small(file) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _small(file: Path) -> bytes:
    try:
        return start_of(file, SMALL)
    except OSError:
        return b""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _began(folder: Path) -> float | None:
    """Return when a run was started here: what its sender has said of it is never written again."""
    try:
        return (folder / "meta.json").lstat().st_ctime
    except OSError:
        return _time(folder)


def _time(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None
