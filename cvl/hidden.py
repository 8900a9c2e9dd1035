"""Secrets that come in the environment: where the process is ours, no child of it sees them."""

from __future__ import annotations

import os
from contextlib import suppress

_TAKEN: dict[str, str] = {}
_OURS: list[bool] = []


def own_process() -> None:
    """Say that nothing but cvl lives in this process: it is the command line, not a library."""
    _OURS.append(True)


def secret(name: str) -> str:
    """Return a variable that holds a secret, "" if there is none.

    In a process of our own it leaves the environment, which every child would inherit, and no
    core file is written from now on, for it would hold the secret.
    """
    if _OURS and name in os.environ:
        _TAKEN[name] = os.environ.pop(name)
        leave_no_core()
    return _TAKEN.get(name) or os.environ.get(name, "")


def leave_no_core() -> None:
    """Have no core file written should this process crash."""
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
