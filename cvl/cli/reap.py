"""`cvl reap`: end what should be over, wherever it was started from."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

import click

from cvl import reap as reaping
from cvl.console import Console
from cvl.errors import (
    AuthError,
    CvlError,
    Elsewhere,
    HostKeyError,
    StillOpen,
    Unreachable,
    UsageError,
    explained,
)
from cvl.hidden import whole
from cvl.ledger import Ledger, Run
from cvl.paths import ledger_file
from cvl.provider import Provider, Reapable
from cvl.reap import Finding
from cvl.release import named
from cvl.runners import BUILT_IN, load, reopen
from cvl.scope import Scope
from cvl.spec import Resource
from cvl.terminal import agreed, show, show_json, show_text
from cvl.together import together

MOST_UNCLEAR = 20
"""Entries that nobody can read, as many as are told of one by one."""
LOOK_LIMIT = 120.0
"""Seconds that all the looking around may take."""
END_LIMIT = 3600.0
"""Seconds that all the ending may take: its fetching and releasing have limits of their own."""

NO_HOST = (Unreachable, HostKeyError, AuthError)
"""What says of a whole host that it cannot be asked."""


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
        worst = finish_there(host, ledger, console, dry_run=dry_run)
        if not dry_run:
            worst |= sweep(host, {"", remote_workdir or ""}, days, ledger, console)
        return worst
    owners, found, blind = looked(ledger, console)
    unseen = not_shown(found, as_json=as_json)
    if unseen and (dry_run or not yes or not found):
        raise unseen
    if dry_run or not found:
        return 125 if blind else 0
    if not yes:
        agree(found)
    code = ended(found, owners, ledger, console)
    if unseen:
        raise unseen
    return max(code, 125 if blind else 0)


def looked(ledger: Ledger, console: Console) -> tuple[dict[str, Reapable], list[Finding], bool]:
    """Return who can be asked, what should be over, and whether anybody did not answer.

    The ledger and each provider by themselves: what one cannot say keeps none of the others back.
    """
    sources: list[Callable[[], list[Finding]]] = [
        partial(reaping.abandoned, ledger),
        partial(reaping.left_over, ledger),
    ]
    owners, found, blind = {}, list[Finding](), False
    for each in together(sources, LOOK_LIMIT):
        if isinstance(each, Exception):
            blind = True
            console.say(f"{explained(each)}; going by tags alone")
        else:
            seen = {finding.run_id for finding in found}
            found += [finding for finding in each if finding.run_id not in seen]
    covered = {
        (lease.kind, lease.name) for each in found if each.orphan for lease in each.orphan.leases
    }
    looks = together([partial(overdue, name, ledger, console) for name in BUILT_IN], LOOK_LIMIT)
    for name, look in zip(BUILT_IN, looks, strict=True):
        if isinstance(look, Exception):
            blind = True
            console.say(f"{name}: {explained(look)}")
        elif look:
            owner, more, sure = look
            owners[name] = owner
            blind = blind or not sure
            found += [each for each in more if (each.kind, each.name) not in covered]
    return owners, reaping.dearest_first(found), blind


def overdue(
    name: str, ledger: Ledger, console: Console
) -> tuple[Reapable, list[Finding], bool] | None:
    """Return whom to ask, what should be over there, and whether that is all; None: nobody."""
    owner = owner_of(name)
    if owner is None:
        return None
    listed = list(owner.owned())
    found = reaping.overdue(owner, ledger, listed)
    unclear = [each for each in listed if each.unclear]
    sure = owner.now() is not None
    if not sure:
        console.say(f"{name} does not say what time it is: no deadline was judged")
    tell_unclear(name, unclear, console)
    return owner, found, sure and not unclear


def tell_unclear(name: str, unclear: Iterable[Resource], console: Console) -> None:
    """Say what a provider lists that nobody can read: like entries once, and not without end."""
    alike = Counter(map(named, unclear))
    for what, times in islice(alike.items(), MOST_UNCLEAR):
        often = f" ({times} times)" if times > 1 else ""
        console.say(f"{name} lists {what}{often}: it may be ours; look at it there")
    if len(alike) > MOST_UNCLEAR:
        console.say(f"{name} lists {len(alike) - MOST_UNCLEAR} more that cannot be read")


def owner_of(name: str) -> Reapable | None:
    """Return what lists a provider's resources, None where nothing is rented or no key is set."""
    make = getattr(load(name), "reapable", None)
    owner: Reapable | None = make() if make else None
    return owner


