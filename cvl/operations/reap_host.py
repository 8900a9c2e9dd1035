"""Tidies up on one host: brings home what ended there without us, removes what is old."""

from __future__ import annotations

import os
from collections.abc import Callable

from cvl.core.errors import AuthError, HostKeyError, Unreachable, explained
from cvl.core.interfaces import Observer
from cvl.core.paths import ledger_file
from cvl.core.scope import Scope
from cvl.host.rpc import FarSide
from cvl.ledger import Ledger, Run
from cvl.operations.reattach import attached, follow
from cvl.run import lifecycle
from cvl.transports.ssh.address import parse
from cvl.transports.ssh.openssh import OpenSSH

NO_HOST = (Unreachable, HostKeyError, AuthError)
"""What says of a whole host that it cannot be asked."""
Show = Callable[[str], None]


def finish_there(host: str, observer: Observer, show: Show, *, dry_run: bool) -> int:
    """Bring our dead runs on a host to their end, if their jobs are over; return the exit code.

    `show` hears how each stands. One of which nothing can be learned is told as unknown, and keeps
    none of the others. Raises `NO_HOST` where it is the host that cannot be asked.
    """
    parse(host)  # what cannot be one is told before anything is tidied up
    worst, ledger = 0, Ledger(ledger_file())
    for run in [each.run for each in ledger.orphans() if not each.leases]:
        if run.where != host:
            continue
        try:
            over = _is_over(run, observer)
            show(f"{run.id}: {'has ended' if over else 'is still running'}")
            if over and not dry_run and lifecycle.adopt(run, ledger):
                follow(ledger.run(run.id), ledger, observer)
        except NO_HOST:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may go well
            observer.warn(f"{run.id}: unknown: {explained(error)}")
            worst = 125
    return worst


def _is_over(run: Run, observer: Observer) -> bool:
    with attached(run, observer.phase, run.reach) as execution:
        return execution.poll() is not None


def sweep(host: str, workdir: str, days: int, observer: Observer, show: Show) -> int:
    """Remove what nobody came back for, from `workdir` and wherever else our runs were there.

    Returns the exit code; a folder that cannot be swept keeps none of the others. Raises
    `NO_HOST` where it is the host that cannot be asked.
    """
    runs = [run for run in Ledger(ledger_file()).runs() if run.where == host]
    bases = {"", workdir} | {run.handle.get("base", "") for run in runs}
    key = next((run.handle["key"] for run in runs if run.handle.get("key")), None)
    worst = 0
    for base in sorted(bases):
        try:
            far = FarSide(OpenSSH(host, key=key), base)
            scope, listing = Scope(tell=observer.phase), b""
            if far.exists(scope):
                _, listing = far.ask("sweep", [("days", str(days))], scope=scope)
        except NO_HOST:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may go well
            observer.warn(f"{base or host}: {explained(error)}")
            worst = 125
            continue
        for line in os.fsdecode(listing).split("\n")[:-1]:
            show(f"{base or host}: {line}")  # never a line of its own making
    return worst
