"""`cvl reap`: end what should be over, wherever it was started from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Thread

import click

from cvl.cleanup import until_gone
from cvl.cli.config import Config
from cvl.cli.console import Console
from cvl.cli.survey import LOOK_LIMIT, Survey
from cvl.cli.terminal import agree, show, show_json, show_text
from cvl.core.bounded import bounded
from cvl.core.errors import (
    AuthError,
    Blocked,
    CvlError,
    Elsewhere,
    LedgerError,
    MissingTool,
    StillOpen,
    Unreachable,
    UsageError,
    explained,
)
from cvl.core.interfaces import Provider
from cvl.core.parallel import together
from cvl.core.paths import ledger_file
from cvl.core.scope import DeadlineExceeded, Scope, limits
from cvl.core.secrets import whole
from cvl.core.spec import Resource
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import reap as reaping
from cvl.operations.reap import Finding
from cvl.operations.reap_targets import places
from cvl.providers import reopen

END_LIMIT = 3600.0
"""Seconds that all the ending may take: its fetching and releasing have limits of their own."""


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list, with prices.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--remote", metavar="NAME", help="Ask this provider, and no other.")
@click.option("--host", metavar="HOST", help="Tidy up what dead runs left on this machine.")
@click.option("--days", type=click.IntRange(0), default=30, help="With --host: older than this.")
@click.option("--remote-workdir", metavar="DIR", help="With --host: our files lie here too.")
@click.option("--install", is_flag=True, help="Do this every 10 minutes, by systemd or cron.")
def reap(
    yes: bool,
    dry_run: bool,
    as_json: bool,
    remote: str | None,
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
        from cvl.operations.reap_timer import install as install_timer

        show_text(install_timer(whole()))
        return 0
    if host is not None:
        from cvl.cli.reap_host import finish_there, sweep
        from cvl.transports.ssh.address import parse

        parse(host)  # what cannot be one is told before anything is tidied up
        worst = finish_there(host, ledger, console, dry_run=dry_run)
        if not dry_run:
            worst |= sweep(host, {"", remote_workdir or ""}, days, ledger, console)
        return worst
    if remote == "":  # a variable of a script that was not set: no wish to ask all
        raise UsageError("--remote is empty", "name a provider, or leave it out to ask all")
    own, only = configured(), remote or ""
    known = places(ledger, [name for name in own if name], only, own)
    survey = Survey(ledger, console, known, only)
    if yes and not dry_run:
        return at_once(survey, as_json=as_json)
    return when_agreed(survey, dry_run=dry_run, as_json=as_json)


def configured() -> Mapping[str, Mapping[str, str]]:
    """Return the runners that the configuration names, each with its own options, as text.

    A broken file keeps nothing back.
    """
    from cvl.cli.settings import settings

    try:
        found = settings()
        named = [found.text("runner") or "", *(name for e in found.layers for name in e.runners)]
        return {name: options_of(name, found) for name in named}
    except CvlError:
        return {}


def options_of(runner: str, found: Config) -> Mapping[str, str]:
    """Return one runner's own options in the files; a kubeconfig lies where its file says."""
    said = {}
    for name in found.runner(runner):
        setting = found.find_own(runner, name)
        if setting and isinstance(setting.value, str):
            path = name == "kubeconfig"
            said[name] = str(found.path_of(name, setting)) if path else setting.value
    return said


def at_once(survey: Survey, *, as_json: bool) -> int:
    """End what is found as soon as it is: no provider waits for another. Return the exit code."""
    found, unseen, codes = list[Finding](), None, list[int]()
    ends = list[Thread]()

    def finish(batch: Sequence[Finding]) -> None:
        codes.append(ended(batch, survey))

    for batch in survey.batches():
        found += batch
        unseen = unseen or (None if as_json or not batch else not_shown(batch, as_json=False))
        ends.append(Thread(target=finish, args=(batch,), daemon=True))
        ends[-1].start()
    if as_json or not found:
        unseen = unseen or not_shown(reaping.dearest_first(found), as_json=as_json)
    until = time.monotonic() + END_LIMIT
    for each in ends:
        each.join(max(0.0, until - time.monotonic()))
    survey.tell()
    if unseen:
        raise unseen
    late = [125] if len(codes) < len(ends) else []
    return max([survey.code, *codes, *late])


