"""`cvl reap`: end what should be over, wherever it was started from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from cvl.cli.config import Config, load
from cvl.cli.console import Console
from cvl.cli.settings import known
from cvl.cli.terminal import agree, show, show_json, show_text
from cvl.core.errors import CvlError, UsageError
from cvl.core.interfaces import Observer
from cvl.core.secrets import whole
from cvl.operations.reap import Ends
from cvl.operations.reap_findings import Finding, dearest_first, shown
from cvl.operations.reap_survey import Survey
from cvl.providers import load as runner_of
from cvl.providers import timer_variables


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
    console = Console()
    if install:
        from cvl.cleanup.reap_timer import install as install_timer

        show_text(install_timer(whole(), timer_variables(whole())))
        return 0
    if host is not None:
        from cvl.operations.reap_host import finish_there, sweep

        worst = finish_there(host, console, show, dry_run=dry_run)
        return worst if dry_run else worst | sweep(host, remote_workdir or "", days, console, show)
    if remote == "":  # a variable of a script that was not set: no wish to ask all
        raise UsageError("--remote is empty", "name a provider, or leave it out to ask all")
    survey = Survey(console, configured(console), remote or "")
    if yes and not dry_run:
        return at_once(survey, as_json=as_json)
    return when_agreed(survey, dry_run=dry_run, as_json=as_json)


def configured(observer: Observer) -> Mapping[str, Mapping[str, str]]:
    """Return the runners that the configuration names, each with its own options, as text.

    A broken file keeps nothing back, nor does an option or a runner that there is not.
    """
    try:
        found = load(Path.cwd(), os.environ)
        default = found.find("runner")
        places = {default.text(): default.origin} if default else {}
    except CvlError:
        return {}
    places |= {name: str(each.path) for each in found.layers for name in each.runners}
    for name in [name for name in places if name not in known(name)]:
        observer.warn(f"note: {places.pop(name)}: there is no runner {name!r}")
    return {name: options_of(name, found) for name in places}


def options_of(runner: str, found: Config) -> Mapping[str, str]:
    """Return one runner's own options in the files; a file lies where what names it says."""
    said, options = {}, found.runner(runner)
    try:
        files = runner_of(runner).files if options else ()
    except CvlError:
        return {}
    for name in options:
        setting = found.find("runner", runner, name)
        if setting and isinstance(setting.value, str):
            said[name] = str(setting.path()) if name in files else setting.value
    return said


def at_once(survey: Survey, *, as_json: bool) -> int:
    """End what is found as soon as it is shown. Return the exit code."""
    findings, unseen, ends = list[Finding](), None, Ends(survey)
    for batch in survey.batches():
        findings += batch
        unseen = unseen or (None if as_json or not batch else not_shown(batch, as_json=False))
        ends.begin(batch)
    if as_json or not findings:
        unseen = unseen or not_shown(dearest_first(findings), as_json=as_json)
    code = ends.wait()
    survey.tell()
    if unseen:
        raise unseen
    return code


def when_agreed(survey: Survey, *, dry_run: bool, as_json: bool) -> int:
    """List what is found, and end it if somebody agrees. Return the exit code."""
    findings = dearest_first(each for batch in survey.batches() for each in batch)
    if unseen := not_shown(findings, as_json=as_json):
        raise unseen
    survey.tell()  # whoever is asked should know what is not among it
    if dry_run or not findings:
        return survey.code
    agree(f"end {'these' if len(findings) > 1 else 'this'}?", "nothing was ended")
    ends = Ends(survey)
    ends.begin(findings)
    return ends.wait()


def not_shown(findings: Sequence[Finding], *, as_json: bool) -> OSError | None:
    """Print what was found on stdout; return what kept that from being read, None if nothing did.

    A full disk, or a reader that has gone, is no reason not to end what was agreed to.
    """
    try:
        if as_json:
            show_json([shown(each) for each in findings])
        elif not findings:
            show("nothing to reap")
        else:
            for each in findings:
                rate = "" if each.price_per_hour is None else f" at ${each.price_per_hour}/h"
                what = f"{each.provider} {each.kind} {each.name} {each.id}".rstrip()
                show(f"{what}{rate}: {each.why}")
    except OSError as error:
        return error
    return None
