"""What a runner needs on this machine, looked at piece by piece for `cvl doctor`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cvl.core.errors import CvlError
from cvl.core.extras import Extra


class Check(NamedTuple):
    """One thing that was looked at. `ok` None: not needed by everybody."""

    what: str
    ok: bool | None
    text: str = ""
    remedy: str = ""


def program(name: str, package: str = "", *, needed: bool = True) -> Check:
    """Look for a program."""
    path = shutil.which(name)
    remedy = f"apt install {package}" if package else ""
    return Check(name, bool(path) or (False if needed else None), path or "", remedy)


def packages(extra: Extra) -> Check:
    """Judge the packages of an extra by loading them, under the name of the one that stands out."""
    wrong, package = extra.lacking(), extra.modules[0]
    if wrong is None:
        return Check(package, True, "installed")
    text = str(wrong)
    return Check(package, None, "" if text == f"{package} not installed" else text, wrong.hint)


def ssh() -> Iterator[Check]:
    """Look for what reaches a machine over SSH."""
    yield program("ssh", "openssh-client")
    keys = sorted(Path("~/.ssh").expanduser().glob("id_*.pub"))
    agent = bool(os.environ.get("SSH_AUTH_SOCK"))
    text = ", ".join(key.stem for key in keys) or ("an agent" if agent else "none found")
    yield Check("ssh keys", bool(keys or agent) or None, text, "ssh-keygen -t ed25519")


def login(what: str, there_is: bool, look: Callable[[], Check]) -> Iterator[Check]:
    """Judge a login where there is one; a broken one may be of no use to cvl."""
    if there_is:
        try:
            yield look()
        except CvlError as error:
            yield Check(what, None, str(error), error.hint)
