"""`cvl trust`: shows what a project's file would allow, asks, and notes just these bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from cvl.cli import config, project_config
from cvl.cli.config_file import FILE, content, display, layer
from cvl.cli.parameter_types import PATH
from cvl.cli.project_config import Own, Project, allowed, counts
from cvl.cli.terminal import agree, show
from cvl.core import trust as store
from cvl.core.errors import CvlError, NotFound, UsageError
from cvl.core.file_owner import believed
from cvl.providers.common import SETTINGS

LOOKED_AT = (FILE, "examples", ".git")
"""What of a folder is read on the way up."""
PART = 1000
"""Characters of a value that are shown in one line."""


@click.command()
@click.argument("folder", metavar="[DIR]", type=PATH, default=".")
@click.option("-y", "--yes", is_flag=True, help="Agree to what is shown.")
@click.option("--list", "listing", is_flag=True, help="Show what is trusted.")
@click.option("--remove", is_flag=True, help="Trust DIR no longer.")
def trust(folder: Path, yes: bool, listing: bool, remove: bool) -> None:
    """Let the cvl.toml of a project say more; or the files of another owner be read.

    Shows what would count, and asks. It counts as long as the file is the same to the byte. DIR
    is the project's folder, or one in it (default: the current one).
    """
    if listing:
        for each in store.everything():
            show(f"{each.file or each.folder}  {state(each)}")
    elif remove:
        forget(folder)
    else:
        agree_to(folder_of(folder), yes=yes)


def agree_to(place: Path, *, yes: bool) -> None:
    """Show what a folder's file would allow, ask, and note it. Raises `CvlError`.

    The file is read once: what is shown is what is noted.
    """
    names = [name for name in LOOKED_AT if os.path.lexists(place / name)]
    why = store.strange(place, *names)
    owner = owner_of(place, names) if why else None
    project = read(place / FILE) if FILE in names else None
    news = [f"{place}: {why}; its files and examples would be read"] if why else []
    news += more(project, foreign=bool(why)) if project else []
    if project and not news:
        show(f"{project.path}: nothing to agree to: what may count does already")
        return
    for each in news:
        show(each)
    if not yes:
        agree("trust this, as it is now?", "nothing is trusted")
    file = os.path.realpath(project.path) if project else ""
    digest = store.fingerprint(project.data) if project else ""
    with explained_if_unwritable():
        store.keep(store.Trust(folder=str(place), file=file, digest=digest, owner=owner))
    show(f"trusted: {place}{', as it is now' if project else ''}")


def folder_of(folder: Path) -> Path:
    """Return the project's folder that is meant, by its real path. Raises `NotFound`."""
    given = Path(os.path.realpath(folder.parent if folder.name == FILE else folder))
    if store.strange(given, *LOOKED_AT):
        return given
    for each in (given, *given.parents):
        if os.path.lexists(each / FILE):
            return each
    raise NotFound(f"there is no {FILE} in {given} or above it", "name the project's folder")


def owner_of(place: Path, names: Sequence[str]) -> int:
    """Return whose a folder is that is not the user's alone. Raises `UsageError` for several."""
    owners = {os.lstat(path).st_uid for path in (place, *(place / name for name in names))}
    others = owners - believed()
    owner = min(others) if others else os.geteuid()
    if why := store.strange(place, *names, also=owner):
        raise UsageError(f"{place}: {why}, and other parts to others", "make it one owner's")
    return owner


def read(path: Path) -> Project:
    """Return a file as it would be if it were trusted. Raises `UsageError`."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    return Project(path=path, data=content(path, also=owner), trusted=True)


def more(project: Project, *, foreign: bool) -> Iterator[str]:
    """Yield what trust would let a file say, and what not even that would, for a person."""
    said = layer(project.path, project.data)
    own = Own(layer=config.user_layer(os.environ), environ=os.environ)
    as_now = replace(project, trusted=False)
    fresh = {
        key: value
        for key, value in said.values.items()
        if (len(key) > 1 or key[0] in SETTINGS)
        and (foreign or not counts(key, value, said, own, as_now))
    }
    would = {key: value for key, value in fresh.items() if allowed(key, value, project.path.parent)}
    if would:
        yield f"{project.path} would be allowed to say:"
        for key, value in would.items():
            yield from whole(f"  {display(key)} = {value!r}")
    if would and (never := fresh.keys() - would.keys()):
        yield f"not even then does this count: {', '.join(sorted(map(display, never)))}"


def whole(text: str) -> Iterator[str]:
    """Yield a line, in parts if it is long: a terminal is shown no more than the ends of those."""
    for at in range(0, len(text), PART):
        yield text[at : at + PART]


def forget(folder: Path) -> None:
    """Trust a folder no longer. Raises `NotFound` where it was not trusted."""
    with explained_if_unwritable():
        removed = store.remove(folder.parent if folder.name == FILE else folder)
    if not removed:
        raise NotFound(f"{folder} is not trusted", "`cvl trust --list` shows what is")
    show(f"no longer trusted: {os.path.realpath(folder)}")


@contextmanager
def explained_if_unwritable() -> Iterator[None]:
    """Make a sentence of what kept a note from being written or removed."""
    try:
        yield
    except OSError as error:
        text = f"what is trusted cannot be noted in {store.folder_of_notes()}: {error.strerror}"
        raise CvlError(text, "CVL_STATE_DIR names another place") from error


def state(agreed: store.Trust) -> str:
    """Return whether what was agreed to is still the same."""
    if not agreed.file:
        return "as it was" if os.path.isdir(agreed.folder) else "gone"  # noqa: PTH112
    path = Path(agreed.folder, FILE)
    try:
        project = project_config.read(path, agreed)
    except UsageError:
        return "gone, or not to be read"
    return "as it was" if project.trusted else "changed since: not trusted"
