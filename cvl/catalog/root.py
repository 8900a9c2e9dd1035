"""Where examples are looked for: a root is a folder with `examples/` in it. Nothing is saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from cvl.core import trust
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass

FILE = "example.yaml"
TYPES: Mapping[str, str] = {"examples": "example", "benchmarks": "benchmark"}
"""The folders of a root that are listed, and the type of what lies in each."""
VARIABLES = ("CVL_ROOT", "CVLIZATION_ROOT")
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What decides where examples are looked for.

    `named` is the user's `--root`, `configured` comes from a `cvl.toml`, `env` holds $CVL_ROOT
    and $CVLIZATION_ROOT. `warn` hears of roots of other owners: see `find_root`.
    """

    named: Path | None = None
    configured: Path | None = None
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cwd: Path = field(default_factory=Path.cwd)
    warn: Callable[[str], None] = lambda _text: None


def find_root(lookup: Lookup) -> Path:
    """Return the first root there is: named, environment, parents, configured, shipped.

    On the way up, the examples of other owners are passed over, unless the user trusts them.
    Raises UsageError when one that was named has no examples, or when there is none at all.
    """
    for path, origin in _named(lookup):
        return _checked(lookup.cwd / path, origin)
    for folder in (lookup.cwd, *lookup.cwd.parents):
        if not has_examples(folder, "examples"):
            continue
        why = trust.doubt(folder, "examples")
        if not why:
            return folder
        lookup.warn(trust.unread(folder / "examples", why))
    if lookup.configured is not None:
        return _checked(lookup.cwd / lookup.configured, "the configured root")
    if (shipped := shipped_root()) is not None:
        return shipped
    raise UsageError(
        "no examples found here",
        "go to a folder with examples/, or name one with --root or $CVL_ROOT",
    )


def shipped_root() -> Path | None:
    """Return the root of the examples that come with cvl: the checkout, else the package's own."""
    package = Path(__file__).resolve().parent.parent
    # A stranger's `examples` package may lie beside ours in site-packages: only a checkout counts.
    checkout = [package.parent] if (package.parent / "pyproject.toml").is_file() else []
    for folder in (*checkout, package / "_shipped"):
        if has_examples(folder, "examples"):
            return folder
    return None


def own_root(folder: Path, warn: Callable[[str], None] = lambda _text: None) -> Path:
    """Return the root of an example given as a path: whose examples/ holds it, git's, or itself.

    A repository of another owner is none: its example is a root of its own, and `warn` hears it.
    """
    for parent in folder.parents:
        if folder.relative_to(parent).parts[0] in TYPES:
            return parent
    for parent in (folder, *folder.parents):
        if not (parent / ".git").exists():
            continue
        why = trust.doubt(parent, ".git")
        if not why:
            return parent
        warn(trust.unread(parent / ".git", why))
    return folder


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each example's path below `root`, `/`-separated, with its file's stat; in no order.

    Links to folders are not followed, and there are no examples inside examples.
    """
    for top in TYPES:
        yield from _below(root, top)


def has_examples(root: Path, *tops: str) -> bool:
    """Tell whether there is an example anywhere in these folders of `root` (default: all)."""
    return any(True for top in tops or TYPES for _ in _below(root, top))


def _named(lookup: Lookup) -> Iterator[tuple[Path, str]]:
    if lookup.named is not None:
        yield lookup.named, "--root"
    for variable in VARIABLES:
        if value := lookup.env.get(variable):
            yield Path(value), f"${variable}"


def _checked(root: Path, origin: str) -> Path:
    root = Path(os.path.abspath(root))  # noqa: PTH100 - `..` is removed, links are kept
    if not root.is_dir():
        raise UsageError(f"{origin} is {root}, and there is no such folder")
    if not has_examples(root):
        hint = "a root is the folder that holds examples/"
        raise UsageError(f"{origin} is {root}, which has no examples", hint)
    return root


def _below(root: Path, top: str) -> Iterator[tuple[str, os.stat_result]]:
    base, todo = f"{root}/", [top]
    while todo:
        path = todo.pop()
        try:
            yield path, os.stat(f"{base}{path}/{FILE}")  # noqa: PTH116 - half the time of Path
        except OSError:
            todo.extend(_folders(base, path))


def _folders(base: str, path: str) -> list[str]:
    try:
        with os.scandir(base + path) as entries:
            return [
                f"{path}/{entry.name}"
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and entry.name[0] != "."
                and entry.name not in _SKIPPED
            ]
    except OSError:
        return []
