"""The packages that come with an extra: loaded here, and one sentence where one is missing.

Each is imported when it is first used. Then it may not be installed, be too old, or damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any

from cvl.core.errors import MissingExtra, said
from cvl.core.frozen import dataclass

OLDEST: Mapping[str, tuple[int, int]] = MappingProxyType({"urllib3": (2, 3), "websockets": (13, 0)})
"""The oldest versions that have what we call. What pip takes is newer: see pyproject.toml."""
ALWAYS: Mapping[str, str] = MappingProxyType(
    {"click": "click", "pathspec": "pathspec", "rich": "rich", "yaml": "PyYAML"}
)
"""The packages without which there is no cvl -> what pip calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An extra, and the modules that our code imports with it: what stands out first."""

    name: str
    modules: tuple[str, ...]

    @property
    def install(self) -> str:
        """The command that brings it."""
        return f"pip install 'cvl[{self.name}]'"

    def require(self) -> None:
        """See that its modules can be loaded. Raises `MissingExtra`."""
        for name in self.modules:
            self.needed(name)

    def lacking(self) -> MissingExtra | None:
        """Return what is wrong with it, None if nothing is."""
        try:
            self.require()
        except MissingExtra as error:
            return error
        return None

    def needed(self, module: str) -> Any:
        """Return a module of a package that comes with it. Raises `MissingExtra`."""
        package = module.partition(".")[0]
        try:
            loaded_module, whole = import_module(module), import_module(package)
        except Exception as error:  # whatever a package does that is damaged
            raise MissingExtra(_why(package, error), self.install) from error
        version = str(getattr(whole, "__version__", ""))
        if _numbers(version) < OLDEST.get(package, (0, 0)):
            raise MissingExtra(f"{package} {version} is too old", self.install)
        return loaded_module

    @contextmanager
    def loading(self, package: str) -> Iterator[None]:
        """Let a package load more, of its own or of what it needs. Raises `MissingExtra`."""
        try:
            yield
        except ImportError as error:
            raise MissingExtra(_why(package, error), self.install) from error


def understood(error: ImportError, extras: Iterable[Extra] = ()) -> MissingExtra | None:
    """Return what an import that failed anywhere means to the user, None for a defect of ours."""
    name = (error.name or "").partition(".")[0]
    if name in ALWAYS:
        return MissingExtra(_why(name, error), f"pip install {ALWAYS[name]}")
    extra = next((each for each in extras if name in each.modules), None)
    return MissingExtra(_why(name, error), extra.install) if extra else None


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
