"""`cvl run`: options before EXAMPLE, everything after PRESET is the script's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import click

from cvl.cli.console import Console
from cvl.cli.options import parameters, run_options
from cvl.cli.plan_approval import Planned, agreement, show_plan
from cvl.cli.runner_choice import RunCommand, destination, runner_flags
from cvl.cli.settings import EMPTY, configured_root, nearly, refuse_unknown, settings, value_of
from cvl.cli.terminal import say_json, show
from cvl.cli.variables import environment
from cvl.core.errors import UsageError
from cvl.core.units import minutes
from cvl.providers import HOSTED, flag_of, load
from cvl.providers.common import SETTINGS, Common
from cvl.providers.runner import Runner

APART = frozenset({"max_cost", "root"})
"""Where not the nearest counts, but the lowest; and where the catalog asks the environment."""


@click.command(
    cls=RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@runner_flags
@run_options
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
    console = Console(quiet=bool(params["quiet"]))
    try:
        given = common(params, console)
        status = called(load(name), name, params, given, console)
    except Planned as planned:
        show_plan(planned.plan, as_json=bool(params["json"]))
        return 0
    finally:
        console.close()
    detached = given.get("detach", False)
    if detached:
        show(status.run_id)
    if params["json"]:
        from cvl.operations.list import row_json

        say_json(row_json(status.run_id))
    elif not detached:
        console.ended(status)
    return int(status)


def called(
    runner: type[Runner],
    name: str,
    params: Mapping[str, Any],
    given: Common,
    console: Console,
) -> Any:
    """Call the runner with what the command line and the configuration say."""
    found, args = settings(), params["args"]
    own = own_options(runner, name, params)
    for warning in (*found.warnings, *nearly(os.environ)):
        console.warn(warning)
    if (place := destination(name, params, found)) and not params["quiet"]:
        console.say(place)
    to_init = {each.name for each in parameters(runner) if each.to_init}
    instance = runner(**{key: value for key, value in own.items() if key in to_init})
    return instance.run(
        example=params["example"],
        preset=params["preset"],
        args=tuple(args[1:] if args[:1] == ("--",) else args),
        **{key: value for key, value in own.items() if key not in to_init},
        **given,
    )


def own_options(runner: type[Runner], name: str, params: Mapping[str, Any]) -> dict[str, object]:
    """Return the runner's own options: flag, else configuration, else its default."""
    found, given = settings(), dict[str, object]()
    refuse_unknown(name, runner, found)
    for each in parameters(runner):
        value = params.get(each.name)
        if value == "":  # a variable of a script that was not set: no wish for the default
            raise UsageError(f"{each.option.opts[0]} is empty", EMPTY)
        if each.name == "host" and name in HOSTED:
            value = value if params[name] is None else params[name]
        if value in {None, ()} and (setting := found.find("runner", name, each.name)):
            value = value_of(setting, each.option)
        if value not in {None, ()}:
            given[each.name] = value
        elif each.required and each.name == "host" and name in HOSTED:
            raise UsageError(f"{name} needs a host", f"name one: {flag_of(name)}")
        elif each.required:
            raise UsageError(f"{flag_of(name)} needs {each.option.opts[0]}")
    return given


def common(params: Mapping[str, Any], console: Console) -> Common:
    """Return what every runner's `run` takes: flag, else configuration, else its own default."""
    found, flags = settings(), {each.name: cast("click.Option", each) for each in run.params}
    given: dict[str, Any] = {
        "configured_root": configured_root(found),
        "env": environment(params["env"], params["env_file"]),
        "agree": agreement(params, console),
        "observer": console,
        "ahead": not params["dry_run"],
    }
    if params["timeout_minutes"] is not None:
        if params["timeout"] is not None:
            raise UsageError("--timeout and --timeout-minutes say the same", "give one of them")
        params = {**params, "timeout": minutes(params["timeout_minutes"])}
    for key, row in SETTINGS.items():
        if row.name not in Common.__annotations__:
            continue
        if row.kind == "texts" and "" in params[row.name]:
            raise UsageError(f"{flags[row.name].opts[0]} is empty", EMPTY)
        if params[row.name] not in {None, ()}:
            given[row.name] = params[row.name]
        elif key not in APART and (setting := found.find(key)):
            given[row.name] = value_of(setting, flags[row.name])
    if "max_cost" not in given and (amounts := found.every("max_cost")):
        given["configured_max_cost"] = min(value_of(each, flags["max_cost"]) for each in amounts)
    return cast("Common", given)
