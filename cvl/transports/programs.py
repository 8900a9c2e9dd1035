"""The programs of this machine that reach another one."""

from __future__ import annotations

import os
from pathlib import Path

from cvl.core.errors import MissingTool

PACKAGES = {"ssh": "openssh-client", "rsync": "rsync"}


def needed(name: str) -> None:
    """Raise `MissingTool` unless it can be run: by PATH, as `shutil.which`, which loads in 3 ms."""
    places = (Path(folder or ".", name) for folder in os.get_exec_path())
    if not any(place.is_file() and os.access(place, os.X_OK) for place in places):
        raise MissingTool(f"{name} is not installed here", f"apt install {PACKAGES[name]}")
