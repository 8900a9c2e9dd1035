"""`cvl doctor`: what the runners need, here and on a host, and what to do about it."""

from __future__ import annotations

import click

from cvl.cli.terminal import show, show_json
from cvl.providers.needs import Check


@click.command()
@click.option("--host", metavar="HOST", help="Also look at this machine, over SSH.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(host: str | None, as_json: bool) -> int:
    """Check what each runner needs, here and on a host, and say what to do."""
    from cvl.cli.console import Console
    from cvl.operations.doctor import here, there

    found = list(here())
    if host is not None:
        console = Console()
        try:
            found += there(host, console.phase)
        finally:
            console.close()
    if as_json:
        show_json([each._asdict() for each in found])
    else:
        for each in found:
            for shown in lines(each):
                show(shown)
    return 125 if any(each.ok is False for each in found) else 0


def lines(check: Check) -> list[str]:
    """Return one check for a person: what it is and, where something is to be done, what."""
    mark = {True: "ok     ", False: "MISSING", None: "-      "}[check.ok]
    remedy = [f"        {check.remedy}"] if check.remedy and not check.ok else []
    return [f"{mark} {check.what}: {check.text}", *remedy]
