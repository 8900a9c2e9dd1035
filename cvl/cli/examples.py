"""`cvl list` and `cvl info`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from cvl.catalog import Lookup, described, find, find_root, listed, load
from cvl.cli.parameter_types import PATH
from cvl.cli.settings import configured_root, settings
from cvl.cli.terminal import complain, show, show_json, show_table, show_text

ROOT = click.option("--root", type=PATH, help="The folder that holds examples/.")


@click.command("list")
@click.option("-k", "--keyword", metavar="WORD", help="Only those that mention WORD.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@ROOT
def list_(keyword: str | None, as_json: bool, root: Path | None) -> None:
    """List the examples that can be run."""
    catalog = load(find_root(lookup(root)))
    for problem in catalog.problems:
        complain(str(problem))
    rows = [row for row in map(listed, catalog.examples) if not keyword or mentions(row, keyword)]
    if as_json:
        show_json(rows)
        return
    if keyword and not rows:
        complain(f"no example mentions {keyword!r}")
    show_table([(str(row["path"]), presets_of(row)) for row in rows])


def presets_of(row: dict[str, object]) -> str:
    """Return the names of an example's presets in one line."""
    presets = row["presets"]
    assert isinstance(presets, list)
    return ", ".join(presets)


def lookup(root: Path | None) -> Lookup:
    """Return what decides where examples are looked for."""
    config = settings()
    for warning in config.warnings:
        complain(warning)
    return Lookup(named=root, configured=configured_root(config), env=os.environ, warn=complain)


def mentions(row: dict[str, object], word: str) -> bool:
    """Return whether any field of an example mentions `word`, whatever the case."""
    return word.casefold() in json.dumps(row, ensure_ascii=False).casefold()


@click.command()
@click.argument("example")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@ROOT
def info(example: str, as_json: bool, root: Path | None) -> None:
    """Show one example: presets, resources, read-me."""
    facts = described(find(example, lookup(root)))
    if as_json:
        show_json(facts)
        return
    for key in ("name", "path", "capability", "stability", "tags", "image", "resources", "readme"):
        if value := facts.get(key):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            show(f"{key}: {shown if not isinstance(shown, dict) else pairs(shown)}")
    description = str(facts.get("description") or "").strip().replace("\n", "\n  ")
    show_text(f"\n  {description}\n\npresets:")  # no line of its own making begins one
    presets = facts["presets"]
    assert isinstance(presets, dict)
    for name, preset in presets.items():
        show(f"  {name}: {preset.get('description') or preset.get('script') or ''}".rstrip())


def pairs(mapping: dict[str, object]) -> str:
    """Return a mapping in one line."""
    return ", ".join(f"{key} {value}" for key, value in mapping.items())
