"""`cvl reap`: end what should be over, wherever it was started from."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from cvl import reap as reaping
from cvl.console import Console
from cvl.errors import CvlError, UsageError
from cvl.hidden import whole
from cvl.ledger import Ledger, Run
from cvl.paths import ledger_file
from cvl.provider import Provider, Reapable
from cvl.reap import Finding
from cvl.runners import BUILT_IN, load, reopen
from cvl.scope import Scope
from cvl.terminal import agreed, show, show_json, show_text


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list, with prices.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--host", metavar="HOST", help="Tidy up what dead runs left on this machine.")
@click.option("--days", type=click.IntRange(0), default=30, help="With --host: older than this.")
@click.option("--remote-workdir", metavar="DIR", help="With --host: our files lie here too.")
@click.option("--install", is_flag=True, help="Do this every 10 minutes, by systemd or cron.")
def reap(
    yes: bool,
    dry_run: bool,
    as_json: bool,
    host: str | None,
    days: int,
    remote_workdir: str | None,
    install: bool,
) -> int:
    """Find what should be over and still costs money, and end it.

    From this machine's ledger: runs whose driver is dead, detached ones that have ended. From
    any machine with the key: what is past the deadline in its tags. Never what is not ours.
    """
    console, ledger = Console(), Ledger(ledger_file())
    if install:
        from cvl.cli.reap_install import install as install_timer

        show_text(install_timer(whole()))
        return 0
    if host:
        finish_there(host, ledger, console, dry_run=dry_run)
        if not dry_run:
            sweep(host, {"", remote_workdir or ""}, days, ledger)
        return 0
    owners, found, blind = looked(ledger, console)
    show_found(found, as_json=as_json)
    if dry_run or not found:
        return 125 if blind else 0
    if not yes:
        agree(found)
    return max(ended(found, owners, ledger, console), 125 if blind else 0)


def looked(ledger: Ledger, console: Console) -> tuple[dict[str, Reapable], list[Finding], bool]:
    """Return who can be asked, what should be over, and whether anybody did not answer."""
    owners, blind = {}, False
    found = reaping.abandoned(ledger)
    known = {each.run_id for each in found}
    found += [each for each in reaping.left_over(ledger) if each.run_id not in known]
    covered = {
        (lease.kind, lease.name) for each in found if each.orphan for lease in each.orphan.leases
    }
    for name in BUILT_IN:
        try:
            if owner := owner_of(name):
                owners[name] = owner
                more = reaping.overdue(owner, ledger)
                if owner.now() is None:
                    blind = True
                    console.say(f"{name} does not say what time it is: no deadline was judged")
                found += [each for each in more if (each.kind, each.name) not in covered]
        except CvlError as error:
            blind = True
            console.say(f"{name}: {error}" + (f" ({error.hint})" if error.hint else ""))
    return owners, found, blind


def owner_of(name: str) -> Reapable | None:
    """Return what lists a provider's resources, None where nothing is rented or no key is set."""
    make = getattr(load(name), "reapable", None)
    owner: Reapable | None = make() if make else None
    return owner


def show_found(found: Sequence[Finding], *, as_json: bool) -> None:
    """Print what was found on stdout."""
    if as_json:
        show_json([reaping.shown(each) for each in found])
        return
    for each in found:
        rate = "" if each.price_per_hour is None else f" at ${each.price_per_hour}/h"
        show(f"{each.provider} {each.kind} {each.name} {each.id}".rstrip() + f"{rate}: {each.why}")
    if not found:
        show("nothing to reap")


def agree(found: Sequence[Finding]) -> None:
    """Ask on a terminal. Raises `UsageError` where nobody is there, `CvlError` for a no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody is there to ask", "agree with -y")
    if not agreed(f"end {'these' if len(found) > 1 else 'this'}?"):
        raise CvlError("not agreed; nothing was ended")


def ended(
    found: Sequence[Finding], owners: dict[str, Reapable], ledger: Ledger, console: Console
) -> int:
    """End everything that was found; return 125 if anything was not seen gone."""

    def reopened(run: Run) -> Provider:
        return reopen(run.runner, run.handle)

    worst = 0
    for each in found:
        try:
            if each.orphan:
                reaping.finish(each, ledger, Console(output=False), reopened)
            elif each.resource:
                scope = Scope(seconds=reaping.RELEASE_LIMIT, tell=console.phase)
                reaping.end(owners[each.provider], [each.resource], scope)
            console.say(f"ended {each.kind} {each.name}")
        except CvlError as error:
            console.say(f"{each.name}: {error}" + (f" ({error.hint})" if error.hint else ""))
            worst = 125
    return worst


def finish_there(host: str, ledger: Ledger, console: Console, *, dry_run: bool) -> None:
    """Bring our dead runs on a host to their end, if their jobs are over. Raises `CvlError`."""
    from cvl import engine
    from cvl.cli.runs import options

    for orphan in ledger.orphans():
        run = orphan.run
        if run.where != host or orphan.leases:
            continue
        execution = reopen(run.runner, run.handle).attach(run.reach)
        over = execution.poll() is not None
        execution.close()
        show(f"{run.id}: {'has ended' if over else 'is still running'}")
        if over and not dry_run and engine.adopt(run, ledger):
            provider = reopen(run.runner, run.handle)
            engine.attach(ledger.run(run.id), provider, ledger, options(run, console))


def sweep(host: str, bases: set[str], days: int, ledger: Ledger) -> None:
    """Remove what nobody came back for, from `bases` and wherever else our runs were there."""
    from cvl.remote.far import FarSide
    from cvl.transports.openssh import OpenSSH

    runs = [run for run in ledger.runs() if run.where == host]
    bases |= {run.handle.get("base", "") for run in runs}
    key = next((run.handle["key"] for run in runs if run.handle.get("key")), None)
    for base in sorted(bases):
        far = FarSide(OpenSSH(host, key=key), base)
        if not far.exists():
            continue
        _, listing = far.ask("sweep", [("days", str(days))])
        for line in listing.decode(errors="surrogateescape").split("\n")[:-1]:
            show(f"{base}: {line}" if base else line)
