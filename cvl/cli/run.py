"""`cvl run`: options before EXAMPLE, everything after PRESET is the script's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from cvl import config
from cvl.cli.options import DecimalType, Duration, Grace, entry, parameters
from cvl.cli.settings import configured_root, settings
from cvl.console import Console
from cvl.errors import CvlError, UsageError
from cvl.runners import BUILT_IN, Runner, load
from cvl.runners.frontdoor import Common
from cvl.spec import Plan
from cvl.units import dollars, duration, minutes

HOST_FLAGS = {"ssh": "ssh", "docker": "docker"}
PLAIN_FLAGS = {"local": "local", "sagemaker": "sagemaker", "k8s": "k8s"}


class RunCommand(click.Command):
    """A command whose options are its own and those of the runner that is chosen."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse with the options of the runner that the words seem to choose; then make sure."""
        ctx.meta["cvl.runner"] = guessed(args)
        try:
            rest = super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            raise elsewhere(error) or error from None
        chosen = chosen_runner(ctx.params)
        if chosen != ctx.meta["cvl.runner"]:
            ctx.meta["cvl.runner"] = chosen
            ctx.params.clear()
            rest = super().parse_args(ctx, list(args))
        return rest

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        name = ctx.meta.get("cvl.runner")
        own = [each.option for each in parameters(load(name))] if name else []
        return [*super().get_params(ctx), *own]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the options for all, then those of each runner under its name."""
        ctx.meta["cvl.runner"] = None
        super().format_options(ctx, formatter)
        for name in BUILT_IN:
            rows = [each.option.get_help_record(ctx) for each in parameters(load(name))]
            if found := [row for row in rows if row]:
                with formatter.section(f"Only with {flag_of(name)}"):
                    formatter.write_dl(found)


def elsewhere(error: click.NoSuchOption) -> click.UsageError | None:
    """Return a better error for an option that another runner has."""
    owners = [
        flag_of(name)
        for name in BUILT_IN
        for each in parameters(load(name))
        if error.option_name in {*each.option.opts, *each.option.secondary_opts}
    ]
    if not owners:
        return None
    return click.UsageError(f"{error.option_name} goes with {' or '.join(owners)}", error.ctx)


def guessed(args: Sequence[str]) -> str:
    """Return the runner that the first word to name one names; parsing makes sure of it."""
    for index, word in enumerate(args):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--")
        if flag.startswith("--") and (name in HOST_FLAGS or name in PLAIN_FLAGS):
            return name if name in BUILT_IN else "local"
        if flag in {"--runner", "--remote"}:
            named = value if equals else next(iter(args[index + 1 :]), "")
            return named if named in known(named) else "local"
    return "local"


def known(name: str) -> Sequence[str]:
    """Return the runners among which `name` is looked for: entry points only on a miss."""
    from cvl.runners import names

    return list(BUILT_IN) if name in BUILT_IN else names()


def chosen_runner(params: Mapping[str, object]) -> str:
    """Return the one runner that the options name. Raises `click.UsageError` for two."""
    named = [name for name in (*HOST_FLAGS, *PLAIN_FLAGS) if params.get(name)]
    named += [str(params[key]) for key in ("runner", "remote") if params.get(key)]
    if len(set(named)) > 1:
        both = " and ".join(sorted(set(named)))
        raise UsageError(f"a run has one place: {both} are two", "name one of them")
    return named[0] if named else str(settings().text("runner") or "local")


def flag_of(name: str) -> str:
    """Return how a runner is chosen on the command line."""
    if name in HOST_FLAGS:
        return f"--{name} HOST"
    return f"--{name}" if name in PLAIN_FLAGS else f"--remote {name}"


@click.command(
    cls=RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.option("--local", is_flag=True, help="Run on this machine (the default).")
@click.option("--ssh", metavar="HOST", help="Run on a machine of yours, with cvl put on it.")
@click.option("--docker", metavar="HOST", help="Run on a Docker box, nothing of cvl left there.")
@click.option("--remote", metavar="NAME", help="Rent a machine: lambda.")
@click.option("--sagemaker", is_flag=True, help="Run as a SageMaker training job.")
@click.option("--k8s", is_flag=True, help="Run as a Kubernetes Job.")
@click.option("--runner", metavar="NAME", help="Any registered runner, third-party ones too.")
@click.option("--root", type=click.Path(path_type=Path), help="The folder that holds examples/.")
@click.option("--timeout", type=Duration(), metavar="2h|90m|45s", help="Stop the job after this.")
@click.option("--timeout-minutes", type=float, metavar="N", help="The same, in minutes.")
@click.option("--grace", type=Grace(), metavar="10s", help="Between TERM and KILL.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Forward a variable.")
@click.option("--env-file", multiple=True, type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where results land (default: cvl-runs/RUN).",
)
@click.option("--no-fetch", is_flag=True, help="Leave results there; `cvl fetch` gets them.")
@click.option("--keep", is_flag=True, help="Leave the workspace on the machine.")
@click.option("--include", multiple=True, metavar="PATH", help="Send more of the repository.")
@click.option("--build", type=click.Choice(["auto", "always", "never"]), help="Build the image.")
@click.option("-t", "--tty", is_flag=True, help="Give the script a terminal over there.")
@click.option("-d", "--detach", is_flag=True, help="Print the run's id and leave it running.")
@click.option("--nodes", type=click.IntRange(1), default=None, metavar="N")
@click.option("--max-cost", type=DecimalType(), metavar="USD", help="Stop before it costs more.")
@click.option("-y", "--yes", is_flag=True, help="Agree to the price.")
@click.option("--dry-run", is_flag=True, help="Print the exact plan and price; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="The plan, or the end, as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but the job's output and errors.")
@click.argument("example")
@click.argument("preset")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, /, **params: Any) -> int:
    """Run PRESET of EXAMPLE, here or on another machine.

    Options stand before EXAMPLE; everything after PRESET goes to the script untouched (one
    leading -- is dropped). The exit code is the script's own; 124 timed out, 130 Ctrl-C,
    143 SIGTERM, 125 cvl itself failed, 2 usage.
    """
    name = str(ctx.meta["cvl.runner"])
    console = Console(quiet=params["quiet"])
    args = params["args"][1:] if params["args"][:1] == ("--",) else params["args"]
    try:
        status = called(load(name), name, params, tuple(args), console)
    except Planned as planned:
        show_plan(planned.plan, as_json=params["as_json"])
        return 0
    finally:
        console.close()
    if params["detach"]:
        click.echo(status.run_id)
    elif params["as_json"]:
        print(json.dumps(final(status)), file=sys.stderr)
    else:
        console.ended(status)
    return int(status)


class Planned(Exception):
    """Raised by `--dry-run` once the plan is made."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


