"""Writes what one start sends: the run's files and the part of a tree that is new, as one tar."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from cvl.digest import blake2b
from cvl.errors import CvlError
from cvl.remote.far import Writable
from cvl.remote.hashes import BLOCK, Entry, Hashes, Held, blocks, open_file, stamp_of
from cvl.remote.inert import active
from cvl.remote.listing import walk
from cvl.remote.tarstream import END, FOLDER, LINK, Member, header, padding
from cvl.remote.tree import Delta

OLDEST = 315_532_800
"""1980, in epoch seconds: zip files know nothing before, and scripts make zip files."""


def write_payload(
    out: Writable, run_files: Mapping[str, bytes | Path], delta: Delta | None
) -> None:
    """Write the payload of the verb `start` (docs/far-side.md): one tar, in large pieces.

    Content given as bytes is ours alone (0600); a local file, or a folder with all that is in it,
    keeps its executable bits. An empty member `end` closes the tar: without it, a stream that
    broke off between two members would look whole. Raises `CvlError` if a file is not as the
    delta says any more; then the tar has no end.
    """
    pending: list[bytes] = []
    size = 0
    for piece in _pieces(run_files, delta):
        pending.append(piece)
        size += len(piece)
        if size >= BLOCK:
            out.write(b"".join(pending))
            pending, size = [], 0
    out.write(b"".join(pending))


def _pieces(run_files: Mapping[str, bytes | Path], change: Delta | None) -> Iterator[bytes]:
    for name, content in run_files.items():
        member = os.fsencode(name)
        if isinstance(content, bytes):
            yield from _ours(member, content)
        else:
            yield from _local(member, content)
    if change and change.gone:
        yield from _ours(b"gone", b"\0".join([*change.gone, b""]))
    if change and change.send:
        assert change.root is not None, "this tree was not read here"
        root, hashes = os.fsencode(change.root.absolute()) + b"/", change.hashes
        for path, entry in change.send.items():
            here = change.local.get(path, path) if change.local else path
            if hashes and (held := hashes.held.get(here)):
                yield _whole(b"tree/" + path, entry, held)
            else:
                stamp = hashes.stamp(here) if hashes else b""
                yield from _member(b"tree/" + path, root + here, entry, stamp)
    yield from _ours(b"end", b"")
    yield END


def _ours(member: bytes, content: bytes) -> Iterator[bytes]:
    now = int(time.time())
    head = header(Member(name=member, size=len(content), mode=0o600, mtime=now))
    yield head + content + padding(len(content))


def _local(member: bytes, path: Path) -> Iterator[bytes]:
    """Yield the members of a file or folder that the user names, through links as they are."""
    place = os.fsencode(path.absolute())
    if not path.is_dir():
        yield from _file(member, place, None)
        return
    reader = Hashes(path)
    for inner in walk(place, b"", everything=True):
        if entry := reader.entry(inner):
            yield from _member(member + b"/" + active(inner), place + b"/" + inner, entry)


def _member(member: bytes, place: bytes, entry: Entry, stamp: bytes = b"") -> Iterator[bytes]:
    if entry.kind == "l":
        yield header(Member(name=member, kind=LINK, mode=0o777, link=entry.content))
    elif entry.kind == "d":
        yield header(Member(name=member + b"/", kind=FOLDER, mode=0o755, mtime=int(time.time())))
    else:
        yield from _file(member, place, entry, stamp)


def _whole(member: bytes, entry: Entry, held: Held) -> bytes:
    """Return a file that is held in memory, with its header, as it was when it was hashed."""
    mode = 0o755 if entry.executable else 0o644
    mtime = _mtime(held.mtime)
    head = header(Member(name=member, size=entry.size, mode=mode, mtime=mtime))
    return head + held.content + padding(entry.size)


def _file(member: bytes, place: bytes, entry: Entry | None, stamp: bytes = b"") -> Iterator[bytes]:
    """Yield one file; if `entry` is given, exactly the bytes that it names, or raise.

    That it still holds them is told by its `stamp`, before and after, or else by hashing it.
    """
    try:
        fd = open_file(place) if entry else os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(place, error.strerror) from error
    try:
        found = os.fstat(fd)
        size = entry.size if entry else found.st_size
        mode = 0o755 if (entry.executable if entry else found.st_mode & 0o100) else 0o644
        head = header(Member(name=member, size=size, mode=mode, mtime=_mtime(found.st_mtime)))
        digest, known = blake2b(digest_size=16), stamp_of(found) == stamp
        sent = 0
        for block in blocks(fd, size):
            if not known:
                digest.update(block)
            sent += len(block)
            if sent > size:
                break
            yield head + block
            head = b""
        same = stamp_of(os.fstat(fd)) == stamp if known else _names(entry, digest.hexdigest())
        if sent != size or not same:
            raise _changed(place, "its content is new")
        yield head + padding(size)
    finally:
        os.close(fd)


def _names(entry: Entry | None, digest: str) -> bool:
    return entry is None or entry.content == digest.encode()


def _mtime(found: float) -> int:
    """Return a file's time, within what every unpacking tool and zip format can hold."""
    return min(max(int(found), OLDEST), int(time.time()))


def _changed(place: bytes, why: str | None) -> CvlError:
    return CvlError(
        f"{os.fsdecode(place)} changed while it was sent: {why}",
        "run it again when nothing writes to it, or name it in .cvlignore",
    )
