"""The packages that come with an extra: loaded here, and one sentence where one is missing.

Each is imported when it is first used. Then it may not be installed, be too old, or damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any

from cvl.core.errors import MissingExtra, said

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "remote": ("urllib3",),
        "aws": ("boto3", "boto3.s3.transfer", "botocore", "urllib3"),
        "k8s": ("urllib3", "websockets"),
    }
)
"""An extra -> the modules that our code imports with it."""
OLDEST: Mapping[str, tuple[int, int]] = MappingProxyType({"urllib3": (2, 3), "websockets": (13, 0)})
"""The oldest versions that have what we call. What pip takes is newer: see pyproject.toml."""
ALWAYS: Mapping[str, str] = MappingProxyType(
    {"click": "click", "pathspec": "pathspec", "rich": "rich", "yaml": "PyYAML"}
)
"""The packages without which there is no cvl -> what pip calls them."""


def require(extra: str) -> None:
    """See that the modules of an extra can be loaded. Raises `MissingExtra`."""
    for name in EXTRAS[extra]:
        needed(name, extra)


def lacking(extra: str) -> MissingExtra | None:
    """Return what is wrong with an extra, None if nothing is."""
    try:
        require(extra)
    except MissingExtra as error:
        return error
    return None


def needed(module: str, extra: str) -> Any:
    """Return a module of a package that comes with an extra. Raises `MissingExtra`."""
    package = module.partition(".")[0]
    try:
        found, whole = import_module(module), import_module(package)
    except Exception as error:  # whatever a package does that is damaged
        raise MissingExtra(_why(package, error), install(extra)) from error
    version = str(getattr(whole, "__version__", ""))
    if _numbers(version) < OLDEST.get(package, (0, 0)):
        raise MissingExtra(f"{package} {version} is too old", install(extra))
    return found


@contextmanager
def loading(package: str, extra: str) -> Iterator[None]:
    """Let a package load more, of its own or of what it needs itself. Raises `MissingExtra`."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(_why(package, error), install(extra)) from error


def install(extra: str) -> str:
    """Return the command that brings an extra."""
    return f"pip install 'cvl[{extra}]'"


def understood(error: ImportError) -> MissingExtra | None:
    """Return what an import that failed anywhere means to the user, None for a defect of ours."""
    name = (error.name or "").partition(".")[0]
    if name in ALWAYS:
        return MissingExtra(_why(name, error), f"pip install {ALWAYS[name]}")
    extra = next((extra for extra, modules in EXTRAS.items() if name in modules), "")
    return MissingExtra(_why(name, error), install(extra)) if extra else None


def _why(package: str, error: Exception) -> str:
    """Return what is wrong with a package that could not be imported."""
    if not isinstance(error, ImportError):
        return f"{package} cannot be loaded: {said(error)}"
    missing, _, part = (error.name or package).partition(".")
    if part or (error.name and not isinstance(error, ModuleNotFoundError)):
        return f"{missing} is too old, or damaged: {error}"
    return f"{missing} not installed"


def _numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version; one that cannot be read is new enough."""
    parts = version.split(".")[:2]
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):  # noqa: PLR2004
        return int(parts[0]), int(parts[1])
    return (1 << 30, 0)
