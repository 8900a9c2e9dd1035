"""Lands results in a folder, and nowhere else.

Files arrive in a private folder first and are renamed into place: whoever looks sees the old one
or the new one, whole. `SafeDir` sees to it that this place is in the folder.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cvl.core.errors import BrokenOff, FetchError
from cvl.core.frozen import dataclass
from cvl.core.safe_dir import Folders, SafeDir, write_all
from cvl.core.staging import EVERYWHERE, incoming, landing_in, refused
from cvl.host.download.inert_names import HEAD_LIMIT, SUFFIX, renamed
from cvl.host.download.report import Landed
from cvl.host.download.repositories import Repositories
from cvl.host.download.results import Piece, Results, Skipped, sighting
from cvl.host.tarstream import FILE, FOLDER, HARD, Member, TarReader

STRANGE = 1000
"""Members of a tar that nobody has asked for, after which it is not read on."""
SLACK = 1 << 30
"""Bytes by which results may have grown, beyond twice their size, since they were listed."""
MORE = "the host sends more than it has listed"
TO_ADD = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The beginning of a file, `size` bytes under `name` in the staging folder."""

    piece: Piece
    member: Member
    name: bytes
    size: int = 0


def land_tar(
    chunks: Iterable[bytes], results: Results, into: Path, *, others: bool = False
) -> Landed:
    """Land `results`, their files from one tar. Raises as `Landing.take`."""
    with landing(results, into) as it:
        it.take(chunks, others=others)
        return it.finish()


@contextmanager
def landing(results: Results, into: Path) -> Iterator[Landing]:
    """Give what lands `results` in `into`, however many tars they come in. Raises `Blocked`."""
    with incoming(into) as staging:
        with landing_in(into):
            it = Landing(results, into, staging)
        try:
            yield it
        finally:
            it.close()