def called(
    runner: type[Runner],
    name: str,
    params: Mapping[str, Any],
    args: tuple[str, ...],
    console: Console,
) -> Any:
    """Call the runner with what the command line and the configuration say."""
    given = own_options(runner, name, params)
    to_init = {each.name for each in parameters(runner) if each.to_init}
    instance = runner(**{key: value for key, value in given.items() if key in to_init})
    return entry(runner)(
        instance,
        example=params["example"],
        preset=params["preset"],
        args=args,
        **{key: value for key, value in given.items() if key not in to_init},
        **common(params, console),
    )


def own_options(runner: type[Runner], name: str, params: Mapping[str, Any]) -> dict[str, object]:
    """Return the runner's own options: flag, else configuration, else its default."""
    configured = settings().runner(name, [each.name for each in parameters(runner)])
    given: dict[str, object] = {}
    for each in parameters(runner):
        value = params.get(each.name)
        if each.name == "host" and name in HOST_FLAGS:
            value = params[name] or value
        if value is None or value == ():
            value = configured.get(each.name)
        if value is not None:
            given[each.name] = value
        elif each.required:
            raise UsageError(f"{flag_of(name)} needs {each.option.opts[0]}")
    return given


def common(params: Mapping[str, Any], console: Console) -> Common:
    """Return what every runner's `run` takes."""
    found = settings()
    for warning in found.warnings:
        console.warn(warning)
    given: Common = {
        "root": params["root"],
        "configured_root": configured_root(found),
        "env": environment(params["env"], params["env_file"]),
        "output_dir": params["output_dir"] or found.path("output"),
        "detach": params["detach"],
        "nodes": params["nodes"] or 1,
        "keep": params["keep"],
        "fetch": not params["no_fetch"],
        "include": params["include"],
        "tty": params["tty"],
        "build": params["build"] or "auto",
        "agree": agreement(params, console),
        "observer": console,
    }
    if (timeout := seconds(params, found)) is not None:
        given["timeout"] = timeout
    if (grace := params["grace"]) is not None:
        given["grace"] = grace
    if (most := params["max_cost"]) is not None:
        given["max_cost"] = most
    return given


