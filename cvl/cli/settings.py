"""What the environment and the configuration files say, read once for each command."""

from __future__ import annotations

import os
from pathlib import Path

from cvl import config


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
    return setting.base / Path(str(setting.value)).expanduser() if setting else None
