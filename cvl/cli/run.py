"""`cvl run`: options before EXAMPLE, everything after PRESET is the script's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cvl.cli import config
from cvl.cli.choice import HOST_FLAGS, RunCommand, flag_of
from cvl.cli.console import Console
from cvl.cli.options import DecimalType, Duration, FilePath, Grace, entry, parameters
from cvl.cli.place import destination
from cvl.cli.plan import Planned, agreement, show_plan
from cvl.cli.settings import configured_root, read_as, settings
from cvl.cli.terminal import say_json, show
from cvl.cli.variables import environment
from cvl.core.errors import UsageError
from cvl.core.units import duration, minutes, money
from cvl.providers import Runner, load
from cvl.providers.common import Common


@click.command(
    cls=RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.option("--local", is_flag=True, help="Run on this machine (the default).")
@click.option("--ssh", metavar="HOST", help="Run on a machine of yours, with cvl put on it.")
@click.option(
    "--docker", metavar="HOST", help="Run on a machine of yours with Docker, without cvl there."
)
@click.option("--remote", metavar="NAME", help="Run on a rented machine: lambda.")
@click.option("--sagemaker", is_flag=True, help="Run as a SageMaker training job.")
@click.option("--k8s", is_flag=True, help="Run as a Kubernetes Job.")
@click.option("--runner", metavar="NAME", help="Any registered runner, third-party ones too.")
@click.option("--root", type=FilePath(), help="The folder that holds examples/.")
@click.option("--timeout", type=Duration(), metavar="2h|90m|45s", help="Stop the job after this.")
@click.option("--timeout-minutes", type=float, metavar="N", help="The same, in minutes.")
@click.option("--grace", type=Grace(), metavar="10s", help="Between TERM and KILL (default: 10s).")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="A variable for the script."
)
@click.option(
    "--env-file",
    multiple=True,
    type=FilePath(),
    metavar="FILE",
    help="The same, one a line: NAME=VALUE.",
)
@click.option(
    "-o",
    "--output-dir",
    type=FilePath(),
    metavar="DIR",
    help="Where results land (default: cvl-runs/RUN).",
)
@click.option("--no-fetch", is_flag=True, help="Leave results there; `cvl fetch` gets them.")
@click.option("--keep", is_flag=True, help="Leave the workspace on the machine.")
@click.option("--include", multiple=True, metavar="PATH", help="Send more of the repository along.")
@click.option(
    "--build",
    type=click.Choice(["auto", "always", "never"]),
    help="Build its image (default: auto).",
)
@click.option("-t", "--tty", is_flag=True, help="Give the script a terminal over there.")
@click.option("-d", "--detach", is_flag=True, help="Print the run's id and leave it running.")
@click.option("--nodes", type=click.IntRange(1), metavar="N", help="Machines (default: 1).")
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
        show(status.run_id)
    if params["as_json"]:
        from cvl.operations.list import row_json

        say_json(row_json(status.run_id))
    elif not params["detach"]:
        console.ended(status)
    return int(status)


def called(
    runner: type[Runner],
    name: str,
    params: Mapping[str, Any],
    args: tuple[str, ...],
    console: Console,
) -> Any:
    """Call the runner with what the command line and the configuration say."""
    found = settings()
    for warning in found.warnings:
        console.warn(warning)
    given = own_options(runner, name, params)
    if (place := destination(name, params, found)) and not params["quiet"]:
        console.say(place)
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
    found = settings()
    configured = found.runner(name, [each.name for each in parameters(runner)])
    given: dict[str, object] = {}
    for each in parameters(runner):
        value = params.get(each.name)
        if value == "":  # a variable of a script that was not set: no wish for the default
            raise UsageError(f"{each.option.opts[0]} is empty", "give a value, or leave it out")
        if each.name == "host" and name in HOST_FLAGS:
            value = value if params[name] is None else params[name]
        if value is None or value == ():
            value = configured.get(each.name)
            setting = found.find_own(name, each.name)
            if setting and isinstance(each.option.type, FilePath):
                value = found.path_of(each.name, setting)
        if value is not None:
            given[each.name] = value
        elif each.required:
            raise UsageError(f"{flag_of(name)} needs {each.option.opts[0]}")
    return given


def common(params: Mapping[str, Any], console: Console) -> Common:
    """Return what every runner's `run` takes."""
    found = settings()
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
        "ahead": not params["dry_run"],
    }
    if (timeout := seconds(params, found)) is not None:
        given["timeout"] = timeout
    if (grace := params["grace"]) is not None:
        given["grace"] = grace
    if (most := params["max_cost"]) is not None:
        given["max_cost"] = most
    elif amounts := [read_as(each, "max_cost", money) for each in found.every("max_cost")]:
        given["configured_max_cost"] = min(amounts)
    return given


def seconds(params: Mapping[str, Any], found: config.Config) -> float | None:
    """Return the timeout in seconds. Raises `UsageError`."""
    if params["timeout"] is not None:
        return float(params["timeout"])
    if params["timeout_minutes"] is not None:
        return minutes(params["timeout_minutes"])
    setting = found.find("timeout")
    return read_as(setting, "timeout", duration) if setting else None
