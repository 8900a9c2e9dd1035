"""`cvl reap --host HOST`: brings home what ended there without us, removes what is old."""

from __future__ import annotations

import os

from cvl.cli.console import Console
from cvl.cli.terminal import show
from cvl.core.errors import AuthError, HostKeyError, Unreachable, explained
from cvl.core.scope import Scope
from cvl.ledger import Ledger, Run

NO_HOST = (Unreachable, HostKeyError, AuthError)
"""What says of a whole host that it cannot be asked."""


def finish_there(host: str, ledger: Ledger, console: Console, *, dry_run: bool) -> int:
    """Bring our dead runs on a host to their end, if their jobs are over; return the exit code.

    One of which nothing can be learned is shown as unknown, and keeps none of the others. Raises
    `NO_HOST` where it is the host that cannot be asked.
    """
    worst = 0
    for orphan in ledger.orphans():
        run = orphan.run
        if run.where != host or orphan.leases:
            continue
        try:
            finish_one(run, ledger, console, dry_run=dry_run)
        except NO_HOST:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may go well
            console.say(f"{run.id}: unknown: {explained(error)}")
            worst = 125
    return worst


def finish_one(run: Run, ledger: Ledger, console: Console, *, dry_run: bool) -> None:
    """Bring one dead run to its end, if its job is over. Raises what `attach` raises."""
    from cvl.operations.open_run import attached, follow
    from cvl.run import lifecycle

    with attached(run, console.phase, run.reach) as execution:
        over = execution.poll() is not None
    show(f"{run.id}: {'has ended' if over else 'is still running'}")
    if over and not dry_run and lifecycle.adopt(run, ledger):
        follow(ledger.run(run.id), ledger, console)


def sweep(host: str, bases: set[str], days: int, ledger: Ledger, console: Console) -> int:
    """Remove what nobody came back for, from `bases` and wherever else our runs were there.

    Returns the exit code; a folder that cannot be swept keeps none of the others. Raises
    `NO_HOST` where it is the host that cannot be asked.
    """
    from cvl.host.rpc import FarSide
    from cvl.transports.ssh.openssh import OpenSSH

    runs = [run for run in ledger.runs() if run.where == host]
    bases |= {run.handle.get("base", "") for run in runs}
    key = next((run.handle["key"] for run in runs if run.handle.get("key")), None)
    worst = 0
    for base in sorted(bases):
        try:
            far = FarSide(OpenSSH(host, key=key), base)
            scope, listing = Scope(tell=console.phase), b""
            if far.exists(scope):
                _, listing = far.ask("sweep", [("days", str(days))], scope=scope)
        except NO_HOST:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may go well
            console.say(f"{base or host}: {explained(error)}")
            worst = 125
            continue
        for line in os.fsdecode(listing).split("\n")[:-1]:
            show(f"{base or host}: {line}")  # never a line of its own making
    return worst
