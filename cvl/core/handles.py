"""What a run's handle may say: it comes from the ledger, and may make us run or send something.

A handle may name the ssh_config, another configuration or the folder of shell files that its run
was started with, and all of them can hold commands. So these must be in nobody else's hands; and
while others could have changed the ledger, they count only if they are what the environment says
too. Which keys of a handle those are, its runner declares.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from cvl.core.errors import CvlError
from cvl.core.paths import absolutes
from cvl.core.privacy import trouble, unsafe
from cvl.core.spec import RUN_ID

CONTROL = re.compile(r"[\0-\x1f\x7f]")
FREE = frozenset({"place", "folder"})
"""Values that may hold any byte: they name folders of the user's, and only that."""


def checked(
    runner: str, handle: Mapping[str, str], acting: Mapping[str, str], files: Collection[str]
) -> Mapping[str, str]:
    """Return `handle` if it can be acted on. Raises `CvlError`.

    `acting` are the keys of values that decide what runs or where something is sent, each with
    the variable that says them here; `files` those of them that name files or folders here.
    """
    for name, value in handle.items():
        if name not in FREE and CONTROL.search(value):
            raise CvlError(f"the ledger is damaged: {name} of a {runner} run is {value!r}")
    if not RUN_ID.match(handle.get("run", "none")):
        raise CvlError(f"the ledger is damaged: {handle['run']!r} is no run")
    for path in (each for name in files for each in handle.get(name, "").split(os.pathsep)):
        if path and (why := _changeable(path)):
            raise CvlError(
                f"{path}, which the ledger names, is not used: {why}",
                "others could put commands into it; see whose it is",
            )
    if any(map(handle.get, acting)):
        _expected(handle, acting, files)
    return handle


def _changeable(path: str) -> str:
    """Return why others could change a file or folder, "" if they could not, or it is missing."""
    full = Path(path).expanduser().absolute()
    try:
        why, mode = unsafe(str(full)), full.stat().st_mode
    except OSError:
        return ""  # whoever reads it will say so
    device = stat.S_ISCHR(mode)  # /dev/null: nothing stays in it
    return why or ("everybody may write to it" if mode & 0o002 and not device else "")


def _expected(handle: Mapping[str, str], acting: Mapping[str, str], files: Collection[str]) -> None:
    """Raise `CvlError` for what a ledger that is not only ours must not decide.

    What is in the home of a host is fine: nothing of it is read here.
    """
    doubt = trouble()
    if doubt is None:
        return
    for name, variable in acting.items():
        value, here = handle.get(name, ""), os.environ.get(variable, "")
        same = value in {here, absolutes(here)}
        there = name not in files and value.startswith("~/")
        if value and not same and not there:
            raise CvlError(
                f"the {name} that the ledger names, {value}, is not used: {doubt}",
                "mend that first; what is rented is ended all the same",
            )
