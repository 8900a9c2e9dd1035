"""What the environment and the configuration files say, read once for each command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cvl.cli import config
from cvl.core.errors import UsageError


def settings() -> config.Config:
    """Return the configuration; read once for each command."""
    global _settings  # noqa: PLW0603 - one command line, one configuration
    if _settings is None:
        _settings = config.load(Path.cwd(), os.environ)
    return _settings


_settings: config.Config | None = None


def configured_root(found: config.Config) -> Path | None:
    """Return the root that a configuration file names; the environment comes before it."""
    setting = found.configured("root")
    return found.path_of("root", setting) if setting else None


T = TypeVar("T")


def read_as(setting: config.Setting, name: str, read: Callable[[str], T]) -> T:
    """Return a setting that is one word or number. Raises `UsageError`, which says whose it is."""
    value = setting.value
    if isinstance(value, tuple | bool):
        raise UsageError(f"{setting.origin}: {name} must be text, not {value!r}")
    try:
        return read(str(value))
    except UsageError as error:
        raise UsageError(f"{setting.origin}: {name}: {error}", error.hint) from error
