"""`cvl _resolve`: tells another machine's cvl what would run here. Not for people."""

from __future__ import annotations

import sys

import click

from cvl.cli.settings import configured_root, settings
from cvl.cli.terminal import show_exact
from cvl.core.octets import dumped, loaded
from cvl.operations.resolve import resolved


@click.command(hidden=True)
def resolve_() -> None:
    """Read `{example, preset, args, nonce}` on stdin; write the answer after a line `cvl:NONCE`."""
    question = loaded(sys.stdin.buffer.read())
    answer = resolved(question, lambda: configured_root(settings()))
    show_exact(f"cvl:{question['nonce']}\n{dumped(answer)}")
