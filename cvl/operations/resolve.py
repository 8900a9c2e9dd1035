"""What would run here: the answer to another machine's cvl, which asks by `cvl _resolve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cvl.catalog import Example, Lookup, build_of, find, find_preset, image_of, needs_of, resolve
from cvl.core.errors import CvlError
from cvl.host.resolve_there import Answered


def resolved(question: Mapping[str, Any], configured_root: Callable[[], Path | None]) -> Answered:
    """Return what `{example, preset, args}` leads to, or why it leads nowhere."""
    answer: Answered = {}
    try:
        found = find(question["example"], Lookup(configured=configured_root()))
        answer["folder"] = found.path
        answer |= _answered(found, question["preset"], tuple(question["args"]))
    except CvlError as error:
        answer["error"] = (str(error), error.hint)
    return answer


def _answered(found: Example, preset: str, args: tuple[str, ...]) -> Answered:
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
