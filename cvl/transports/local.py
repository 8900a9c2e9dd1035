"""Reaches this machine: the same interface as for any other, without a connection."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from cvl.core.errors import FetchError, NotReady
from cvl.core.interfaces import Process
from cvl.core.scope import Scope

CHUNK = 1 << 20


class Local:
    """A `Transport` to this machine, as the current user."""

    @property
    def where(self) -> str:
        return "this machine"

    def start(self, argv: Sequence[str]) -> Process:
        """Run `argv` here, with pipes and in a session of its own."""
        from subprocess import PIPE, Popen

        words = argv[1:] if argv[0] == "exec" else argv  # what only a shell can do
        try:
            child = Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        except OSError as error:
            raise NotReady(f"cannot run {words[0]} here: {error.strerror}") from None
        return cast("Process", child)  # with PIPE, all three are there

    def failure(self, code: int, stderr: bytes) -> Exception | None:  # noqa: ARG002
        """There is no connection that could break."""
        return None

    def pull(self, source: str, files: Sequence[bytes], into: Path, scope: Scope) -> None:
        from cvl.transports.rsync import relative

        failed: list[str] = []
        for name in files:
            path = os.fsdecode(relative(name))
            try:
                _copy(Path(source, path), _replaced(into, path), scope)
            except OSError as error:
                failed.append(f"{path}: {error.strerror}")
            scope.checkpoint()
        if failed:
            raise FetchError(f"not everything could be copied ({'; '.join(failed[:3])})")


def _copy(source: Path, target: Path, scope: Scope) -> None:
    """Copy one regular file, whole or not at all, unless the same one is there already."""
    with os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as data:
        status = os.fstat(data.fileno())
        if not stat.S_ISREG(status.st_mode) or _same(status, target):
            return
        new = target.with_name(f".cvl-{os.getpid()}.part")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(new, flags, stat.S_IMODE(status.st_mode) & 0o777), "wb") as copy:
                while chunk := data.read(CHUNK):
                    copy.write(chunk)
                    scope.checkpoint()
            os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)


def _same(status: os.stat_result, target: Path) -> bool:
    """Judge as rsync does: by size and time."""
    try:
        there = target.lstat()
    except OSError:
        return False
    times = (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    return stat.S_ISREG(there.st_mode) and times


def _replaced(into: Path, path: str) -> Path:
    """Return where `path` goes, with folders for links on the way: nothing is written through."""
    *folders, last = [part for part in path.split("/") if part not in {"", "."}]
    into.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        into /= folder
        if into.is_symlink():
            into.unlink()
        into.mkdir(exist_ok=True)
    return into / last
