"""`cvl doctor`: what the runners need, here and on a host, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from cvl.cli.config_file import FILE
from cvl.cli.settings import nearly, refuse_unknown, settings
from cvl.cli.terminal import show, show_json
from cvl.core.errors import CvlError
from cvl.providers import load
from cvl.providers.needs import Check

MARKS = {True: "ok     ", False: "FAILED ", None: "-      "}


@click.command()
@click.option("--host", metavar="HOST", help="Also look at this machine, over SSH.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(host: str | None, as_json: bool) -> int:
    """Check what each runner needs, here and on a host, and say what to do."""
    from cvl.cli.console import Console
    from cvl.operations.doctor import here, there

    checks = [*configuration(), *here()]
    if host is not None:
        console = Console()
        try:
            checks += there(host, console.phase)
        finally:
            console.close()
    if as_json:
        show_json([each._asdict() for each in checks])
    else:
        for each in checks:
            show(f"{MARKS[each.ok]} {each.what}: {each.text}")
            if each.remedy and not each.ok:
                show(f"        {each.remedy}")
    return 125 if any(each.ok is False for each in checks) else 0


def configuration() -> Iterator[Check]:
    """Look at the `cvl.toml` files that count here, and at the variables that say the same."""
    try:
        found = settings()
        for name in {name for each in found.files for name in each.runners}:
            refuse_unknown(name, load(name), found)
    except CvlError as error:
        yield Check("configuration", False, str(error), error.hint)
        return
    files = [str(each.path) for each in found.files]
    yield Check("configuration", True, ", ".join(files) or f"no {FILE} here; none is needed")
    for warning in (*found.warnings, *nearly(os.environ)):
        yield Check("configuration", None, warning)
