"""What the `run` of every runner takes; loads nothing, for it is read before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from cvl.core.interfaces import Observer
    from cvl.core.spec import LogChunk, Plan


class Common(TypedDict, total=False):
    """What every runner's `run` takes beside its own parameters.

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
