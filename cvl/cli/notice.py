"""What every command says before its own work: machines of dead runs that nobody looks after."""

from __future__ import annotations

from contextlib import suppress

from cvl.cli.terminal import say
from cvl.operations.unattended import unattended


def notify() -> None:
    """Say on stderr what is unattended, if anything; never a reason not to go on."""
    with suppress(Exception):
        if notice := unattended():
            say(f"cvl: {notice}")
