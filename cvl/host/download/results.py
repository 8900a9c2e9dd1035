"""What came of a run, as the host tells it, and where each of it belongs here.

Everything in here comes from a machine that we do not trust with our disk: a path that is
anything but plain is refused and reported, never repaired.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.core.errors import FetchError
from cvl.core.frozen import dataclass
from cvl.core.safe_dir import parents
from cvl.host.download.inert_names import inert

if TYPE_CHECKING:
    from cvl.host.download.spool import DiskSet

REPO = b"_repo"
"""Where results land that lie neither in the work folder nor in the example's."""

PATH_LIMIT, NAME_LIMIT = 4096, 255
"""Bytes of a path and of a name in it: what Linux holds."""

PART, PART_BYTES = 12_000, 2_000_000
"""Records that are dealt with at once, and the bytes of their paths: some 20 MB in all."""

AREAS = "wer"
"""The areas of docs/far-side.md, in the order in which they get the place that they want."""
KINDS = (b"f", b"l", b"d", b"o", b"u")
HOLDING = ("f", "u")
"""The kinds whose content is lost with them."""
AREAS_BYTES = (b"w", b"e", b"r")
DIGITS = 18

RUNS = re.compile(rb"(?:^|/)cvl-runs(?:/|$)")
"""Where results land by default."""

