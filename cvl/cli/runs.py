"""`cvl logs`, `attach`, `stop`, `fetch`: runs of any runner, from any later process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cvl.cli.console import Console
from cvl.cli.parameter_types import PATH, PAUSE
from cvl.cli.screen import SCREEN
from cvl.cli.terminal import complain
from cvl.core.spec import GRACE

if TYPE_CHECKING:
    from cvl.operations.attach import Meter

CHUNK = 1 << 18


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(run_id: str, follow: bool) -> None:
    """Show what a run has written so far. Ctrl-C leaves the run alone."""
    from cvl.operations.logs import logs as logs_of

    console = Console(quiet=True)
    try:
        log = logs_of(run_id, console, follow=follow)
        show(log.path, log.size)
        for chunk in log.rest:
            console.output(chunk)
    except KeyboardInterrupt:
        return
    finally:
        console.close()


def show(path: Path, size: int) -> None:
    """Copy the first `size` bytes of a log to stdout, byte for byte."""
    if size == 0:
        return
    with path.open("rb") as log:
        while data := log.read(min(size, CHUNK)):
            size -= len(data)
            SCREEN.job(data)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but the job's output and errors.")
def attach(run_id: str, quiet: bool) -> int:
    """Follow a run to its end: shows the rest of its output, fetches, gives its exit code.

    Ctrl-C only detaches.
    """
    from cvl.operations.attach import attach as follow

    console = Console(quiet=quiet)

    def count(meter: Meter) -> None:
        if meter.seconds is not None:
            console.since(meter.seconds)
        if meter.price_per_hour is not None:
            console.price(meter.price_per_hour, meter.currency, meter.paid)

    try:
        status = follow(run_id, console, count, quiet=quiet)
    finally:
        console.close()
    console.ended(status)
    return int(status)


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--grace", type=PAUSE, default=GRACE, metavar="10s", help="Between TERM and KILL.")
def stop(run_ids: tuple[str, ...], grace: float) -> int:
    """Stop runs, wherever they are, whoever follows them."""
    from cvl.operations.stop import stop as end

    return end(run_ids, grace, Console(), complain)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("-o", "--output-dir", type=PATH, metavar="DIR", help="Where they land.")
def fetch(run_id: str, output_dir: Path | None) -> None:
    """Bring a run's results here, now; also while it goes on, and more than once."""
    from cvl.operations.fetch import fetch as bring

    console = Console()
    bring(run_id, output_dir, console)
    console.close()