def seconds(params: Mapping[str, Any], found: config.Config) -> float | None:
    """Return the timeout in seconds. Raises `UsageError`."""
    if params["timeout"] is not None:
        return float(params["timeout"])
    if params["timeout_minutes"] is not None:
        return minutes(params["timeout_minutes"])
    text = found.text("timeout")
    return duration(text) if text else None


def environment(words: Sequence[str], files: Sequence[Path]) -> dict[str, str]:
    """Return the variables to forward. Raises `UsageError`, never with a value in it."""
    found: dict[str, str] = {}
    for file in files:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{file} cannot be read: {reason(error)}", "one NAME=VALUE a line, in UTF-8"
            ) from error
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                found.update(variable(line.strip().removeprefix("export "), f"{file}:{number}: "))
    for word in words:
        found.update(variable(word, "-e "))
    return found


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return an error's words without what it could not read."""
    return error.strerror or "" if isinstance(error, OSError) else "it is not UTF-8"


def variable(word: str, place: str) -> dict[str, str]:
    """Return one `NAME=VALUE`; a bare `NAME` takes its value from our own environment."""
    name, equals, value = word.partition("=")
    if not name.isidentifier() or not name.isascii():
        raise UsageError(
            f"{place}not NAME or NAME=VALUE", "a name has letters, digits and _, no digit first"
        )
    if equals:
        return {name: value}
    if name not in os.environ:
        raise UsageError(f"{place}{name} is not set here", f"set it, or give {name}=VALUE")
    return {name: os.environ[name]}


def agreement(params: Mapping[str, Any], console: Console) -> Any:
    """Return what sees the plan before anything happens: it shows, asks, or refuses."""

    def agree(plan: Plan) -> None:
        if params["dry_run"]:
            raise Planned(plan)
        if not plan.quote.price_per_hour:
            return
        for line in price_lines(plan):
            console.say(line)
        if params["yes"]:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("this costs money, and nobody is there to ask", "agree with -y")
        if not click.confirm("cvl: go ahead?", default=False, err=True):
            raise CvlError("not agreed; nothing was rented")

    return agree


def price_lines(plan: Plan) -> list[str]:
    """Return the price and what would end it, for a person."""
    quote = plan.quote
    assert quote.price_per_hour is not None
    worst = f", at most {dollars(quote.max_cost)}" if quote.max_cost is not None else ""
    lines = [f"price: {dollars(quote.price_per_hour)} an hour{worst} ({quote.note or plan.where})"]
    return [*lines, *(f"ends it: {layer}" for layer in plan.layers)]


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print the plan on stdout."""
    if as_json:
        click.echo(json.dumps(plan_json(plan), indent=2))
        return
    click.echo(f"runner: {plan.runner}\nwhere: {plan.where}")
    if isinstance(plan.request, str):
        click.echo(plan.request)
    else:
        click.echo(json.dumps(plan.request, indent=2, ensure_ascii=False))
    for line in price_lines(plan) if plan.quote.price_per_hour else [f"price: {plan.quote.note}"]:
        click.echo(line)


def plan_json(plan: Plan) -> dict[str, object]:
    """Return `--dry-run --json`: money as decimal strings, null where it cannot be had."""
    quote = plan.quote

    def text(amount: Decimal | None) -> str | None:
        return None if amount is None else format(amount, "f")

    return {
        "runner": plan.runner,
        "request": plan.request,
        "quote": {
            "price_per_hour": text(quote.price_per_hour),
            "max_hours": text(quote.max_hours),
            "max_cost": text(quote.max_cost),
            "currency": quote.currency,
            "note": quote.note,
        },
        "layers": list(plan.layers),
    }


def final(status: Any) -> dict[str, object]:
    """Return `run --json`'s last object: the run as `ps --json` shows it."""
    from cvl.ledger import Ledger, ps_json
    from cvl.paths import ledger_file

    return ps_json(Ledger(ledger_file()).find(status.run_id))