class Landing:
    """One fetch's hold on the results folder.

    `awaited` are the files that have not landed yet, by their names in a tar. `part` is the one
    that has broken off, if the rest can be added.
    """

    def __init__(self, results: Results, into: Path, staging: Path) -> None:
        self._results, self._into = results, into
        self.awaited = {piece.source.lstrip(b"/"): piece for piece in results.files}
        self.part: Part | None = None
        self._arrived: dict[bytes, Piece] = {}
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

    def close(self) -> None:
        for folders in (self._shelf, self._there, self._near):
            folders.close()

    def take(self, chunks: Iterable[bytes], *, others: bool = False) -> None:
        """Land what comes as the tar of the verb `pack`.

        A member that was not asked for is passed over and reported; where there are `others`, in
        silence. Raises `BrokenOff` when the tar breaks off, or has a file that has grown too much:
        that one is not awaited any more. Raises `Blocked` when the disk is full or nothing can be
        written; what has landed by then stays, whole.
        """
        reader, strange, room = TarReader(chunks), 0, 2 * self._results.size + SLACK
        with landing_in(self._into):
            for member in reader.members():
                name = member.name.removeprefix(b"./").lstrip(b"/")
                piece = self.awaited.get(name)
                if piece is None and others:
                    continue
                strange, room = strange + (piece is None), room - member.size
                if strange > STRANGE or (room < 0 and piece is None):
                    raise FetchError(MORE)
                if room < 0:
                    self._pass_over(name)
                if piece is not None:
                    self._member(piece, member, reader.content())
                    self._arrived[name] = self.awaited.pop(name)
                elif member.kind != FOLDER:
                    self.skip(member.name, "was not asked for")

    def go_on(self, chunks: Iterable[bytes]) -> None:
        """Add to `part` what comes as the answer of the verb `rest`. Raises as `take`."""
        assert self.part is not None
        with landing_in(self._into):
            self.part = self._added(self.part, chunks)

    def settle(self, *, same: bool) -> None:
        """Land `part` if it is whole and its file was the `same` all the time, else drop it."""
        part, self.part = self.part, None
        assert part is not None
        if same and part.size == part.member.size:
            with landing_in(self._into):
                self._try(part.piece, lambda: self._put(part.piece, part.name, part.size))
            del self.awaited[part.piece.source.lstrip(b"/")]
        else:
            self._drop(part)

    def doubt(self, words: str) -> None:
        """Have what the host has such `words` about fetched again another time."""
        for piece in self._results.files:
            if piece.source.decode(errors="replace") in words:
                self._seen[piece.target] = b""

    def skip(self, path: bytes, why: str, *, stays: bool = False) -> None:
        """Report something that does not land; `stays` if what it holds is nowhere else."""
        self._skipped.append(Skipped(path=path, why=why, stays=stays))

    def landed(self) -> Landed:
        """Return what came of it so far."""
        return Landed(
            files=self._files,
            size=self._size,
            skipped=(*self._results.skipped, *self._skipped),
            moved=tuple(self._shelf.moved),
            inert=tuple(sorted(self._inert)),
            seen=self._seen,
        )

    def finish(self) -> Landed:
        """Make links and empty folders; return what came of it all."""
        for piece in self.awaited.values():
            self.skip(piece.target, "did not arrive: gone, or not readable there", stays=True)
        with landing_in(self._into):
            for piece in self._results.pieces:
                if piece.kind != "f":
                    self._try(piece, partial(self._make, piece))
        return self.landed()

    def _pass_over(self, name: bytes) -> None:
        """Do without a file that has grown too much, as a job's first checkpoint may.

        Raises `BrokenOff`: what is sent of it is not waited for, and the others are asked for.
        """
        piece = self.awaited.pop(name)
        self.skip(piece.target, "has grown too much since it was listed", stays=True)
        raise BrokenOff(f"{MORE}: {os.fsdecode(piece.target)!r}")

    def _member(self, piece: Piece, member: Member, content: Iterator[bytes]) -> None:
        """Land one member of a tar."""
        if member.kind == FILE:
            self._try(piece, lambda: self._put(piece, *self._write(piece, member, content)))
        elif member.kind == HARD and (first := self._arrived.get(member.link.lstrip(b"/"))):
            self._try(piece, lambda: self._put(piece, *self._twin(first)))
        else:
            self.skip(piece.target, "is no file any more")

    def _try(self, piece: Piece, step: Callable[[], object]) -> None:
        """Report what goes wrong with one piece; what goes wrong with all of them ends it."""
        try:
            step()
        except OSError as error:
            if error.errno in EVERYWHERE or not os.fstat(self._staging).st_nlink:
                raise refused(self._into, error) from error
            why, file = error.strerror or str(error), piece.kind == "f"
            self._skipped.append(Skipped(path=piece.target, why=why, stays=file, here=file))

    def _write(self, piece: Piece, member: Member, content: Iterable[bytes]) -> tuple[bytes, int]:
        """Write a file into the staging folder; return its name there, and its bytes."""
        part = self._added(Part(piece=piece, member=member, name=self._name()), content)
        return part.name, part.size

    def _added(self, part: Part, content: Iterable[bytes]) -> Part:
        """Add `content` to the beginning of a file. Where that breaks off, `part` has what came."""
        size, member = part.size, part.member
        fd = os.open(part.name, TO_ADD, 0o600, dir_fd=self._staging)
        try:
            for data in content:
                if size + len(data) > member.size:
                    raise FetchError(MORE)
                write_all(fd, data)
                size += len(data)
            os.fchmod(fd, self._mode if member.mode & 0o100 else self._mode & 0o666)
            moment = min(member.mtime, int(time.time()))
            os.utime(fd, (moment, moment))
        except BaseException as error:
            known = part.piece.stamp and part.piece.size == member.size
            if known and not isinstance(error, OSError):
                self.part = replace(part, size=size)
            else:
                self._drop(part)
            raise
        finally:
            os.close(fd)
        return replace(part, size=size)

    def _drop(self, part: Part) -> None:
        self.part = None
        with suppress(OSError):  # what went wrong before says more
            os.unlink(part.name, dir_fd=self._staging)

    def _twin(self, first: Piece) -> tuple[bytes, int]:
        """Give a file that has landed a second name in the staging folder, as `_write` does."""
        name = self._name()
        there = self._landed.get(first.target, first.target)
        above, _, last = there.rpartition(b"/")
        folder = self._there.at(above)
        os.link(last, name, src_dir_fd=folder, dst_dir_fd=self._staging, follow_symlinks=False)
        return name, os.lstat(name, dir_fd=self._staging).st_size

    def _put(self, piece: Piece, name: bytes, size: int) -> None:
        """Rename a staged file into its place, over an older file or link."""
        start = partial(self._near.read, name, HEAD_LIMIT)
        place = self._repositories.place(piece.target, start)
        self._shelf.put(name, self._staging, place)
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
        fd = os.open(name, TO_ADD, 0o777, dir_fd=self._staging)
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
