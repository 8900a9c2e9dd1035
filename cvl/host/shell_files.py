"""The shell files that a machine is given, under one hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from cvl.core.digest import blake2b

SHELL_FILES = (
    "alive.sh",
    "cache.sh",
    "changes.sh",
    "clean.sh",
    "containers.sh",
    "docker.sh",
    "follow.sh",
    "prepare.sh",
    "run.sh",
    "spare.sh",
    "start.sh",
    "supervisor.sh",
    "sweep.sh",
)
"""What is put into lib/<hash> on a machine. setup.sh is not: it installs cvl itself."""


@dataclass(frozen=True, slots=True)
class Library:
    """Our shell files, and the hash of what is in them."""

    hash: str
    files: Mapping[str, bytes]

    def archive(self) -> bytes:
        """Return them as one tar: none can be written to, so that a job's `>file` fails."""
        return tar_of(self.files, 0o500)


@cache
def library() -> Library:
    """Return the shell files that belong to this version of cvl, also from inside a zipapp."""
    files = {name: script(name) for name in SHELL_FILES}
    digest = blake2b(digest_size=16)
    for name, data in files.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return Library(digest.hexdigest(), files)


def tar_of(files: Mapping[str, bytes], mode: int = 0o700) -> bytes:
    """Return a tar of some small files that GNU, BSD and busybox tar can read."""
    from cvl.host.tarstream import END, Member, whole

    members = (
        whole(Member(name=name.encode(), size=len(data), mode=mode), data)
        for name, data in files.items()
    )
    return b"".join((*members, END))


def script(name: str) -> bytes:
    """Return one of the files in shell/, also from inside a zipapp."""
    return cast("_Loader", __spec__.loader).get_data(str(Path(__file__).with_name("shell") / name))


class _Loader(Protocol):
    """What loads modules (`importlib.abc.ResourceLoader`); `pkgutil` takes 1 ms to load."""

    def get_data(self, path: str, /) -> bytes: ...
