"""`cvl _resolve`: tells another machine's cvl what would run here. Not for people."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from cvl.catalog import Example, Lookup, build_of, find, find_preset, image_of, needs_of, resolve
from cvl.cli.settings import configured_root, settings
from cvl.cli.terminal import show_exact
from cvl.core.errors import CvlError
from cvl.core.octets import dumped, loaded
from cvl.host.resolve_there import Answered


@click.command(hidden=True)
def resolve_() -> None:
    """Read `{example, preset, args, nonce}` on stdin; write the answer after a line `cvl:NONCE`."""
    question = loaded(sys.stdin.buffer.read())
    answer: Answered = {}
    try:
        found = find(question["example"], Lookup(configured=configured_root(settings())))
        answer["folder"] = found.path
        answer |= answered(found, question["preset"], tuple(question["args"]))
    except CvlError as error:
        answer["error"] = (str(error), error.hint)
    show_exact(f"cvl:{question['nonce']}\n{dumped(answer)}")


def answered(found: Example, preset: str, args: tuple[str, ...]) -> Answered:
    """Return what runs, where it lies and what it needs. Raises `UsageError`."""
    chosen = find_preset(found, preset)
    command = resolve(found, chosen.name, args, check=True)
    build = build_of(found, chosen.name)
    needs = asdict(needs_of(found, chosen))
    del needs["archs"]  # the host has the processor that it has
    return {
        "root": str(found.root),
        "preset": chosen.name,
        "argv": list(command.argv),
        "env": dict(command.env),
        "image": image_of(found),
        "build": (list(build.argv), build.image) if build else None,
        "needs": needs,
    }
