"""A folder that can be filled from outside, and never led out of.

Every folder on the way is opened as a folder and not as a link, one below the other, so neither
the host nor a link that lies there already leads a single byte elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

AS_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ASIDES = 1000
Enter = Callable[[int, bytes, bytes], int]
"""Opens the folder that has a name in an open one, whose path ends in `/`, or is "" at the top."""


class SafeDir:
    """A folder, held open. Paths are relative to it, plain, and bytes.

    `moved` names what had to make way, by its old and its new path: a file or link where a folder
    is needed, a folder where a file is. Nothing of the user's is removed for being in the way.
    """

    def __init__(self, folder: Path) -> None:
        """The folder itself may be reached through links: the user chose it."""
        self.moved: list[tuple[bytes, bytes]] = []
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._below = Subfolders(self._root, self._enter)

    def close(self) -> None:
        """Let go of the folder."""
        self._below.close()
        os.close(self._root)

    def put(self, name: bytes, folder: int, path: bytes) -> None:
        """Rename `name` in the open `folder` to `path`, over an older file or link. `OSError`."""
        above, slash, last = path.rpartition(b"/")
        parent = self.folder(above)
        try:
            os.rename(name, last, src_dir_fd=folder, dst_dir_fd=parent)
        except IsADirectoryError:
            self._make_way(parent, above + slash, last)
            os.rename(name, last, src_dir_fd=folder, dst_dir_fd=parent)

    def folder(self, path: bytes) -> int:
        """Open the folder `path`, made if it is missing; it stays open until the next call."""
        return self._below.folder(path)

    def around(self, path: bytes) -> int:
        """Open the folder that holds `path`, if it is there; the caller closes it. `OSError`."""
        return descend(self._root, path.rpartition(b"/")[0])

    def _enter(self, fd: int, above: bytes, name: bytes) -> int:
        try:
            return _open(fd, above, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            self._make_way(fd, above, name)
        with suppress(FileExistsError):  # another fetch into the same folder was faster
            os.mkdir(name, dir_fd=fd)
        return _open(fd, above, name)

    def _make_way(self, parent: int, above: bytes, name: bytes) -> None:
        for number in range(1, ASIDES):
            aside = name + b".old%d" % number
            try:
                os.lstat(aside, dir_fd=parent)
            except FileNotFoundError:
                os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
                self.moved.append((above + name, above + aside))
                return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _open(fd: int, _above: bytes, name: bytes) -> int:
    return os.open(name, AS_FOLDER, dir_fd=fd)


class Subfolders:
    """The folders below an open one, through no link; of paths in order each is opened once."""

    def __init__(self, root: int, enter: Enter = _open) -> None:
        """`root` stays the caller's. `enter` opens one folder in another."""
        self._root, self._enter = root, enter
        self._last: tuple[bytes, int] | None = None

    def folder(self, path: bytes) -> int:
        """Open the folder `path`, if it is there; it stays open until the next call. `OSError`."""
        if self._last and self._last[0] == path:
            return self._last[1]
        self.close()
        fd = descend(self._root, path, self._enter)
        self._last = (path, fd)
        return fd

    def close(self) -> None:
        """Let go of the folder that is open."""
        if self._last:
            os.close(self._last[1])
            self._last = None


def descend(fd: int, folder: bytes, enter: Enter = _open) -> int:
    """Open `folder` below `fd`, through no link."""
    fd, above = os.dup(fd), b""
    for name in folder.split(b"/") if folder else ():
        try:
            deeper = enter(fd, above, name)
        finally:
            os.close(fd)
        fd, above = deeper, above + name + b"/"
    return fd


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
