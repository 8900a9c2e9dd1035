"""Where our own files lie, and the only ways to make them: for this user alone.

Asking where something lies creates nothing. Folders are 0700 and files 0600 whatever the umask
says: it is for the user's own files, as the results are.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
SIDE_FILES = ("", "-journal", "-wal", "-shm")
"""What SQLite adds to a database's name: its own files beside it."""
FOR_ALL = stat.S_ISVTX | stat.S_IWOTH
"""What a folder like `/tmp` has: it is nobody's."""
SYSTEM = frozenset(
    ("/" + name)
    for name in (
        *("", "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media"),
        *("mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"),
        *("Applications", "Library", "System", "Users", "Volumes", "private"),
    )
)
"""The folders of a whole machine."""
OURS = (
    r"cvl\.toml|reap\.env|ledger\.db.*|guardian\.log|runs|trees|trust|pace|prices|ssh|here"
    r"|catalog-.*|.*\.pyz|\..*\.[0-9a-f]{16}|lost\+found"
)
"""What lies in a folder that is ours already."""
LISTS = {"PATH", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
"""Variables that name several files or folders, with `:` between them."""
PLACES = LISTS | {
    *("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "NETRC"),
    *("CVL_SSH_CONFIG", "CVL_SSH_KEY_PATH", "CVL_ROOT", "CVL_SPECS", "SSH_ASKPASS"),
    *("CVL_STATE_DIR", "CVL_CONFIG_DIR", "CVL_CACHE_DIR", "DOCKER_CONFIG", "DOCKER_CERT_PATH"),
    *("GNUPGHOME", "HOME", "SSH_AUTH_SOCK", "TMPDIR"),
}
"""Variables that name a file or a folder, to us or to what we start; `learn_paths` adds more."""


def learn_paths(names: Iterable[str], lists: Iterable[str] = ()) -> None:
    """Take these variables for names of files or folders, too; `lists` name several each."""
    LISTS.update(lists)
    PLACES.update(names, lists)


def absolute(path: str | Path) -> Path:
    """Return a path that means the same in any folder: `~` expanded, links kept. No I/O."""
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def absolutes(paths: str) -> str:
    """Return a list of paths with `:` between them, each as `absolute`; empty ones are left out."""
    return os.pathsep.join(str(absolute(each)) for each in paths.split(os.pathsep) if each)


def anchored(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which no variable is relative to the current folder.

    What begins with `~` is left to whoever reads it. An empty part of `PATH` is this folder.
    """
    return {
        name: _anchored(name, value) if name in PLACES and value else value
        for name, value in environ.items()
    }


def _anchored(name: str, value: str) -> str:
    parts = value.split(os.pathsep) if name in LISTS else [value]
    return os.pathsep.join(
        each
        if each.startswith(("/", "~")) or not (each or name == "PATH")
        else os.path.abspath(each)  # noqa: PTH100 - no I/O
        for each in parts
    )


def state_dir() -> Path:
    """Return `$CVL_STATE_DIR`, else `$XDG_STATE_HOME/cvl`, else `~/.local/state/cvl`."""
    return _ours("CVL_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def config_dir() -> Path:
    """Return `$CVL_CONFIG_DIR`, else `$XDG_CONFIG_HOME/cvl`, else `~/.config/cvl`."""
    return _ours("CVL_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")


def cache_dir() -> Path:
    """Return `$CVL_CACHE_DIR`, else `$XDG_CACHE_HOME/cvl`, else `~/.cache/cvl`."""
    return _ours("CVL_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def ledger_file() -> Path:
    """Return the ledger of this user, whether it exists or not."""
    return state_dir() / "ledger.db"


def private(folder: Path) -> Path:
    """Return `folder`, made 0700 with what is missing above it; one that is there is closed.

    So is every folder from our state, configuration or cache folder down to it. Raises
    `PermissionError` for one that is somebody else's, and `OSError`.
    """
    os.close(_entered(folder, {state_dir(), config_dir(), cache_dir()}))
    return folder


def private_file(path: Path, flags: int) -> int:
    """Open a file of ours, 0600 when this makes it and from now on; return its descriptor.

    Follows no link, and waits for no pipe. Raises `PermissionError` for somebody else's file, and
    `OSError`.
    """
    opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        refuse_others(status, path)
        if stat.S_IMODE(status.st_mode) != 0o600 and status.st_uid == os.geteuid():  # noqa: PLR2004
            os.fchmod(opened, 0o600)
    except BaseException:
        os.close(opened)
        raise
    return opened


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file of ours, whole or not at all, over whatever bears its name. Raises `OSError`."""
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        opened = private_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(opened, "wb") as out:
            out.write(content)
            if mode != 0o600:  # noqa: PLR2004
                os.fchmod(opened, mode)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def no_file(database: Path) -> str:
    """Return which of a database's files is there and is no file, "" if each is one. `OSError`.

    SQLite opens whatever bears the name: with a pipe it would wait for whoever writes to it.
    """
    for suffix in SIDE_FILES:
        path = f"{database}{suffix}"
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a Path costs more
                return path
        except FileNotFoundError:
            continue
    return ""


def shared(folder: Path) -> str:
    """Return why a folder is never ours alone, whatever its mode, "" if it may be.

    It is the machine's, or holds our home. Follows links; it need not be there.
    """
    real = os.path.realpath(folder)
    if real in SYSTEM:
        return "it is a folder of the whole machine"
    home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111 - works without $HOME
    return "your home lies in it" if f"{home}/".startswith(f"{real}/") else ""


def refuse_others(status: os.stat_result, path: Path) -> None:
    """Raise `PermissionError` unless this is ours, or root's."""
    if status.st_uid not in {0, os.geteuid()}:
        raise PermissionError(errno.EPERM, f"it belongs to user {status.st_uid}", str(path))


def _entered(folder: Path, roots: set[Path]) -> int:
    """Open a folder, made if it is missing, and see that it is for us alone."""
    parent = None
    if roots.isdisjoint({folder}) and not roots.isdisjoint(folder.parents):
        parent = _entered(folder.parent, roots)
    try:
        opened, fresh = _opened(folder, parent)
        try:
            if not fresh:
                _refuse_shared(opened, folder, used=folder in roots)
            _closed(opened, folder, fresh=fresh)
        except BaseException:
            os.close(opened)
            raise
        return opened
    finally:
        if parent is not None:
            os.close(parent)


def _opened(folder: Path, parent: int | None) -> tuple[int, bool]:
    """Open a folder; return whether it was made for that. Without `parent`, by its whole path."""
    try:
        if parent is None:
            return os.open(folder, FOLDER), False
        # a link that neither we nor root have laid
        refuse_others(os.stat(folder.name, dir_fd=parent, follow_symlinks=False), folder)
        return os.open(folder.name, FOLDER, dir_fd=parent), False
    except FileNotFoundError:
        if parent is not None:
            return _made(folder, parent)
    above = _above(folder.parent)
    try:
        return _made(folder, above)
    finally:
        os.close(above)


def _above(folder: Path) -> int:
    """Open a folder in which one of ours is to be made; what is missing is made 0700 as well."""
    try:
        return os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _entered(folder, set())


def _made(folder: Path, parent: int) -> tuple[int, bool]:
    """Make a folder in `parent`, or take the one that another process of ours has just made."""
    fresh = True
    try:
        os.mkdir(folder.name, 0o700, dir_fd=parent)
    except FileExistsError:
        fresh = False
    try:
        return os.open(folder.name, FOLDER | os.O_NOFOLLOW, dir_fd=parent), fresh
    except PermissionError:  # a umask that takes our own rights, too
        os.chmod(folder.name, 0o700, dir_fd=parent)
        return os.open(folder.name, FOLDER | os.O_NOFOLLOW, dir_fd=parent), fresh


def _refuse_shared(opened: int, folder: Path, *, used: bool) -> None:
    """Raise `PermissionError` for a folder that others need; `used` is for one of our three."""
    why = shared(folder)
    if used and not why and os.fstat(opened).st_mode & 0o077:
        why = _in_use(opened, folder)
    if why:
        raise PermissionError(errno.EPERM, why, str(folder))


def _in_use(opened: int, folder: Path) -> str:
    """Return why others may rely on a folder that is open to them, "" if it is plainly ours."""
    if os.path.dirname(os.path.realpath(folder)) in {"/usr", "/usr/local", "/var"}:  # noqa: PTH120
        return "it is a folder of the whole machine"
    there = os.listdir(opened)
    if folder.name == "cvl" or "ledger.db" in there:
        return ""
    other = min((name for name in there if not re.fullmatch(OURS, name)), default="")
    return f"it is open to others, and {other!r} in it is not cvl's" if other else ""


def _closed(opened: int, folder: Path, *, fresh: bool) -> None:
    """Take from all others what they may do in a folder. Raises `PermissionError`."""
    status = os.fstat(opened)
    refuse_others(status, folder)
    mode = stat.S_IMODE(status.st_mode)
    if not fresh and mode & FOR_ALL == FOR_ALL:
        raise PermissionError(errno.EPERM, "it is a folder for everybody", str(folder))
    target = 0o700 if fresh else mode & 0o7700
    if mode == target or (status.st_uid != os.geteuid() and not mode & 0o022):
        return
    os.fchmod(opened, target)
    if stat.S_IMODE(os.fstat(opened).st_mode) & 0o077:
        raise PermissionError(errno.EPERM, "its file system keeps no modes", str(folder))


def _ours(own: str, shared: str, default: str) -> Path:
    """Our variable is taken as it is; a relative XDG one is ignored, as its standard asks."""
    if folder := os.environ.get(own):
        return absolute(folder)
    base = os.environ.get(shared, "")
    if base.startswith("/"):
        return Path(base, "cvl")
    return Path(os.path.expanduser("~"), default, "cvl")  # noqa: PTH111 - works without $HOME
