"""Lands results in a folder, and nowhere else.

Files arrive in a private folder first and are renamed into place: whoever looks sees the old one
or the new one, whole. `SafeDir` sees to it that this place is in the folder.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from cvl.core.errors import FetchError
from cvl.core.frozen import dataclass
from cvl.core.safe_dir import Folders, SafeDir, write_all
from cvl.core.staging import EVERYWHERE, incoming, landing_in, refused
from cvl.host.download.inert_names import HEAD_LIMIT, SUFFIX, renamed
from cvl.host.download.repositories import Repositories
from cvl.host.download.results import Piece, Results, Skipped, sighting
from cvl.host.tarstream import FILE, FOLDER, HARD, Member, TarReader

NAMED = 10_000
"""Results that are remembered as not brought, or moved."""
STRANGE = 1000
"""Members of a tar that nobody has asked for, after which it is not read on."""
SLACK = 1 << 30
"""Bytes by which results may have grown, beyond twice their size, since they were listed."""
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What came of a fetch: how much landed, what did not, what had to make way.

    `moved` names files of an earlier time that stood where a folder was needed, or the reverse,
    by their old and their new path. `inert` names what has a suffix, so that no tool acts on it:
    folders, and files that lie in none of those. `seen` is for `results.fresh`.
    """

    files: int
    size: int
    skipped: tuple[Skipped, ...]
    moved: tuple[tuple[bytes, bytes], ...]
    inert: tuple[bytes, ...] = ()

    def joined(self, other: Landed) -> Landed:
        """Return what came of both; of long lists, `NAMED` lines, first what stays there."""
        skipped = sorted((*self.skipped, *other.skipped), key=lambda each: not each.stays)
        return Landed(
            files=self.files + other.files,
            size=self.size + other.size,
            skipped=tuple(skipped[:NAMED]),
            moved=(*self.moved, *other.moved)[:NAMED],
            seen=other.seen,
            inert=(*self.inert, *other.inert)[:NAMED],
        )

    seen: Mapping[bytes, bytes]

    @property
    def refused_here(self) -> tuple[Skipped, ...]:
        """The files that this machine did not take: the host still has them."""
        return tuple(each for each in self.skipped if each.here)


NOTHING = Landed(files=0, size=0, skipped=(), moved=(), seen={})


def land_tar(
    chunks: Iterable[bytes], results: Results, into: Path, *, others: bool = False
) -> Landed:
    """Land `results`, their files from the tar of the verb `pack` as it comes.

    A member that was not asked for is passed over and reported; where there are `others`, in
    silence. Raises `BrokenOff` when the tar breaks off, `Blocked` when the disk is full or nothing
    can be written; what has landed by then stays, whole.
    """
    with incoming(into) as staging, landing_in(into), _Landing(into, staging) as landing:
        awaited = {piece.source.lstrip(b"/"): piece for piece in results.files}
        arrived: dict[bytes, Piece] = {}
        reader, strange, room = TarReader(chunks), 0, 2 * results.size + SLACK
        for member in reader.members():
            name = member.name.removeprefix(b"./").lstrip(b"/")
            piece = awaited.pop(name, None)
            if piece is None and others:
                continue
            strange, room = strange + (piece is None), room - member.size
            if strange > STRANGE or room < 0:
                raise FetchError("the host sends more than it has listed")
            if piece is not None:
                landing.member(piece, member, reader.content(), arrived)
                arrived[name] = piece
            elif member.kind != FOLDER:
                landing.skip(member.name, "was not asked for")
        return landing.finish(results, awaited.values())


def land_staged(staging: Path, results: Results, into: Path) -> Landed:
    """Land `results`, their files from `staging`, where rsync put each by its `source`.

    `staging` is the folder that `incoming(into)` gave. Raises `Blocked` as `land_tar`.
    """
    with landing_in(into), _Landing(into, staging) as landing:
        lost = [piece for piece in results.files if not landing.staged(piece)]
        return landing.finish(results, lost)


