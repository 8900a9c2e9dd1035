"""Which files of a folder that the user names as an input travel, and which stay here.

A file that is named itself is the user's word, and travels whatever it is; but not a secret that
lies elsewhere, to which a link in the repository or below the current folder leads: that is the
word of whoever made the link. What is only found in a named folder may have been put there by
somebody else as well: a checkout, or whoever shares the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cvl.core.printable import first_of
from cvl.core.regular_file import start_of
from cvl.host.upload.git import checkout_of
from cvl.host.upload.secret_files import inside, named

START = 8192
"""Bytes at a file's start in which a secret is looked for."""


def sift(
    files: Mapping[str, Path], folders: Mapping[str, Path], root: Path
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return those of `files` that travel, and warnings that name the others.

    `folders` says of files which named folder they were found in; `root` is the repository.
    """
    bounds: dict[Path, Path | None] = {}
    kept, left = dict[str, Path](), list[str]()
    for place, file in files.items():
        folder = folders.get(place)
        if folder and folder not in bounds:
            bounds[folder] = _bound(folder, root)
        if folder:
            why = _secret(folder, file) or _stranger(file, folder, bounds[folder])
        else:
            why = _astray(file, root)
        if why:
            left.append(f"{file} ({why})")
        else:
            kept[place] = file
    if not left:
        return kept, ()
    return kept, (f"stay here: {first_of(left, 20)}; name a file itself to send it",)


def _astray(file: Path, root: Path) -> str:
    """Return what secret outside of the repository a named file leads to; "" if it does not."""
    real = file.resolve()
    for base in (root, Path.cwd()):
        if file.is_relative_to(base) and not real.is_relative_to(base.resolve()):
            secret = _secret(Path(real.anchor), real)
            return f"a link to {real}: {secret}" if secret else ""
    return ""


def _secret(folder: Path, file: Path) -> str:
    """Return what secret a file is, by its name or content, in words; "" if it seems none."""
    inner = os.fsencode(file.relative_to(folder))
    if named(inner) or (file.is_symlink() and named(os.fsencode(file.resolve()))):
        return "a secret, by its name"
    try:
        return inside(os.fsencode(file), start_of(file, START, links=True))
    except OSError:
        return ""  # whoever sends it says why it cannot be read


def _stranger(file: Path, folder: Path, bound: Path | None) -> str:
    """Return where a link leads if it must not be followed; "" if it may, or is none.

    In a repository links lead around in that repository. Elsewhere those that we or root have
    made are followed, and those of whoever owns what they lead to.
    """
    link = file.lstat()
    if not stat.S_ISLNK(link.st_mode):
        return ""
    target = file.resolve()
    if target.is_relative_to(folder.resolve()):
        return ""
    if bound:
        fine = target.is_relative_to(bound)
    else:
        fine = link.st_uid in {os.getuid(), 0, target.stat().st_uid}
    return "" if fine else f"a link to {target}"


def _bound(folder: Path, root: Path) -> Path | None:
    """Return the repository that a folder lies in, None if in none."""
    whole, repository = folder.resolve(), root.resolve()
    if whole.is_relative_to(repository):
        return repository
    checkout = checkout_of(os.fsencode(whole))
    return Path(os.fsdecode(checkout)) if checkout else None
