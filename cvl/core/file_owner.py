"""Whose a file or folder is: the user's, the administrator's, or somebody else's, as git judges.

What lies in a folder above the current one is only believed if nobody else can have put it there:
on a shared machine anybody may write `/tmp/cvl.toml`. Root's files are believed too. Under `sudo`
so are those of the user who called it (`$SUDO_UID`), as git does.
"""

from __future__ import annotations

import os
import stat


def stranger(path: str, *, also: int | None = None) -> str:
    """Return why somebody else may have made or changed what lies at `path`; "" if nobody can.

    Of a link, both its own owner and that of what it leads to count. `also` is one more user who
    is believed, whatever the mode is. A path where nothing can be seen is nobody's.
    """
    try:
        statuses = [os.lstat(path)]
        if stat.S_ISLNK(statuses[0].st_mode):
            statuses.append(os.stat(path))  # noqa: PTH116 - a text, on every start
    except OSError:
        return ""
    return next((why for each in statuses if (why := judged(each, also))), "")


def judged(status: os.stat_result, also: int | None = None) -> str:
    """As `stranger`, of what was looked at already."""
    if also is not None:
        return "" if status.st_uid in believed() | {also} else _belongs(status)
    if status.st_uid not in believed():
        return _belongs(status)
    holds = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    if holds and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return "everybody may write to it"
    return ""


def owner(uid: int) -> str:
    """Return a user's name and number, for a person."""
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def believed() -> frozenset[int]:
    """Return the users whose files are taken for the user's own."""
    me, caller = os.geteuid(), os.environ.get("SUDO_UID", "")
    if me == 0 and caller.isascii() and caller.isdecimal():
        return frozenset({0, int(caller)})
    return frozenset({0, me})


def _belongs(status: os.stat_result) -> str:
    return f"it belongs to {owner(status.st_uid)}"
