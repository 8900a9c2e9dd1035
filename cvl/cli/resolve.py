"""`cvl _resolve`: tells another machine's cvl what would run here. Not for people."""

from __future__ import annotations

import json
import sys

import click

from cvl.catalog import Lookup, find, resolved
from cvl.cli.settings import configured_root, settings
from cvl.cli.terminal import show_exact
from cvl.core.errors import CvlError


@click.command(hidden=True)
def resolve_() -> None:
    """Read `{example, preset, args, nonce}` on stdin; write the answer after a line `cvl:NONCE`."""
    question = json.loads(sys.stdin.buffer.read())
    answer: dict[str, object] = {}
    try:
        example = find(question["example"], Lookup(configured=configured_root(settings())))
        answer["folder"] = example.path
        answer |= resolved(example, question["preset"], tuple(question["args"]))
    except CvlError as error:
        answer["error"] = (str(error), error.hint)
    show_exact(f"cvl:{question['nonce']}\n{json.dumps(answer)}")
