"""Reading below a root without ever being led out of it.

Every folder on the way is opened as a folder and not as a link, one below the other, and held: so
neither what lies in a tree nor who changes it meanwhile makes us read a file of somewhere else.
`Shelf` does the like for what comes back.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

AS_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
AS_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""`O_PATH` asks only for the right to pass through a folder, as a path does."""
AS_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DEEPEST = 128
"""How many folders may lie in one another: each is held open."""


class Folders:
    """The folders below a root, of which the last one asked for stays open with all above it.

    Paths are bytes, relative, `/`-separated. The root may be reached through links: the user
    chose it. Asking for sorted paths opens each folder once.
    """

    def __init__(self, root: bytes) -> None:
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
        return os.open(name, AS_FILE, dir_fd=self.at(above))

    def read(self, path: bytes, most: int) -> bytes:
        """Return a file's content. Raises `OSError`, also for what is no file or too long."""
        content, fd = bytearray(), self.open(path)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            while block := os.read(fd, most + 1 - len(content)):
                content += block
                if len(content) > most:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        finally:
            os.close(fd)
        return bytes(content)

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
        steps = path.split(b"/")
        for end in range(1, len(steps)):
            folder = b"/".join(steps[:end])
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
        if len(self._open) > DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"it lies more than {DEEPEST} folders deep")
        if name in {b"", b".", b".."}:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        fd = os.open(name, AS_STEP, dir_fd=self._open[-1][1])
        self._path = self._path + b"/" + name if self._path else name
        self._open.append((self._path, fd))