def not_shown(found: Sequence[Finding], *, as_json: bool) -> OSError | None:
    """Print what was found on stdout; return what kept that from being read, None if nothing did.

    A full disk, or a reader that has gone, is no reason not to end what was agreed to.
    """
    try:
        show_found(found, as_json=as_json)
    except OSError as error:
        return error
    return None


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
    """End everything that was found, side by side; return 125 if anything was not seen gone."""
    results = together([partial(end, each, owners, ledger, console) for each in found], END_LIMIT)
    for each, result in zip(found, results, strict=True):
        if isinstance(result, Exception):
            console.say(f"still open: {each.kind} {each.name}: {explained(result)}")
    return 125 if any(isinstance(each, Exception) for each in results) else 0


def end(each: Finding, owners: dict[str, Reapable], ledger: Ledger, console: Console) -> None:
    """End one finding. Raises whatever keeps it from being seen gone."""
    if each.orphan:
        end_run(each, owners, ledger, console)
    elif each.resource:
        scope = Scope(seconds=reaping.RELEASE_LIMIT, tell=console.phase)
        reaping.end(owners[each.provider], [each.resource], scope)
    console.say(f"ended {each.kind} {each.name}")


def end_run(each: Finding, owners: dict[str, Reapable], ledger: Ledger, console: Console) -> None:
    """Bring a run to its end; where its line in the ledger cannot be made use of, by its tag."""

    def reopened(run: Run) -> Provider:
        return reopen(run.runner, run.handle)

    try:
        reaping.finish(each, ledger, Console(output=False), reopened)
    except Exception as error:
        if isinstance(error, StillOpen) and not isinstance(error.__cause__, Elsewhere):
            raise
        console.say(f"{each.name}: {explained(error)}; ending what carries its tag")
        if not end_tagged(each, owners, console):
            raise
        reaping.close(each, ledger)


def end_tagged(each: Finding, owners: dict[str, Reapable], console: Console) -> bool:
    """End what carries a run's tag; return whether something was there and is seen gone.

    Where nothing is seen nothing is concluded: it may be in another account.
    """
    scope, seen = Scope(seconds=reaping.RELEASE_LIMIT, tell=console.phase), False
    for owner in owners.values():
        there = reaping.tagged(owner, each.run_id)
        reaping.end(owner, there, scope)
        seen = seen or bool(there)
    return seen


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
    from cvl import engine
    from cvl.cli.runs import options

    execution = reopen(run.runner, run.handle).attach(run.reach)
    try:
        over = execution.poll() is not None
    finally:
        execution.close()
    show(f"{run.id}: {'has ended' if over else 'is still running'}")
    if over and not dry_run and engine.adopt(run, ledger):
        provider = reopen(run.runner, run.handle)
        engine.attach(ledger.run(run.id), provider, ledger, options(run, console))


def sweep(host: str, bases: set[str], days: int, ledger: Ledger, console: Console) -> int:
    """Remove what nobody came back for, from `bases` and wherever else our runs were there.

    Returns the exit code; a folder that cannot be swept keeps none of the others. Raises
    `NO_HOST` where it is the host that cannot be asked.
    """
    from cvl.remote.far import FarSide
    from cvl.transports.openssh import OpenSSH

    runs = [run for run in ledger.runs() if run.where == host]
    bases |= {run.handle.get("base", "") for run in runs}
    key = next((run.handle["key"] for run in runs if run.handle.get("key")), None)
    worst = 0
    for base in sorted(bases):
        try:
            far = FarSide(OpenSSH(host, key=key), base)
            _, listing = far.ask("sweep", [("days", str(days))]) if far.exists() else ([], b"")
        except NO_HOST:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may go well
            console.say(f"{base or host}: {explained(error)}")
            worst = 125
            continue
        for line in listing.decode(errors="surrogateescape").split("\n")[:-1]:
            show(f"{base or host}: {line}")  # never a line of its own making
    return worst