def when_agreed(survey: Survey, *, dry_run: bool, as_json: bool) -> int:
    """List what is found, and end it if somebody agrees. Return the exit code."""
    found = reaping.dearest_first(each for batch in survey.batches() for each in batch)
    if unseen := not_shown(found, as_json=as_json):
        raise unseen
    survey.tell()  # whoever is asked should know what is not among it
    if dry_run or not found:
        return survey.code
    agree(f"end {'these' if len(found) > 1 else 'this'}?", "nothing was ended")
    return max(ended(found, survey), survey.code)


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


def ended(found: Sequence[Finding], survey: Survey) -> int:
    """End everything that was found, side by side; return 125 if anything was not seen gone."""
    results = together([partial(end, each, survey) for each in found], END_LIMIT)
    for each, result in zip(found, results, strict=True):
        if isinstance(result, Exception):
            survey.console.say(f"still open: {each.kind} {each.name}: {explained(result)}")
    return 125 if any(isinstance(each, Exception) for each in results) else 0


def end(each: Finding, survey: Survey) -> None:
    """End one finding. Raises whatever keeps it from being seen gone."""
    if each.orphan:
        end_run(each, survey)
    elif each.resource and each.owner:
        scope = Scope(seconds=reaping.RELEASE_LIMIT, tell=survey.console.phase)
        until_gone.end(each.owner, [each.resource], scope)
    survey.console.say(f"ended {each.kind} {each.name}")


def end_run(each: Finding, survey: Survey) -> None:
    """Bring a run to its end; where its line in the ledger cannot be made use of, by its tag."""

    def reopened(run: Run) -> Provider:
        return reopen(run.runner, run.handle)

    try:
        let_in(each)
        reaping.finish(each, survey.ledger, Console(output=False), reopened)
    except Exception as error:
        if isinstance(error, StillOpen) and not isinstance(error.__cause__, Elsewhere):
            raise
        if isinstance(error, Blocked) and waits(each, survey.ledger):
            raise
        survey.console.say(f"{each.name}: {explained(error)}; ending what carries its tag")
        seen = end_tagged(each, survey)
        strange = Elsewhere in {type(error), type(error.__cause__)}
        if seen:
            reaping.close(each, survey.ledger, seen if strange else None)
        if not seen or (strange and survey.ledger.leases(each.run_id, open_only=True)):
            raise


def waits(each: Finding, ledger: Ledger) -> bool:
    """Return whether a run is kept for its results: then a guardian ends it, or its provider."""
    try:
        return ledger.run(each.run_id).state is RunState.FETCHING
    except LedgerError:
        return False


def let_in(each: Finding) -> None:
    """Raise what keeps us from asking about a run at all: nothing would come of asking again."""
    if not (each.orphan and each.orphan.leases):
        return
    run, kind = each.orphan.run, each.orphan.leases[0].kind
    provider = reopen(run.runner, run.handle)
    try:
        bounded(lambda: list(provider.owned(kind)), Scope(seconds=LOOK_LIMIT))
    except (AuthError, UsageError, MissingTool):
        raise
    except DeadlineExceeded:
        raise Unreachable(f"{run.runner} gave no answer within {LOOK_LIMIT:.0f} s") from None
    except Exception as error:  # noqa: BLE001 - that may pass
        del error


def end_tagged(each: Finding, survey: Survey) -> list[Resource]:
    """End what carries a run's tag; return what was there and is seen gone.

    Where nothing is seen nothing is concluded: it may be in another account.
    """
    scope, seen = Scope(seconds=reaping.RELEASE_LIMIT, tell=survey.console.phase), list[Resource]()
    for owner in survey.owners(each.provider):
        with limits(scope):
            there = until_gone.answered(scope, partial(reaping.tagged, owner, each.run_id)) or []
        until_gone.end(owner, there, scope)
        seen += there
    return seen
