"""One file with all of cvl: a zipapp with its pure-Python dependencies, for machines without pip.

Python of any platform from 3.11 on runs it: `python3 cvl-….pyz --version`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import cvl
from cvl.core.digest import blake2b
from cvl.core.errors import CvlError, MissingTool, NotReady
from cvl.core.frozen import dataclass
from cvl.core.octets import octets
from cvl.core.paths import cache_dir, private, replace_file

if TYPE_CHECKING:
    from cvl.core.scope import Scope
    from cvl.host.rpc import FarSide

DEPENDENCIES = {"click": "click", "pathspec": "pathspec", "rich": "rich", "yaml": "pyyaml"}
"""Package and distribution: all that cvl needs without an extra. What rich needs only for what we
never use (pygments) stays here."""

LEFT_OUT = frozenset({"__pycache__", "testing", "tests", "_shipped"})
"""Folders of cvl that nothing on another machine needs."""

DAY = 86400.0
LIMIT = 900.0
"""Seconds that an installation may take."""
MINIMUM = "3.11"
HINT = "--docker HOST runs the same example there and needs no Python"

_MAIN = b"import sys\n\nfrom cvl.__main__ import main\n\nsys.exit(main())\n"
_SHEBANG = b"#!/usr/bin/env python3\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A zipapp on this machine's disk, and the hash of its bytes."""

    hash: str
    path: Path


def bundle() -> Bundle:
    """Return the bundle of the cvl that is running; made once, then found by its files' times.

    Running from a zipapp, it is that very file. Raises `CvlError`, `MissingTool`.
    """
    archive = getattr(__spec__.loader, "archive", None)
    if isinstance(archive, str):
        return Bundle(hash=_digest(Path(archive).read_bytes()), path=Path(archive))
    package = Path(cvl.__file__).parent
    dependencies = [_folder(name) for name in DEPENDENCIES]
    key = _key(package, dependencies)
    cache = cache_dir()
    return _cached(cache, key) or _build(cache, key, [package, *dependencies])


def install(far: FarSide, scope: Scope | None = None) -> None:
    """Put the running cvl on the machine: `BASE/bin/cvl` runs it, whoever is logged in there.

    Needs a Python there, nothing else: no pip, no index, no root. Idempotent, and safe for two
    at once. Raises `NotReady` with the host's words, `Unreachable`, `CvlError`.
    """
    from cvl.host.shell_files import script

    sent = bundle()
    given = f"hash={sent.hash} version={cvl.__version__} minimum={MINIMUM}\n"
    setup = given + script("setup.sh").decode()
    stream, _ = far.script(setup, sent.path.read_bytes(), LIMIT, scope)
    for answer in stream.answers():
        if answer.word == "ready":
            return
        if answer.word == "fail":
            raise _refused(far.transport.where, answer.rest, stream.words())
    raise NotReady(f"cannot put cvl on {far.transport.where}: {stream.words()}", HINT)


def _refused(where: str, answer: str, words: str) -> NotReady:
    word, _, text = answer.partition(" ")
    reasons = {
        "python-old": f"cvl needs Python {MINIMUM} or newer on {where}, but {text}",
        "python-missing": f"cvl needs Python {MINIMUM} or newer on {where}: {text}",
        "python-broken": f"cvl does not start on {where}: {text}",
    }
    other = f"cannot put cvl on {where}: {text}: {words}".removesuffix(": ")
    return NotReady(reasons.get(word, other), HINT)


def _folder(name: str) -> Path:
    spec = PathFinder.find_spec(name)
    if not spec or not spec.submodule_search_locations:
        raise MissingTool(f"the Python package {name!r} is not installed", "reinstall cvl")
    return Path(spec.submodule_search_locations[0])


def _key(package: Path, dependencies: list[Path]) -> str:
    """Digest what changes when a file does: of cvl every file, as it may be a checkout."""
    digest = blake2b(cvl.__version__.encode(), digest_size=8)
    seen = [*_stats(str(package)), *((str(path), path.stat()) for path in dependencies)]
    for path, stat in sorted(seen):
        digest.update(octets(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\0"))
    return digest.hexdigest()


def _stats(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in LEFT_OUT:
                    yield from _stats(entry.path)
            elif entry.name.endswith((".py", ".sh")) and not entry.name.startswith("."):
                yield entry.path, entry.stat()


def _cached(cache: Path, key: str) -> Bundle | None:
    try:
        paths = list(cache.iterdir())
    except OSError:
        return None
    bundles = (path for path in paths if path.name.startswith(f"{key}-") and path.suffix == ".pyz")
    return next((Bundle(hash=path.stem.partition("-")[2], path=path) for path in bundles), None)


def _build(cache: Path, key: str, folders: list[Path]) -> Bundle:
    data = archive_of(folders)
    built = Bundle(hash=_digest(data), path=cache / f"{key}-{_digest(data)}.pyz")
    try:
        _sweep(private(cache))
        replace_file(built.path, data, 0o700)
    except OSError as error:
        hint = "free some space, or name another folder with CVL_CACHE_DIR"
        raise CvlError(f"cannot write {built.path}: {error.strerror}", hint) from error
    return built


def _sweep(cache: Path) -> None:
    """Remove bundles that no edit of the last day has made."""
    from time import time

    for old in cache.glob("*.pyz*"):
        with suppress(FileNotFoundError):
            if old.stat().st_mtime < time() - DAY:
                old.unlink()


def archive_of(folders: list[Path]) -> bytes:
    """Return the zipapp of these packages; the same files give the same bytes."""
    import io
    from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

    out = io.BytesIO(_SHEBANG)
    out.seek(0, io.SEEK_END)
    with ZipFile(out, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(_contents(folders)):
            member = ZipInfo(name)  # its date is 1980-01-01
            member.compress_type, member.create_system = ZIP_DEFLATED, 3
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    return out.getvalue()


def _contents(folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN
    for folder in folders:
        for path, _ in _stats(str(folder)):
            yield os.path.relpath(path, folder.parent), Path(path).read_bytes()
        yield from _licences(folder)


def _licences(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what a licence asks of whoever passes the code on: its text."""
    name = DEPENDENCIES.get(folder.name, "")
    for path in folder.parent.glob(f"{name}-*.dist-info/**/LICENSE*") if name else ():
        yield os.path.relpath(path, folder.parent), path.read_bytes()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
