"""Results make no folder a repository of git, whatever comes, in whatever order and how often."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from errno import EPERM
from functools import cache

from cvl.core.safe_dir import Folders
from cvl.host.download.inert_names import HEAD_LIMIT, SUFFIX, is_head, is_head_name, is_part_name


class Shape(Enum):
    """How much of a repository a folder is: nothing, a HEAD, or all that git asks for."""

    PLAIN = "plain"
    HEADED = "headed"
    WHOLE = "whole"


class Repositories:
    """Says where results land; looks at each folder once, for they change no shape."""

    def __init__(self, there: Folders) -> None:
        """`there` is where they land."""
        self._there = there
        self._look = cache(self._shape)
        self._plain: set[bytes] = set()

    def place(self, target: bytes, content: Callable[[], bytes], *, link: bool = False) -> bytes:
        """Return where a result lands, so that it makes no folder a repository.

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
        within = folder + b"/" if folder else b""
        if not self._has_head(within + b"HEAD"):
            return Shape.PLAIN
        names = [name for name in (b"commondir", b"objects", b"refs") if self._has(within + name)]
        return Shape.WHOLE if names[:1] == [b"commondir"] or len(names) > 1 else Shape.HEADED

    def _has(self, path: bytes) -> bool:
        try:
            self._there.lstat(path)
        except FileNotFoundError:
            return False
        return True

    def _has_head(self, path: bytes) -> bool:
        with suppress(OSError):
            return is_head(self._there.readlink(path), link=True)
        with suppress(OSError):
            return is_head(self._there.read(path, HEAD_LIMIT))
        return False
