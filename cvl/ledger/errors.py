"""What went wrong with the ledger's file, in words, and whether the file itself is to blame."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cvl.core.errors import LedgerError
from cvl.core.paths import private_file

CORRUPT, NOTADB = 11, 26
BUSY, INTERRUPT, CANTOPEN = 5, 9, 14

ELSEWHERE = "or set CVL_STATE_DIR to a folder on another, local disk"
AFRESH = "the next `cvl run` keeps it aside and starts a new one; `cvl reap` finds rented machines"

PROBLEMS = {
    3: ("access is denied", "check the owner and mode of the file and its folder"),
    BUSY: ("another process has kept it locked", "see which with `fuser` on it, then try again"),
    8: ("it is read-only", f"make the file and its folder writable, {ELSEWHERE}"),
    INTERRUPT: (
        "a question to it does not come to an end",
        "move it away: the next `cvl run` starts a new one; `cvl reap` finds rented machines",
    ),
    10: (
        "the disk reports an error",
        f"it may be full, over quota or failing: see to it, {ELSEWHERE}",
    ),
    CORRUPT: ("it is damaged", AFRESH),
    13: ("the disk is full", f"make room, {ELSEWHERE}"),
    CANTOPEN: ("it cannot be opened", f"make the file and its folder writable, {ELSEWHERE}"),
    NOTADB: ("it is damaged: this is no database", AFRESH),
}
"""What to say for each of SQLite's primary result codes (sqlite.org/rescode.html)."""

LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Damaged(Exception):
    """The file is there, but certainly no intact ledger."""


def explained(verb: str, path: Path, error: Exception) -> LedgerError:
    """Return the error for a person who wanted to `verb` the ledger."""
    what, hint = _explanation(path, error)
    return LedgerError(f"cannot {verb} the ledger {path}: {what}", hint)


def is_damage(error: BaseException | None) -> bool:
    """Tell whether the file is damaged beyond doubt: not locked, forbidden, or on a full disk."""
    return isinstance(error, Damaged) or _code(error) in {CORRUPT, NOTADB}


def is_locked(error: BaseException | None) -> bool:
    """Tell whether another process has kept the file to itself for all the time we waited."""
    return _code(error) == BUSY


def _explanation(path: Path, error: Exception) -> tuple[str, str]:
    if isinstance(error, OSError):
        return _explanation_of_system(error)
    if isinstance(error, Damaged):
        return str(error), AFRESH
    code = _code(error)
    if code == CANTOPEN and _missing(path):
        return "it is not there any more", "look for it beside its place: was it moved or removed?"
    if code == BUSY and (lockless := _lockless(path.parent)):
        return _no_locks(lockless)
    return PROBLEMS.get(code, (str(error), f"see to it, {ELSEWHERE}"))


def _missing(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _explanation_of_system(error: OSError) -> tuple[str, str]:
    if error.errno in LOCKLESS:
        return _no_locks(error)
    if isinstance(error, BlockingIOError):
        return PROBLEMS[BUSY]
    return error.strerror or str(error), f"make its folder usable, {ELSEWHERE}"


def _no_locks(error: OSError) -> tuple[str, str]:
    return (
        f"its file system offers no locks ({error.strerror})",
        "set CVL_STATE_DIR to a folder on a local disk, or turn on NFS locking",
    )


def _lockless(folder: Path) -> OSError | None:
    """SQLite reports a file system without locks as busy (its os_unix.c maps ENOLCK so): ask."""
    probe = folder / f"probe-{os.urandom(4).hex()}"
    try:
        try_lock(probe)
    except OSError as error:
        return error if error.errno in LOCKLESS else None
    finally:
        probe.unlink(missing_ok=True)
    return None


def try_lock(new: Path) -> None:
    """Create `new` as 0600 and lock it, as SQLite will, for a moment. Raises `OSError`.

    Never to be done to a file that SQLite has open: closing it would drop SQLite's locks.
    """
    import fcntl

    file = private_file(new, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(file)


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code, 0 for whatever is not an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF if isinstance(code, int) else 0
