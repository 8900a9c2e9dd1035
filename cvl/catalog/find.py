"""From what the user typed to one example, or to an error that says what was near."""

from __future__ import annotations

import os
from pathlib import Path

from cvl.catalog.example import Example
from cvl.catalog.index import Catalog, load, load_one
from cvl.catalog.match import fold, match, suggest, tidy
from cvl.catalog.root import FILE, TYPES, Lookup, find_root, own_root
from cvl.core import trust
from cvl.core.errors import Ambiguous, NotFound, UsageError


def find(query: str, lookup: Lookup) -> Example:
    """Return the example that `query` means: a folder by its path, in any root, or a look-up.

    Raises NotFound, Ambiguous, or UsageError if its example.yaml cannot be used or if there is
    no root to look in. An exact path reads that one file only.
    """
    if query.startswith(("/", "../")) or query in {".", ".."}:
        return _at(_folder(query, lookup), lookup)
    if query.startswith("./") and (folder := _there(query, lookup)):
        return _at(folder, lookup)
    try:
        root = find_root(lookup)
    except UsageError:
        if folder := _nearby(query, lookup):
            return _at(folder, lookup)
        raise
    if path := _exact(root, tidy(query)):
        return _one(root, path)
    if "/" in query and (folder := _nearby(query, lookup)):
        return _at(folder, lookup)
    return _looked_up(query, load(root), lookup)


def _looked_up(query: str, catalog: Catalog, lookup: Lookup) -> Example:
    _refuse_broken(query, catalog)
    hits = match(query, catalog.examples)
    if len(hits) == 1:
        return hits[0]
    if hits:
        paths = "\n".join(f"  {example.path}" for example in hits)
        raise Ambiguous(f"{query!r} fits {len(hits)} examples", f"Say which one:\n{paths}")
    if folder := _nearby(query, lookup):
        return _at(folder, lookup)
    raise _not_found(query, catalog)


def _exact(root: Path, wanted: str) -> str:
    """Return the path below `root` that `wanted` spells out, "" if there is none or two."""
    top = wanted.partition("/")[0]
    paths = [wanted] if top in TYPES else []
    paths += [f"{top}/{wanted}" for top in TYPES]
    if not wanted or ".." in wanted.split("/"):
        return ""
    isfile = os.path.isfile  # unlike Path's, it never raises
    existing = [path for path in paths if isfile(f"{root}/{path}/{FILE}")]
    return existing[0] if len(existing) == 1 else ""


def _folder(query: str, lookup: Lookup) -> Path:
    if folder := _there(query, lookup):
        return folder
    path = lookup.cwd / query
    hint = "cvl list shows the examples that there are"
    raise NotFound(f"there is no {FILE} in {path}", hint)


def _nearby(query: str, lookup: Lookup) -> Path | None:
    """As `_there`, of words that need not be a path: the folder has to be the user's or root's."""
    folder = _there(query, lookup)
    if folder and (why := trust.doubt(folder, FILE)):
        lookup.warn(trust.unread(folder / FILE, why))
        return None
    return folder


def _there(query: str, lookup: Lookup) -> Path | None:
    """Return the folder with an example.yaml at this path, if there is one."""
    path = Path(os.path.abspath(lookup.cwd / query))  # noqa: PTH100 - links are kept
    folder = path.parent if path.name == FILE else path
    return folder if query and os.path.isfile(folder / FILE) else None  # noqa: PTH113 - never raises


def _at(folder: Path, lookup: Lookup) -> Example:
    root = own_root(folder, lookup.warn)
    path = folder.relative_to(root).as_posix()
    return _one(root, "" if path == "." else path)


def _one(root: Path, path: str) -> Example:
    example, problems = load_one(root, path)
    if example is None:
        raise UsageError(str(problems[0]), "mend that file, then try again")
    return example


def _refuse_broken(query: str, catalog: Catalog) -> None:
    """Say what is wrong with the folder that was meant, rather than take its nearest neighbour."""
    suffix, usable = fold(f"/{tidy(query)}"), {example.folder for example in catalog.examples}
    for problem in catalog.problems:
        folder = problem.path.parent
        if folder not in usable and fold(folder.as_posix()).endswith(suffix):
            raise UsageError(str(problem), "mend that file, then try again")


def _not_found(query: str, catalog: Catalog) -> NotFound:
    near = [f"  {_shown(example)}" for example in suggest(query, catalog.examples)]
    hint = "\n".join(["Did you mean:", *near]) if near else "cvl list shows what there is"
    return NotFound(f"no example is called {query!r} in {catalog.root}", hint)


def _shown(example: Example) -> str:
    folder = example.path.rpartition("/")[2]
    same = fold(folder) == fold(example.name)
    return example.path if same else f"{example.path} ({example.name})"
