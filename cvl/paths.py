"""Where our own files lie: state, configuration, cache. Asking creates nothing."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """Return `$CVL_STATE_DIR`, else `$XDG_STATE_HOME/cvl`, else `~/.local/state/cvl`."""
    return _ours("CVL_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def config_dir() -> Path:
    """Return `$CVL_CONFIG_DIR`, else `$XDG_CONFIG_HOME/cvl`, else `~/.config/cvl`."""
    return _ours("CVL_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")


def cache_dir() -> Path:
    """Return `$CVL_CACHE_DIR`, else `$XDG_CACHE_HOME/cvl`, else `~/.cache/cvl`."""
    return _ours("CVL_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def ledger_file() -> Path:
    """Return the ledger of this user, whether it exists or not."""
    return state_dir() / "ledger.db"


def private(folder: Path) -> Path:
    """Create `folder`, and what is missing above it, as 0700; return it. Raises `OSError`.

    A folder that is already there keeps its mode: it may be the user's own choice.
    """
    if not folder.is_dir():
        private(folder.parent)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise
    return folder


def _ours(own: str, shared: str, default: str) -> Path:
    """Our variable is taken as it is; a relative XDG one is ignored, as its standard asks."""
    if given := os.environ.get(own):
        return Path(os.path.abspath(os.path.expanduser(given)))  # noqa: PTH100, PTH111 - no I/O
    base = os.environ.get(shared, "")
    if base.startswith("/"):
        return Path(base, "cvl")
    return Path(os.path.expanduser("~"), default, "cvl")  # noqa: PTH111 - works without $HOME
