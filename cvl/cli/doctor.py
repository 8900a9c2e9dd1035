"""`cvl doctor`: what the runners need, here and on a host, and what to do about it."""

from __future__ import annotations

import click

from cvl.cli.terminal import show, show_json

MARKS = {True: "ok     ", False: "MISSING", None: "-      "}


@click.command()
@click.option("--host", metavar="HOST", help="Also look at this machine, over SSH.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(host: str | None, as_json: bool) -> int:
    """Check what each runner needs, here and on a host, and say what to do."""
    from cvl.cli.console import Console
    from cvl.operations.doctor import here, there

    checks = list(here())
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
