"""Folders below a root, and never out of it: to read what lies there, and to fill it from outside.

Every folder on the way is opened as a folder and not as a link, one below the other, and held: so
neither a host, nor what lies there already, nor who changes it meanwhile leads us elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from cvl.core.regular_file import AS_FILE, start_of

AS_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
AS_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""`O_PATH` asks only for the right to pass through a folder, as a path does."""
HELD = 32
"""How many folders in one another are held open: a fetch does so three times, of 256 files."""
PATH_LIMIT = 4096
"""Bytes of a path: what Linux holds."""
ASIDES = 1000


class Folders:
    """The folders below a root, of which the last one asked for stays open with those above it.

    Paths are bytes, relative, `/`-separated. The root may be reached through links: the user
    chose it. Asking for sorted paths opens each folder once.
    """

    def __init__(self, root: bytes | Path) -> None:
        """Open the root. Raises `OSError`."""
        self._path = b""
        self._open = [(b"", os.open(root, AS_ROOT))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all folders."""
        while self._open:
            os.close(self._open.pop()[1])

    def at(self, folder: bytes) -> int:
        """Return the open folder; it stays so until the next call. Raises `OSError`."""
        if folder != self._path:
            self._go(folder)
        return self._open[-1][1]

    def lstat(self, path: bytes) -> os.stat_result:
        """Return what lies at `path`, which itself may be a link. Raises `OSError`."""
        above, _, name = path.rpartition(b"/")
        return os.lstat(name, dir_fd=self.at(above))

    def readlink(self, path: bytes) -> bytes:
        """Return where a link points to. Raises `OSError`."""
        above, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.at(above))

    def open(self, path: bytes) -> int:
        """Open a file to read, never waiting for a pipe. Raises `OSError`."""
        above, _, name = path.rpartition(b"/")
        return os.open(name, AS_FILE | os.O_NOFOLLOW, dir_fd=self.at(above))

    def read(self, path: bytes, most: int) -> bytes:
        """Return a file's first `most` bytes. Raises `OSError`, also for what is no file."""
        above, _, name = path.rpartition(b"/")
        return start_of(name, most, folder=self.at(above))

    def names(self, folder: bytes) -> list[tuple[bytes, bool]]:
        """Return what lies in a folder, sorted: the name, whether it is a folder. `OSError`."""
        fd = os.open(b".", AS_ROOT, dir_fd=self.at(folder))
        try:
            with os.scandir(fd) as entries:
                return sorted(
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                )
        finally:
            os.close(fd)

    def link_on(self, path: bytes) -> bytes:
        """Return the outermost folder of `path` that is a link instead, b"" if none is."""
        for folder in reversed(list(parents(path))):
            try:
                if stat.S_ISLNK(self.lstat(folder).st_mode):
                    return folder
            except OSError:
                return b""
        return b""

    def _go(self, folder: bytes) -> None:
        """Close what does not lead to `folder`, and open the rest of the way."""
        while self._path and self._path != folder and not folder.startswith(self._path + b"/"):
            os.close(self._open.pop()[1])
            self._path = self._open[-1][0]
        rest = folder[len(self._path) :].lstrip(b"/") if self._path else folder
        for name in rest.split(b"/") if rest else ():
            self._enter(name)

    def _enter(self, name: bytes) -> None:
        path = self._path + b"/" + name if self._path else name
        if len(path) > PATH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if name in {b"", b".", b".."}:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        fd = self._step(self._open[-1][1], name)
        if len(self._open) > HELD:
            os.close(self._open.pop()[1])
        self._open.append((path, fd))
        self._path = path

    def _step(self, above: int, name: bytes) -> int:
        """Open the folder `name` in an open one."""
        return os.open(name, AS_STEP, dir_fd=above)


class SafeDir(Folders):
    """A folder that is filled; what is missing on the way to a folder asked for is made.

    `moved` names what had to make way, by its old and its new path: a file or link where a folder
    is needed, a folder where a file is. Nothing of the user's is removed for being in the way.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.moved: list[tuple[bytes, bytes]] = []

    def put(self, name: bytes, folder: int, path: bytes) -> None:
        """Rename `name` in the open `folder` to `path`, over an older file or link. `OSError`."""
        above, _, last = path.rpartition(b"/")
        parent = self.at(above)
        try:
            os.rename(name, last, src_dir_fd=folder, dst_dir_fd=parent)
        except IsADirectoryError:
            self._make_way(parent, last)
            os.rename(name, last, src_dir_fd=folder, dst_dir_fd=parent)

    def _step(self, above: int, name: bytes) -> int:
        try:
            return super()._step(above, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            self._make_way(above, name)
        with suppress(FileExistsError):  # another fetch into the same folder was faster
            os.mkdir(name, dir_fd=above)
        return super()._step(above, name)

    def _make_way(self, parent: int, name: bytes) -> None:
        """Give what lies in the open folder `parent`, the last one opened, another name."""
        above = self._path + b"/" if self._path else b""
        for number in range(1, ASIDES):
            aside = name + b".old%d" % number
            try:
                os.lstat(aside, dir_fd=parent)
            except FileNotFoundError:
                os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
                self.moved.append((above + name, above + aside))
                return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, in as many pieces as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def parents(path: bytes) -> Iterator[bytes]:
    """Yield the folders around a relative path, from the inside out, without the root."""
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path
