"""Results make no folder a repository of git, whatever comes, in whatever order and how often."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from errno import EPERM
from functools import cache

from cvl.core.safe_dir import SafeDir
from cvl.host.download.inert_names import HEAD_LIMIT, SUFFIX, is_head, is_head_name, is_part_name

AS_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Shape(Enum):
    """How much of a repository a folder is: nothing, a HEAD, or all that git asks for."""

    PLAIN = "plain"
    HEADED = "headed"
    WHOLE = "whole"


class Repositories:
    """Says where results land on a shelf; looks at each folder once, for they change no shape."""

    def __init__(self, shelf: SafeDir) -> None:
        self._shelf = shelf
        self._look = cache(self._shape)
        self._plain: set[bytes] = set()

    def place(self, target: bytes, content: Callable[[], bytes], *, link: bool = False) -> bytes:
        """Return where below the shelf a result lands, so that it makes no folder a repository.

        `content` gives how a file begins, or where a `link` points to. No HEAD from outside lands
        as one, so only the user's own can make a repository of what comes. Raises
        `PermissionError` in a folder that is one: git runs what its files say.
        """
        above, _, last = target.rpartition(b"/")
        place = target if above in self._plain else self._walked(target, above)
        is_one = is_head_name(last) and is_head(content(), link=link)
        return place + SUFFIX if is_one else place

    def _walked(self, target: bytes, above: bytes) -> bytes:
        place, plain = b"", True
        for name in target.split(b"/"):
            shape = self._look(place)
            plain = plain and shape is Shape.PLAIN
            if shape is Shape.WHOLE:
                raise PermissionError(EPERM, "a git repository is there, and is left alone")
            taken = name + SUFFIX if shape is Shape.HEADED and is_part_name(name) else name
            place = place + b"/" + taken if place else taken
        if plain:
            self._plain.add(above)
        return place

    def _shape(self, folder: bytes) -> Shape:
        try:
            fd = self._shelf.around(folder + b"/HEAD" if folder else b"HEAD")
        except OSError:  # not there, or no folder: it makes way
            return Shape.PLAIN
        try:
            if not _has_head(fd):
                return Shape.PLAIN
            whole = _has(fd, "commondir") or (_has(fd, "objects") and _has(fd, "refs"))
            return Shape.WHOLE if whole else Shape.HEADED
        finally:
            os.close(fd)


def _has(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _has_head(folder: int) -> bool:
    with suppress(OSError):
        return is_head(os.fsencode(os.readlink("HEAD", dir_fd=folder)), link=True)
    try:
        fd = os.open("HEAD", AS_FILE, dir_fd=folder)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and is_head(os.read(fd, HEAD_LIMIT))
    finally:
        os.close(fd)