class _Landing:
    """One fetch's hold on the results folder."""

    def __init__(self, into: Path, staging: Path) -> None:
        self._into = into
        self._shelf, self._there, self._near = SafeDir(into), Folders(into), Folders(staging)
        self._repositories = Repositories(self._there)
        self._staging = self._near.at(b"")
        self._count = 0
        self._files = self._size = 0
        self._skipped: list[Skipped] = []
        self._seen: dict[bytes, bytes] = {}
        self._inert: set[bytes] = set()
        self._landed: dict[bytes, bytes] = {}
        self._mode = self._usual_mode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folders in (self._shelf, self._there, self._near):
            folders.close()

    def skip(self, path: bytes, why: str, *, stays: bool = False) -> None:
        """Report something that does not land; `stays` if what it holds is nowhere else."""
        self._skipped.append(Skipped(path=path, why=why, stays=stays))

    def member(
        self, piece: Piece, member: Member, content: Iterator[bytes], arrived: Mapping[bytes, Piece]
    ) -> None:
        """Land one member of a tar."""
        try:
            if member.kind == FILE:
                self._put(piece, *self._write(member, content))
            elif member.kind == HARD and (first := arrived.get(member.link.lstrip(b"/"))):
                self._put(piece, *self._twin(first))
            else:
                self.skip(piece.target, "is no file any more")
        except OSError as error:
            self._failed(piece, error)

    def staged(self, piece: Piece) -> bool:
        """Land one file from the staging folder; return whether it was there."""
        staged = piece.source.lstrip(b"/")
        above, _, name = staged.rpartition(b"/")
        try:
            status = self._near.lstat(staged)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(status.st_mode):
            self.skip(piece.target, "is no file any more")
            return True
        try:
            # Not a link, and nobody else can put one there: the folder is ours alone.
            mode = self._mode if status.st_mode & 0o100 else self._mode & 0o666
            os.chmod(name, mode, dir_fd=self._near.at(above))
            self._put(piece, staged, status.st_size)
        except OSError as error:
            self._failed(piece, error)
        return True

    def finish(self, results: Results, lost: Iterable[Piece]) -> Landed:
        """Make links and empty folders; return what came of it all."""
        for piece in lost:
            self.skip(piece.target, "did not arrive: gone, or not readable there", stays=True)
        for piece in results.pieces:
            if piece.kind != "f":
                try:
                    self._make(piece)
                except OSError as error:
                    self._failed(piece, error)
        return Landed(
            files=self._files,
            size=self._size,
            skipped=(*results.skipped, *self._skipped),
            moved=tuple(self._shelf.moved),
            inert=tuple(sorted(self._inert)),
            seen=self._seen,
        )

    def _failed(self, piece: Piece, error: OSError) -> None:
        """Report what went wrong with one piece; what goes wrong with all of them ends it."""
        if error.errno in EVERYWHERE or not os.fstat(self._staging).st_nlink:
            raise refused(self._into, error) from error
        why, file = error.strerror or str(error), piece.kind == "f"
        self._skipped.append(Skipped(path=piece.target, why=why, stays=file, here=file))

    def _write(self, member: Member, content: Iterator[bytes]) -> tuple[bytes, int]:
        """Write a file into the staging folder; return its name there, and its bytes."""
        name, size = self._name(), 0
        fd = os.open(name, NEW_FILE, 0o600, dir_fd=self._staging)
        try:
            for data in content:
                write_all(fd, data)
                size += len(data)
            os.fchmod(fd, self._mode if member.mode & 0o100 else self._mode & 0o666)
            moment = min(member.mtime, int(time.time()))
            os.utime(fd, (moment, moment))
        except BaseException:
            with suppress(OSError):  # what went wrong first says more
                os.unlink(name, dir_fd=self._staging)
            raise
        finally:
            os.close(fd)
        return name, size

    def _twin(self, first: Piece) -> tuple[bytes, int]:
        """Give a file that has landed a second name in the staging folder, as `_write` does."""
        name = self._name()
        there = self._landed.get(first.target, first.target)
        above, _, last = there.rpartition(b"/")
        folder = self._there.at(above)
        os.link(last, name, src_dir_fd=folder, dst_dir_fd=self._staging, follow_symlinks=False)
        return name, os.lstat(name, dir_fd=self._staging).st_size

    def _put(self, piece: Piece, staged: bytes, size: int) -> None:
        """Rename a staged file into its place, over an older file or link."""
        start = partial(self._near.read, staged, HEAD_LIMIT)
        place = self._repositories.place(piece.target, start)
        above, _, name = staged.rpartition(b"/")
        self._shelf.put(name, self._near.at(above), place)
        self._note(piece, place)
        self._files += 1
        self._size += size
        if size == piece.size and piece.stamp:
            self._seen[piece.target] = sighting(piece, place)

    def _make(self, piece: Piece) -> None:
        """Make a link or an empty folder."""
        place = self._repositories.place(piece.target, lambda: piece.link, link=True)
        if piece.kind == "d":
            self._shelf.at(place)
            self._note(piece, place)
        elif not stays_inside(piece.target, piece.link):
            self.skip(piece.target, f"link leads out of the results: {os.fsdecode(piece.link)!r}")
        else:
            name = self._name()
            os.symlink(piece.link, name, dir_fd=self._staging)
            self._shelf.put(name, self._staging, place)
            self._note(piece, place)

    def _note(self, piece: Piece, place: bytes) -> None:
        """Note where a result has landed, and the outermost name on its way that has a suffix."""
        if SUFFIX in place:
            self._landed[piece.target] = place
            self._inert.update(renamed(place)[:1])

    def _name(self) -> bytes:
        self._count += 1
        return b"%d.arriving" % self._count

    def _usual_mode(self) -> int:
        """Return the mode that a new executable gets here, by the umask or a default ACL."""
        name = self._name()
        fd = os.open(name, NEW_FILE, 0o777, dir_fd=self._staging)
        try:
            return stat.S_IMODE(os.fstat(fd).st_mode) & 0o777 | 0o600
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=self._staging)


def stays_inside(place: bytes, link: bytes) -> bool:
    """Return whether a link at `place` with the target `link` cannot lead out of the folder.

    Climbing is allowed at its start only, where it goes through real folders. Later it might go
    through another link, and then not where it seems to.
    """
    names = [name for name in link.split(b"/") if name not in {b"", b"."}]
    climbs = 0
    while climbs < len(names) and names[climbs] == b"..":
        climbs += 1
    deep = place.count(b"/")
    return (
        bool(link) and not link.startswith(b"/") and climbs <= deep and b".." not in names[climbs:]
    )
