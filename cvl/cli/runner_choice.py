"""Which runner a command line means, so which options it has, and where the run goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import click

from cvl.cli.config import Config
from cvl.cli.options import parameters
from cvl.cli.settings import known, meant, settings
from cvl.core.errors import UsageError
from cvl.providers import BUILT_IN, HOSTED, Entry, flag_of, load

PLAIN_FLAGS = [name for name, each in BUILT_IN.items() if each.flag == f"--{name}"]

Function = TypeVar("Function", bound=Callable[..., object])


def runner_flags(function: Function) -> Function:
    """Give a command the options that choose a runner: the registry has them."""
    chosen = {*HOSTED, *PLAIN_FLAGS}
    rented = ", ".join(sorted(BUILT_IN.keys() - chosen))
    flags = [
        *(_flag(name, each) for name, each in BUILT_IN.items() if name in chosen),
        click.option("--remote", metavar="NAME", help=f"Run on a rented machine: {rented}."),
    ]
    for flag in reversed(flags):
        flag(function)
    return function


def _flag(name: str, line: Entry) -> Callable[[Function], Function]:
    if name in HOSTED:
        return click.option(f"--{name}", metavar="HOST", help=line.help)
    return click.option(f"--{name}", is_flag=True, help=line.help)


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
            own = [
                each.option
                for each in parameters(load(name))
                if not (each.name == "host" and name in HOSTED)
            ]
            if rows := [row for option in own if (row := option.get_help_record(ctx))]:
                with formatter.section(f"Only with {flag_of(name)}"):
                    formatter.write_dl(rows)


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
        if flag.startswith("--") and (name in HOSTED or name in PLAIN_FLAGS):
            return name if name in BUILT_IN else "local"
        if flag in {"--runner", "--remote"}:
            named = value if equals else next(iter(args[index + 1 :]), "")
            return named if named in known(named) else "local"
    return "local"


def chosen_runner(params: Mapping[str, object]) -> str:
    """Return the one runner that the options name. Raises `click.UsageError` for two."""
    named = [name for name in (*HOSTED, *PLAIN_FLAGS) if params.get(name) not in {None, False}]
    named += [str(params[key]) for key in ("runner", "remote") if params.get(key) is not None]
    if len(set(named)) > 1:
        both = " and ".join(sorted(set(named)))
        raise UsageError(f"a run has one place: {both} are two", "name one of them")
    if named:
        return named[0]
    setting = settings().find("runner")
    name = setting.text() if setting else ""
    if setting and name not in known(name):
        raise UsageError(
            f"{setting.origin}: there is no runner {name!r}", meant(("runner", name), ())
        )
    return name or "local"


def destination(name: str, params: Mapping[str, object], found: Config) -> str:
    """Return `on gpu-box (docker), by ./cvl.toml`; "" where flags say it, or nobody does."""
    setting = (
        None
        if any(params.get(flag) for flag in (*HOSTED, *PLAIN_FLAGS, "runner", "remote"))
        else found.find("runner")
    )
    origins = [setting.origin] if setting else []
    said = {}
    runner = load(name)
    for each in parameters(runner):
        typed = params.get(each.name) or (each.name == "host" and params.get(name))
        own = found.find("runner", name, each.name)
        if each.name in runner.places and not typed and own:
            said[each.name] = str(own.value)
            origins.append(own.origin)
    if not origins:
        return ""
    host = said.pop("host", "")
    where = f"on {host} ({name})" if host else "here" if name == "local" else f"on {name}"
    more = "".join(f", {key} {value}" for key, value in said.items())
    return f"{where}{more}, by {' and '.join(map(near, dict.fromkeys(origins)))}"


def near(origin: str) -> str:
    """Return a file's path as a person would write it here; a variable as it is."""
    path, home = Path(origin), os.environ.get("HOME", "")
    if path.parent == Path.cwd():
        return f"./{path.name}"
    if home and path.is_relative_to(home):
        return f"~/{path.relative_to(home)}"
    return origin
