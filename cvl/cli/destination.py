"""Where a run goes, in one line, when a file or the environment decides it and no flag does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cvl.cli.config import Config
from cvl.cli.options import parameters
from cvl.cli.runner_choice import PLAIN_FLAGS
from cvl.providers import HOSTED, load


def destination(name: str, params: Mapping[str, object], found: Config) -> str:
    """Return `on gpu-box (docker), by ./cvl.toml`; "" where flags say it, or nobody does."""
    setting = None if any(params.get(flag) for flag in _flags()) else found.find("runner")
    origins = [setting.origin] if setting else []
    said = {}
    runner = load(name)
    for each in parameters(runner):
        typed = params.get(each.name) or (each.name == "host" and params.get(name))
        if each.name in runner.places and not typed and (own := found.find_own(name, each.name)):
            said[each.name] = str(own.value)
            origins.append(own.origin)
    if not origins:
        return ""
    host = said.pop("host", "")
    where = f"on {host} ({name})" if host else "here" if name == "local" else f"on {name}"
    more = "".join(f", {key} {value}" for key, value in said.items())
    return f"{where}{more}, by {' and '.join(map(near, dict.fromkeys(origins)))}"


def near(origin: str) -> str:
    """Return a file's path as a person would write it here; a variable as it is."""
    path, home = Path(origin), os.environ.get("HOME", "")
    if path.parent == Path.cwd():
        return f"./{path.name}"
    if home and path.is_relative_to(home):
        return f"~/{path.relative_to(home)}"
    return origin


def _flags() -> tuple[str, ...]:
    return (*HOSTED, *PLAIN_FLAGS, "runner", "remote")
