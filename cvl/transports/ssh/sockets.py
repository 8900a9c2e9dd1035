"""Where kept connections listen: sockets in a folder that nobody else can enter."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from cvl.core.digest import blake2b
from cvl.core.paths import private, state_dir

PATH_LIMIT = 85
"""Bytes: of the 104 that the smallest system gives, ssh needs 18 for a temporary name."""


def paths(words: Sequence[str], config: str | None, count: int) -> Iterator[str]:
    """Yield `count` paths for connections that are made with `words` and the file `config`.

    The machine's name is part of them, since homes are shared, and so is when the ssh_config was
    last changed: an alias may mean another host since. None, where no folder is fit.
    """
    folder = private_folder()
    if folder is None:
        return
    stamp = _changed(Path(config) if config else Path("~/.ssh/config"))
    identity = "\0".join((os.uname().nodename, stamp, *words))
    name = blake2b(os.fsencode(identity), digest_size=8).hexdigest()
    for number in range(count):
        path = f"{folder}/{name}{number}"
        if len(os.fsencode(path)) <= PATH_LIMIT:
            yield path


def private_folder() -> Path | None:
    """Return a folder for sockets that nobody else can enter, or None if there is none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime, "cvl") if runtime else state_dir() / "ssh"
    try:
        status = private(folder).lstat()
    except OSError:
        return None
    alone = status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077 == 0
    return folder if alone and stat.S_ISDIR(status.st_mode) else None


def _changed(config: Path) -> str:
    try:
        return str(config.expanduser().stat().st_mtime_ns)
    except OSError:
        return ""
