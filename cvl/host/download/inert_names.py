"""Names that a tool acts on as soon as they are there, and what results are called instead.

Whoever changes into a folder of results, looks at it with `git status` or opens it in an editor
must not run what its host has put there. So such a name gets a suffix on its way in, and loses it
when it travels again. Names are bytes. What runs only because somebody runs it (a Makefile, a
`conftest.py`) keeps its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

from cvl.core.printable import first_of
from cvl.core.safe_dir import parents

SUFFIX = b".inert"
SHOWN = 8
"""Names that are told one by one."""

ACTING: Mapping[str, str] = MappingProxyType(
    {
        ".git": "git, prompts and editors run what its config names (core.fsmonitor, hooks)",
        "git~1": "the same, as file systems of Windows shorten it",
        ".hg": "hg and prompts run hooks and extensions of its hgrc",
        ".jj": "jj runs what its repository's configuration names",
        ".sl": "sl runs hooks of its config",
        ".bzr": "bzr reads its branch's configuration",
        "_darcs": "darcs runs hooks of its defaults",
        ".pijul": "pijul runs hooks of its config",
        ".envrc": "direnv runs it at `cd`",
        ".direnv": "direnv keeps there what it has made of an .envrc",
        ".env": "shells with a dotenv plug-in run it at `cd`; many tools read it as environment",
        ".autoenv": "autoenv runs it at `cd`",
        ".autoenv.zsh": "zsh-autoenv runs it at `cd`",
        ".autoenv_leave.zsh": "zsh-autoenv runs it when one leaves",
        ".rvmrc": "rvm runs it at `cd`",
        ".mise": "mise reads its configuration there at `cd`",
        ".mise.toml": "mise runs its hooks at `cd`",
        ".mise.local.toml": "the same",
        "mise.toml": "the same",
        "mise.local.toml": "the same",
        ".vscode": "VS Code starts its tasks and takes its settings",
        ".devcontainer": "VS Code and others run its initializeCommand",
        ".devcontainer.json": "the same",
        ".cursor": "Cursor starts the servers that it names",
        ".windsurf": "Windsurf starts the servers that it names",
        ".claude": "Claude Code runs the hooks of its settings",
        ".mcp.json": "assistants start the servers that it names",
        ".idea": "JetBrains' editors run its start-up tasks",
        ".fleet": "Fleet takes its settings and tasks",
        ".zed": "Zed starts the language servers that it names",
        ".helix": "Helix starts the language servers that it names",
        ".vim": "coc.nvim starts the language servers of its settings",
        ".exrc": "vi and vim run it with `set exrc`",
        ".vimrc": "the same",
        ".nvimrc": "the same",
        ".nvim.lua": "the same",
        "_vimrc": "the same, on Windows",
        "_exrc": "the same",
        ".lvimrc": "a plug-in of vim runs it",
        ".dir-locals.el": "Emacs sets the variables that it names",
        ".dir-locals-2.el": "the same",
        ".gdbinit": "gdb runs it when it starts there",
        ".lldbinit": "lldb does",
        ".rprofile": "R runs it when it starts there",
        ".renviron": "R takes its environment from it",
        ".octaverc": "Octave runs it when it starts there",
        "desktop.ini": "Windows fetches the icon that it names from any host",
        ".directory": "KDE's file manager does as it says",
        "cvl.toml": "cvl takes its settings",
    }
)
"""Name, in small letters -> who acts on it."""

MARK = re.compile(
    b"|".join(
        [
            rb"/[._]",
            re.escape(SUFFIX),
            *(b"/" + re.escape(n.encode()) for n in ACTING if n[0] not in "._"),
        ]
    )
)
"""What is in every path of plain characters, in small letters, that holds such a name."""

PARTS = frozenset({"objects", "refs", "commondir"})
"""What makes a folder with a `HEAD` into a repository, as git sees it (setup.c)."""
HEAD, IN_HEAD = "head", b"head"

IGNORED = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF]
)
"""Code points that HFS+ does not see in a name, as git counts them."""
BRANCH = re.compile(rb"ref:[ \t\n\v\f\r]*refs/|[0-9A-Fa-f]{40}")
LINKED_BRANCH = b"refs/"
HEAD_LIMIT = 4096
"""Bytes of a HEAD that are looked at; git looks at 255."""


def inert(path: bytes) -> bytes:
    """Return `path` with a suffix on each name that would act, or that looks like one of those.

    It differs for each `path`, and `active` leads back. A `HEAD` gets its suffix only by what it
    holds (`is_head`), so by whoever sees that.
    """
    if path.isascii() and not MARK.search(b"/" + path.lower()):
        return path  # nearly every one, in a microsecond
    names = path.split(b"/")
    return b"/".join(name + SUFFIX if _acts(name) else name for name in names)


def active(path: bytes) -> bytes:
    """Return the path that has become `path` by `inert`, or by a suffix on a HEAD or beside one."""
    return b"/".join(map(_active, path.split(b"/")))


def under_own_names(paths: Collection[bytes]) -> dict[bytes, bytes]:
    """Return those of `paths`, of all that travels, that get their own names back, and which.

    None takes the place of another, nor that of a folder on the way to another.
    """
    own_names = {path: active(path) for path in paths if SUFFIX in path}
    own_names = {path: own for path, own in own_names.items() if own != path}
    if not own_names:
        return {}
    files = set(paths)
    folders = {folder for path in paths for folder in parents(path)}
    free = dict[bytes, bytes]()
    for path, own in own_names.items():
        above = set(parents(own))
        if own not in files and own not in folders and files.isdisjoint(above):
            free[path] = own
            files.add(own)
            folders |= above
    return free


def renamed(path: bytes) -> list[bytes]:
    """Return each folder on the way to `path`, and `path`, whose own name has got a suffix."""
    names = path.split(b"/")
    return [b"/".join(names[: at + 1]) for at, name in enumerate(names) if _active(name) != name]


def told(paths: Collection[bytes]) -> str:
    """Return one line for a person about names that got a suffix, as `renamed` gives them."""
    names = first_of([os.fsdecode(active(path)) for path in sorted(paths)], SHOWN)
    suffix = SUFFIX.decode()
    return f"landed with {suffix} at the end of its name, so that no tool acts on it: {names}"


def is_head_name(name: bytes) -> bool:
    """Return whether a file system may take this name for `HEAD`."""
    return (not name.isascii() or IN_HEAD in name.lower()) and _folded(name) == HEAD


def is_part_name(name: bytes) -> bool:
    """Return whether a file system may take this for what a repository has beside its HEAD."""
    return _folded(name) in PARTS


def is_head(content: bytes, *, link: bool = False) -> bool:
    """Return whether git takes a file that begins so, or a link to there, for a HEAD."""
    return content.startswith(LINKED_BRANCH) if link else bool(BRANCH.match(content))


def _active(name: bytes) -> bytes:
    return name.removesuffix(SUFFIX) if _had_suffix(name) else name


@lru_cache(4096)
def _acts(name: bytes) -> bool:
    core = _core(name)
    return core in ACTING or (core != _folded(name) and (core in PARTS or core == HEAD))


@lru_cache(4096)
def _had_suffix(name: bytes) -> bool:
    core = _core(name)
    return name.endswith(SUFFIX) and (core in ACTING or core in PARTS or core == HEAD)


def _core(name: bytes) -> str:
    """Return a name as a file system may take it, without any suffix of ours."""
    suffix, core = SUFFIX.decode(), _folded(name)
    while core.endswith(suffix):
        core = _trimmed(core.removesuffix(suffix))
    return core


def _folded(name: bytes) -> str:
    """Return a name as a file system may take it that ignores case, marks, or what is at its end.

    Some ignore dots and spaces there; on NTFS what follows a colon names a part of the file.
    """
    text = name.decode("utf-8", "surrogateescape")
    return _trimmed(text.translate(IGNORED).casefold().partition(":")[0])


def _trimmed(name: str) -> str:
    return name.rstrip(" .")
