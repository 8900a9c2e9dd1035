"""Whether what is ours on this machine is only ours: looked at whenever a command starts.

Whoever can write to the ledger says what the next command connects to. So our folders, the way to
them, and the ledger must be in nobody else's hands. Some system calls; nothing is loaded.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cvl.core.errors import CvlError
from cvl.core.paths import (
    FOR_ALL,
    SIDE_FILES,
    cache_dir,
    config_dir,
    ledger_file,
    private,
    shared,
    state_dir,
)

LINKS = 40
"""Links on one way after which it is taken for a circle, as Linux does."""
UNTRACED = "here"
"""The folder of jobs on this machine: what they make in it may be anybody's."""


class Home(NamedTuple):
    """One of our folders: what it is to a person, where it lies, how it is put elsewhere."""

    what: str
    path: Path
    variable: str


class NotOurs(CvlError):
    """Something of ours is in somebody else's hands, or could be."""


def secured() -> list[str]:
    """Close what of ours is open to others; return a line for each. Raises `NotOurs`.

    What cannot be looked at is left to whoever needs it.
    """
    return [line for home in homes() for line in _secured(home)] + list(_ledger())


def trouble() -> NotOurs | None:
    """Return what `secured` raises, None if it raises nothing."""
    try:
        secured()
    except NotOurs as error:
        return error
    return None


def homes() -> tuple[Home, ...]:
    """Return our folders, whether they exist or not."""
    return (
        Home("state folder", state_dir(), "CVL_STATE_DIR"),
        Home("configuration folder", config_dir(), "CVL_CONFIG_DIR"),
        Home("cache folder", cache_dir(), "CVL_CACHE_DIR"),
    )


def of_others(status: os.stat_result) -> bool:
    """Return whether something is neither ours nor root's.

    Where this process sees only some users (a user namespace), those outside have one number:
    there it says nothing.
    """
    owner = status.st_uid
    return owner not in {0, os.geteuid()} and not _is_unseen(owner)


def unsafe(path: str) -> str:
    """Return why others could change what lies at `path`, "" if only root could. Raises `OSError`.

    `path` is absolute, and what is missing harms nobody. Every folder and link on the way counts,
    but not that a group may write to one: many systems give each user a group of their own.
    """
    try:
        for here, status, more in _way(Path(path)):
            if of_others(status):
                return f"{here} belongs to user {status.st_uid}"
            folder = more and stat.S_ISDIR(status.st_mode)
            if folder and status.st_mode & FOR_ALL == stat.S_IWOTH:
                return f"everybody may write to {here}"
    except FileNotFoundError:
        pass
    return ""


def _secured(home: Home) -> Iterator[str]:
    try:
        if why := unsafe(str(home.path)):
            raise _refused(home, why)
        if why := shared(home.path):
            raise _refused(home, why)
        status = home.path.stat()
    except OSError:
        return
    if not stat.S_IMODE(status.st_mode) & 0o077 or (status.st_uid == 0 != os.geteuid()):
        return
    if status.st_mode & 0o022 and (strange := _strange(home.path)):
        raise _refused(home, f"others could write to it, and {strange} is not yours")
    try:
        private(home.path)
    except OSError as error:
        raise _refused(home, error.strerror or str(error)) from error
    yield (
        f"the {home.what} {home.path} was open to others (mode"
        f" {stat.S_IMODE(status.st_mode):04o}): now it is yours alone"
    )


def _refused(home: Home, why: str) -> NotOurs:
    return NotOurs(
        f"the {home.what} {home.path} cannot be trusted: {why}",
        f"see whose it is, or set {home.variable} to a folder of your own",
    )


def _ledger() -> Iterator[str]:
    """Look at the ledger's files as at the folders."""
    for suffix in SIDE_FILES:
        path = f"{ledger_file()}{suffix}"
        try:
            link, target = os.lstat(path), os.stat(path)  # noqa: PTH116 - a Path costs more
        except OSError:
            continue
        for status in (link, target):
            if of_others(status):
                raise NotOurs(
                    f"the ledger {path} cannot be trusted: it belongs to user {status.st_uid}",
                    "see who has put it there, and move it away; `cvl reap` finds rented machines",
                )
        ours = stat.S_ISREG(target.st_mode) and target.st_uid == os.geteuid()
        if ours and target.st_mode & 0o077:
            os.chmod(path, 0o600)  # noqa: PTH101
            yield f"the ledger {path} was open to others: now it is yours alone"


def _strange(folder: Path) -> Path | None:
    """Return something below a folder of ours that is somebody else's, None if all is ours."""
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at, name)
            if of_others(path.lstat()):
                return path
        if at == str(folder):
            folders[:] = [name for name in folders if name != UNTRACED]
    return None


def _way(path: Path, links: int = LINKS) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Yield every folder and link on the way, what is at its end, and whether more follows."""
    for here in (*reversed(path.parents), path):
        status = here.lstat()
        yield here, status, here != path
        if stat.S_ISLNK(status.st_mode):
            if links == 0:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            yield from _way(here.parent / here.readlink() / path.relative_to(here), links - 1)
            return


def _is_unseen(owner: int) -> bool:
    """Return whether this number stands for every user that our namespace does not know."""
    try:
        unknown = int(Path("/proc/sys/kernel/overflowuid").read_text())
        known = Path("/proc/self/uid_map").read_text().split()
    except (OSError, ValueError):
        return False
    return owner == unknown and known != ["0", "0", "4294967295"]