REASONS = {
    "o": "neither file nor folder",
    "u": "may not be read there",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One record of the verb `changed` (docs/far-side.md), or a member of an archive.

    `stamp` is the host's ctime of it, opaque, "" where the host does not say. `source` is its name
    in an archive, "" where it lies in the run's folder.
    """

    kind: str
    size: int
    area: str
    path: bytes
    link: bytes = b""
    stamp: bytes = b""
    source: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One result: `source` is what the host is asked for, `target` where it lands below DIR.

    `source` is below runs/<id>, or absolute where the job worked in place. `kind` is `f`, `l`
    (then `link` is its target) or `d`, an empty folder.
    """

    source: bytes
    target: bytes
    kind: str = "f"
    size: int = 0
    link: bytes = b""
    stamp: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something that was not brought back, and why; `stays` if only the host has what it holds.

    `here`: it is this machine that does not take it.
    """

    path: bytes
    why: str
    stays: bool = False
    here: bool = False

    def __str__(self) -> str:
        return f"{os.fsdecode(self.path)!r}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What is to be brought back, and what is not."""

    pieces: tuple[Piece, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files, as the host says."""
        return sum(piece.size for piece in self.pieces)

    @property
    def files(self) -> tuple[Piece, ...]:
        """The pieces that `pack` has to bring; the others are made here."""
        return tuple(piece for piece in self.pieces if piece.kind == "f")


def parts(fields: Iterable[bytes]) -> Iterator[list[Changed]]:
    """Yield the records of `changed` in parts that fit into memory with all that is made of them.

    Raises `FetchError` if they make no sense.
    """
    following = iter(fields)
    return batches(_record(field, following) for field in following)


def batches(records: Iterable[Changed]) -> Iterator[list[Changed]]:
    """Yield records in parts that fit into memory with all that is made of them."""
    part: list[Changed] = []
    size = 0
    for record in records:
        part.append(record)
        size += len(record.path) + len(record.link)
        if len(part) >= PART or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def arrange(changed: Sequence[Changed], example: bytes, taken: TakenPaths | None = None) -> Results:
    """Decide what is brought back from where to where.

    `example` is the content of the run's file `place`: the example's folder, absolute or
    relative to ws/. Files of the work folder and of the example's land at the top, the work
    folder's first; the rest below `_repo`, and there too what finds its place taken. `taken`
    has the paths of earlier parts.
    """
    taken = taken or TakenPaths()
    pieces: list[Piece] = []
    skipped: list[Skipped] = []
    for item in sorted(changed, key=lambda item: (AREAS.index(item.area), item.path)):
        why = REASONS.get(item.kind) or fault(item.path)
        target = None if why else taken.take(_candidates(item, example), item.kind)
        if target is None:
            why = why or "another result has its place"
            skipped.append(Skipped(path=item.path, why=why, stays=item.kind in HOLDING))
        else:
            pieces.append(_piece(item, example, target))
    return Results(pieces=tuple(pieces), skipped=tuple(skipped))


def produced(changed: Sequence[Changed], example: bytes, into: bytes = b"") -> list[Changed]:
    """Return `changed` without what a fetch, of this or another run, has put there.

    That happens where a job works in place: results land in `cvl-runs` wherever the user is, so
    perhaps in the example's own folder. `into` is where they land now, if on that machine.
    """
    if not example.startswith(b"/"):
        return list(changed)
    inner = into.removeprefix(example.rstrip(b"/") + b"/") + b"/"
    return [
        item
        for item in changed
        if item.area != "e" or not (RUNS.search(item.path) or (item.path + b"/").startswith(inner))
    ]


def fresh(results: Results, into: Path, seen: Mapping[bytes, bytes]) -> Results:
    """Return `results` without the files that an earlier fetch brought, and that are still here.

    `seen` is what the earlier fetches returned as `Landed.seen`.
    """
    if not seen:
        return results
    folder = os.fsencode(into) + b"/"
    pieces = tuple(piece for piece in results.pieces if not _is_here(piece, folder, seen))
    return Results(pieces=pieces, skipped=results.skipped)


def sighting(piece: Piece, place: bytes) -> bytes:
    """Return what `fresh` wants to know of a result that has landed at `place`."""
    return mark(piece) if place == piece.target else mark(piece) + b"\0" + place


def mark(piece: Piece) -> bytes:
    """Return what tells two states of one result apart, or b"" where the host does not say."""
    return b"%d %b" % (piece.size, piece.stamp) if piece.stamp else b""


def fault(path: bytes) -> str:
    """Return why `path` can be no place below a folder, or "" if it can."""
    names = path.split(b"/")
    if not path or b"\0" in path:
        return "no path"
    if path.startswith(b"/") or b".." in names:
        return "leads out of its folder"
    if b"" in names or b"." in names:
        return "no plain path"
    if len(path) > PATH_LIMIT or max(map(len, names)) > NAME_LIMIT:
        return "too long"
    return ""


class TakenPaths:
    """The paths taken so far: of files and links, and of the folders that they need."""

    def __init__(self, new: Callable[[], set[bytes] | DiskSet] = set) -> None:
        """`new` makes an empty set."""
        self._taken, self._folders = new(), new()

    def take(self, candidates: Iterable[bytes], kind: str) -> bytes | None:
        """Take and return the first free place, or None."""
        for path in candidates:
            above = list(parents(path))
            blocked = path in self._taken or (kind != "d" and path in self._folders)
            if blocked or not self._taken.isdisjoint(above):
                continue
            self._folders.update(above)
            (self._folders if kind == "d" else self._taken).add(path)
            return path
        return None


def _record(field: bytes, following: Iterator[bytes]) -> Changed:
    parts = field.split(b"\t", 3)
    if len(parts) != len(("kind", "size", "area", "path")):
        raise FetchError("the host's list of results makes no sense")
    kind, sizes, area, path = parts
    size, _, stamp = sizes.partition(b":")
    link = next(following, None) if kind == b"l" else b""
    sound = kind in KINDS and area in AREAS_BYTES
    if not sound or link is None or not size.isdigit() or len(size) > DIGITS:
        raise FetchError("the host's list of results makes no sense")
    return Changed(
        kind=kind.decode(), size=int(size), area=area.decode(), path=path, link=link, stamp=stamp
    )


def _piece(item: Changed, example: bytes, target: bytes) -> Piece:
    inner = os.path.join(b"ws", example.rstrip(b"/")).rstrip(b"/")  # noqa: PTH118 - or absolute
    folder = {"w": b"work", "e": inner, "r": b"ws"}[item.area]
    return Piece(
        source=item.source or folder + b"/" + item.path,
        target=target,
        kind=item.kind,
        size=item.size,
        link=item.link,
        stamp=item.stamp,
    )


def _candidates(item: Changed, example: bytes) -> Iterator[bytes]:
    path = inert(item.path)
    if item.area == "r":
        yield REPO + b"/" + path
        return
    yield path
    if item.area == "e":
        inner = b"" if example.startswith(b"/") else example.strip(b"/")
        yield b"/".join(part for part in (REPO, inert(inner), path) if part)


def _is_here(piece: Piece, folder: bytes, seen: Mapping[bytes, bytes]) -> bool:
    state, _, place = seen.get(piece.target, b"").partition(b"\0")
    if piece.kind != "f" or not mark(piece) or state != mark(piece):
        return False
    try:
        status = os.lstat(folder + (place or piece.target))
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == piece.size
