"""The options of every run: one table, from which command line, files and variables are read.

Loads nothing, for it is read before anything is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from cvl.core.interfaces import Observer
    from cvl.core.spec import LogChunk, Plan

Kind = Literal[
    "path", "paths", "duration", "pause", "minutes", "money", "count", "switch", "text", "texts"
]
"""How a value is read. A pause is a duration that may be 0; a count is 1 or more."""
Said = Literal["counts", "named", "trusted", "each run", "flag"]
"""Where an option may be said beside flag and Python: in files and the environment, too, unless
it is said for each run. The first three are of a project's file: it counts there, or does where
the user's own files name the same, or if the file is trusted. A flag has no keyword in Python."""
BUILD = ("auto", "always", "never")


class RunOption(NamedTuple):
    """One option of a run.

    `name` is the keyword of every runner's `run` and, with `-` for `_`, the flag. `default` is
    as a person writes it.
    """

    name: str
    kind: Kind
    said: Said
    help: str
    metavar: str | None = None
    default: str = ""
    short: str = ""
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in `cvl.toml` and, in capitals after `CVL_`, in the environment, if any."""
        return "" if self.said in {"each run", "flag"} else self.name.removesuffix("_dir")


OPTIONS = (
    RunOption("runner", "text", "named", "Any registered runner, third-party ones too.", "NAME"),
    RunOption("root", "path", "counts", "The folder that holds examples/."),
    RunOption("timeout", "duration", "counts", "Stop the job after this.", "2h|90m|45s"),
    RunOption("timeout_minutes", "minutes", "flag", "The same, in minutes.", "N"),
    RunOption("grace", "pause", "trusted", "Between TERM and KILL.", "10s", "10s"),
    RunOption("env", "texts", "each run", "A variable for the script.", "NAME[=VALUE]", "", "-e"),
    RunOption("env_file", "paths", "flag", "The same, one a line: NAME=VALUE.", "FILE"),
    RunOption("output_dir", "path", "trusted", "Where results land.", "DIR", "cvl-runs/RUN", "-o"),
    RunOption("fetch", "switch", "trusted", "Bring results; else `cvl fetch` does.", default="yes"),
    RunOption("fetch_limit", "duration", "trusted", "What that may take at the end.", "30m", "30m"),
    RunOption("keep", "switch", "trusted", "Leave the workspace on the machine."),
    RunOption("include", "texts", "trusted", "Send more of the repository along.", "PATH"),
    RunOption("build", "text", "trusted", "Build its image.", None, "auto", choices=BUILD),
    RunOption("tty", "switch", "trusted", "Give the script a terminal over there.", short="-t"),
    RunOption("detach", "switch", "trusted", "Print the run's id and let it run.", short="-d"),
    RunOption("nodes", "count", "trusted", "Machines.", "N", "1"),
    RunOption("max_cost", "money", "counts", "Stop before it costs more.", "USD"),
    RunOption("yes", "switch", "flag", "Agree to the price.", short="-y"),
    RunOption("dry_run", "switch", "flag", "Print the exact plan and price; do nothing."),
    RunOption("json", "switch", "flag", "The plan, or the end, as JSON."),
    RunOption("quiet", "switch", "flag", "Nothing but the job's output and errors.", short="-q"),
)
"""In the order of `cvl run --help`."""
SETTINGS = {row.key: row for row in OPTIONS if row.key}
"""Those that files and the environment may say, by the name that they have there."""


class Common(TypedDict, total=False):
    """What every runner's `run` takes beside its own parameters: the table, and callables.

    root: the folder that holds `examples/`. env: variables for the job; kept secret.
    timeout, grace, fetch_limit: seconds. output_dir: where results land. detach: return as soon
    as the job runs. keep: leave the workspace there. keep_rented: a machine whose results could
    not be fetched stays until its deadline. build: `auto`, `always`, `never`.
    include: more paths of the repository to send. tty: give the job a terminal over there.
    agree: sees the plan before anything happens; raises to refuse. on_output, on_event: hear the
    job's output and the phases. observer: both in one. ahead: a host that is named may be called
    while we still read what is to run there. configured_root, configured_max_cost: as the files
    of the command line's user say, where the caller says nothing.
    """

    root: str | Path | None
    configured_root: Path | None
    env: Mapping[str, str]
    timeout: float | None
    grace: float
    fetch_limit: float
    max_cost: Decimal | None
    configured_max_cost: Decimal
    output_dir: str | Path | None
    detach: bool
    nodes: int
    keep: bool
    keep_rented: bool
    fetch: bool
    build: str
    include: Sequence[str]
    tty: bool
    agree: Callable[[Plan], None]
    on_output: Callable[[LogChunk], None]
    on_event: Callable[[str, str], None]
    observer: Observer
    ahead: bool
