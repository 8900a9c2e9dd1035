"""What the user has agreed to believe, by `cvl trust`: a folder, and one file's very bytes.

One small file each in `trust/` of the state folder, 0600, named by a hash of the folder's real
path. It holds the real path of the folder's `cvl.toml` and the hash of the bytes that were shown:
other bytes are not trusted. For a folder that others own or may write to it also holds its owner.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cvl.core.file_owner import stranger
from cvl.core.frozen import dataclass
from cvl.core.paths import private, replace_file, state_dir

LIMIT = 1 << 16
"""Bytes of one note; a path has 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """One agreement. `file` and `digest` are "" where there was no cvl.toml.

    `owner` is that of a folder that is not the user's alone, else None: then its examples and its
    file are read though somebody else may have written them.
    """

    folder: str
    file: str = ""
    digest: str = ""
    owner: int | None = None


def fingerprint(data: bytes) -> str:
    """Return the hash by which bytes are known again."""
    from cvl.core.digest import blake2b  # most commands meet nothing that would have to be trusted

    return blake2b(data, digest_size=32).hexdigest()


def doubt(folder: Path, *names: str) -> str:
    """Return why these files and folders of `folder`, or itself, may be somebody else's.

    "" where they are the user's or root's, or in a folder of others that the user trusts.
    """
    why = strange(folder, *names)
    if not why:
        return ""
    agreed = find(folder)
    if agreed is None or agreed.owner is None:
        return why
    return strange(folder, *names, also=agreed.owner)


def strange(folder: Path, *names: str, also: int | None = None) -> str:
    """As `doubt`, of what nobody has agreed to but that the user `also` is believed."""
    paths = [str(folder), *(f"{folder}/{name}" for name in names)]
    return next((why for path in paths if (why := stranger(path, also=also))), "")


def unread(path: Path, why: str) -> str:
    """Say that something of another owner was passed over, and how it would be read."""
    return f"{path} is not read: {why}; `cvl trust {quoted(path.parent)}` allows it"


def quoted(path: Path) -> str:
    """Return a path as a shell takes it; "." for the folder where the user is."""
    import shlex

    here = os.path.realpath(path) == os.path.realpath(".")
    return "." if here else shlex.quote(str(path))


def find(folder: Path) -> Trust | None:
    """Return what was agreed for `folder`, by its real path; None for nothing, or no such note."""
    place = os.path.realpath(folder)
    agreement = _read(_note(place))
    return agreement if agreement and agreement.folder == place else None


def everything() -> list[Trust]:
    """Return all that was agreed, by folder."""
    try:
        names = sorted(os.listdir(folder_of_notes()))  # noqa: PTH208 - names are enough
    except OSError:
        return []
    notes = (_read(folder_of_notes() / name) for name in names if name.endswith(".json"))
    return sorted((each for each in notes if each), key=lambda each: each.folder)


def keep(agreed: Trust) -> None:
    """Note an agreement, in place of an earlier one for that folder. Raises `OSError`."""
    from dataclasses import asdict
    from json import dumps

    private(folder_of_notes())
    replace_file(_note(agreed.folder), dumps(asdict(agreed)).encode())


def remove(folder: Path) -> bool:
    """Forget what was agreed for a folder, whether it is still there or not; tell if anything was.

    Raises `OSError` where the note cannot be removed.
    """
    try:
        _note(os.path.realpath(folder)).unlink()
    except FileNotFoundError:
        return False
    return True


def folder_of_notes() -> Path:
    """Return where the notes lie."""
    return state_dir() / "trust"


def _note(place: str) -> Path:
    return folder_of_notes() / f"{fingerprint(os.fsencode(place))[:32]}.json"


def _read(note: Path) -> Trust | None:
    """Read one note. A damaged one, or one that others can write, agrees to nothing."""
    from json import loads

    try:
        descriptor = os.open(note, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            ours = status.st_uid == os.geteuid() and not status.st_mode & 0o022
            if not ours or not stat.S_ISREG(status.st_mode):
                return None
            said = loads(opened.read(LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    match said:
        case {"folder": str(folder), "file": str(file), "digest": str(digest), "owner": owner}:
            if owner is None or type(owner) is int:  # True is an int, too
                return Trust(folder=folder, file=file, digest=digest, owner=owner)
    return None
