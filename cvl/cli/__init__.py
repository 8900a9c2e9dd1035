"""The command line: one file per group of commands, loaded on use.

Only here do errors become exit codes and text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import click

from cvl import __version__
from cvl.core.errors import CvlError

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "list": ("cvl.cli.examples:list_", "List the examples that can be run."),
        "info": ("cvl.cli.examples:info", "Show one example: presets, resources, read-me."),
        "run": ("cvl.cli.run:run", "Run an example here, or on another machine."),
        "ps": ("cvl.cli.ps:ps", "List runs and what they cost."),
        "logs": ("cvl.cli.runs:logs", "Show what a run has written."),
        "attach": ("cvl.cli.runs:attach", "Follow a run to its end; gives its exit code."),
        "stop": ("cvl.cli.runs:stop", "Stop runs, wherever they are."),
        "fetch": ("cvl.cli.runs:fetch", "Bring a run's results here."),
        "reap": ("cvl.cli.reap:reap", "End what should be over and still costs money."),
        "offers": ("cvl.cli.offers:offers", "Show what can be rented now, and for how much."),
        "trust": ("cvl.cli.trust:trust", "Let a project's cvl.toml say more; or no longer."),
        "doctor": ("cvl.cli.doctor:doctor", "Check what the runners need, here and on a host."),
    }
)
"""Name -> (module:function, one line of help). A command's module is imported when it is used."""
FULL = frozenset({ENOSPC, EDQUOT, EIO, EFBIG})
"""What the file that our output goes to may answer."""
HIDDEN: Mapping[str, str] = MappingProxyType({"_resolve": "cvl.cli.resolve:resolve_"})
"""What one cvl asks another, on another machine."""
LATER = frozenset({"reap", "run"})
"""Commands that say themselves what is left of earlier runs: `run` while it connects already."""
REGARDLESS = frozenset({"doctor", "reap", "stop"})
"""Commands that go on whoever may have changed our files: what costs money is to end."""


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        target = HIDDEN.get(cmd_name) or COMMANDS.get(cmd_name, ("",))[0]
        if not target:
            return None
        module, _, name = target.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a mistyped one gets the nearest as a hint."""
        if args and args[0] not in {*COMMANDS, *HIDDEN} and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1, 0.5)
            hint = f"; did you mean `cvl {near[0]}`?" if near else ""
            ctx.fail(f"there is no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `cvl list`, then `cvl run --ssh HOST EXAMPLE PRESET`. "
    "`cvl COMMAND --help` says more.",
)
@click.version_option(__version__, message="cvl %(version)s")
@click.pass_context
def cvl(ctx: click.Context) -> None:
    """Run an ML example on somebody else's machine as if it were this one.

    One command: live output, the script's own exit code, results back on disk. Whatever dies
    (script, network, this machine), no rented machine is left running and nothing is lost.
    """
    _alone(ctx.invoked_subcommand)
    if ctx.invoked_subcommand not in LATER:
        from cvl.cli.terminal import complain
        from cvl.operations.orphan_notice import notify

        notify(complain)


def _alone(command: str | None) -> None:
    """See that what is ours is only ours. Raises `NotOurs`, but not for what ends something."""
    from cvl.core.privacy import NotOurs, secured

    try:
        for line in secured():
            _complained(line, "", 0)
    except NotOurs as error:
        if command not in REGARDLESS:
            raise
        _complained(str(error), error.hint, 0)


def main(argv: Sequence[str]) -> int:
    """Run one command line; return its exit code. Prints errors, raises nothing."""
    try:
        result = cvl.main(list(argv), prog_name="cvl", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        _give_up_output()  # whoever read us has gone: no error of ours
        return 141
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001 - no traceback ever reaches a user
        return _explained(_package(error) or error)
    return result if isinstance(result, int) else 0


def _explained(error: Exception) -> int:
    """Say what went wrong, and what to do now; return the exit code."""
    if isinstance(error, CvlError):
        return _complained(str(error), error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        return _usage(error)
    if os.environ.get("CVL_DEBUG"):
        return _traceback(error)
    try:
        Path.cwd()
    except FileNotFoundError:
        return _complained("the folder that you are in no longer exists", "cd to another one", 125)
    if isinstance(error, OSError) and error.filename is None and error.errno in FULL:
        _give_up_output()
        return _complained(f"cannot write the output here: {error.strerror}", "", 125)
    hint = "this is a defect in cvl; CVL_DEBUG=1 shows where"
    return _complained(f"{type(error).__name__}: {error}", hint, 125)


def _package(error: Exception) -> CvlError | None:
    """Return what an import that failed means to the user, None for anything else."""
    if not isinstance(error, ImportError):
        return None
    from cvl.core.extras import understood
    from cvl.providers import every

    return understood(error, filter(None, (runner.extra for runner in every())))


def _traceback(error: Exception) -> int:
    """Say where an error came from, for whoever mends it."""
    from traceback import format_exception

    from cvl.cli.terminal import say

    for line in "".join(format_exception(error)).rstrip("\n").split("\n"):
        say(line)
    return 125


def _give_up_output() -> None:
    """Let what is buffered of our output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return 2
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx:
        hint = f"`{error.ctx.command_path} --help` shows what there is"
    return _complained(error.format_message(), hint, 2)


def _complained(message: str, hint: str, code: int) -> int:
    from cvl.cli.terminal import complain

    complain(message, hint)
    return code
