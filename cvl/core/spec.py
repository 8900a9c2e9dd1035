"""The values that the whole house passes around. Values only: behaviour lives elsewhere."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Self

from cvl.core.errors import CvlError
from cvl.core.frozen import dataclass

EMPTY: Mapping[str, str] = MappingProxyType({})
GRACE = 10.0
"""Seconds between TERM and KILL, unless given."""
STOP_LIMIT = 60.0
"""Seconds beyond the grace in which a stopped job has to be seen ended, if no more are declared."""
FETCH_LIMIT = 1800.0
"""Seconds that the last fetch may take, unless given."""
RESULTS = Path("cvl-runs")
"""Below the current folder: where each run's results have a folder of its own, by its id."""

RUN_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
"""What every run id looks like: safe in a path, a DNS label, a tag and a job name."""


class Cause(StrEnum):
    """Why a run ended. `EXITED` is the only one whose code is the script's own."""

    EXITED = "exited"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"
    STOPPED = "stopped"
    HANGUP = "hangup"
    BUILD_FAILED = "build-failed"
    NOT_STARTED = "not-started"
    LOST = "lost"
    OUT_OF_MEMORY = "out-of-memory"
    DETACHED = "detached"


EXIT_CODES: Mapping[Cause, int] = MappingProxyType(
    {
        Cause.TIMEOUT: 124,
        Cause.INTERRUPTED: 130,
        Cause.TERMINATED: 143,
        Cause.STOPPED: 143,
        Cause.HANGUP: 129,
        Cause.BUILD_FAILED: 125,
        Cause.NOT_STARTED: 125,
        Cause.LOST: 125,
        Cause.DETACHED: 0,
    }
)
"""The exit code of each cause that we decide; the others carry the script's own."""


IN_DOUBT = "in doubt"
"""A key of handles: nobody has noted that the job was started, and whoever tried is gone.

An execution with such a handle does not just say that it knows of no job: it sees to it that
none can start any more, however long a request was on its way.
"""


class ExitStatus(int):
    """How a run ended: the exit code, and why.

    An `int` between 0 and 255, so that `sys.exit(status)` and `status == 0` do what they say.
    """

    cause: Cause
    run_id: str
    detail: str
    log_bytes: int | None

    def __new__(
        cls,
        code: int,
        *,
        cause: Cause = Cause.EXITED,
        run_id: str = "",
        detail: str = "",
        log_bytes: int | None = None,
    ) -> Self:
        """Keep `code` as it is; `log_bytes` is the length of the complete log where known."""
        status = super().__new__(cls, code)
        status.cause = cause
        status.run_id = run_id
        status.detail = detail
        status.log_bytes = log_bytes
        return status

    def __repr__(self) -> str:
        return f"ExitStatus({int(self)}, cause={self.cause.value!r}, run_id={self.run_id!r})"


def ended(cause: Cause, *, run_id: str = "", detail: str = "") -> ExitStatus:
    """Return the status of an ending that we decided, with its code from `EXIT_CODES`."""
    return ExitStatus(EXIT_CODES[cause], cause=cause, run_id=run_id, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Some bytes of output as they came: not decoded, not cut at lines.

    `cursor` is opaque to all but the execution that made it: `chunks(after=cursor)` goes on with
    the byte that follows `data`. `node` counts from 0.
    """

    data: bytes
    cursor: str
    node: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an example asks of a machine. GB are 10**9 bytes; 0 means "does not say".

    `vram_gb` is each GPU's. `archs` are the processors that it runs on
    (`amd64`, `arm64`); none is said: amd64, as nearly all images are.
    """

    gpus: int = 0
    vram_gb: float = 0
    archs: tuple[str, ...] = ()
    cpus: float = 0
    ram_gb: float = 0
    disk_gb: float = 0
    docker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a run must end. Seconds; `None` is no limit."""

    timeout: float | None = None
    grace: float = GRACE
    fetch: float = FETCH_LIMIT
    timeout_action: str | None = None
    max_cost: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the example lies here.

    `root` is the repository; `folder` the example's path relative to it, `/`-separated, "" for
    the root itself. `include` are further paths below the root that the user wants sent along.
    """

    root: Path
    folder: str
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How the example's image is made: argv in the example's folder, when `image` is absent."""

    argv: tuple[str, ...]
    image: str
    when: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One run, fully resolved: nothing below looks anything up again.

    `argv` is what runs, in the example's folder. `env` is public; `secrets` (what the user
    forwards) appears in no repr, ledger, log or argv. `inputs` maps paths below the work folder
    to local files that are sent along. `warnings` say what a person should know beforehand.
    """

    run_id: str
    argv: tuple[str, ...]
    example: str = ""
    preset: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: Source | None = None
    inputs: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    image: str | None = None
    build: Build | None = None
    needs: Needs = Needs()
    limits: Limits = Limits()
    nodes: int = 1
    tty: bool = False
    detach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a run costs, in decimal money. A price not to be had is None and `note` says why.

    `rented` is False where nothing is rented for the run, so that there is nothing to agree to;
    what is rented at no price, or at one that nobody could tell, is agreed to like any other.
    """

    price_per_hour: Decimal | None = None
    max_hours: Decimal | None = None
    max_cost: Decimal | None = None
    currency: str = "USD"
    note: str = ""
    rented: bool = True


FREE = Quote(
    rented=False,
    price_per_hour=Decimal(0),
    max_cost=Decimal(0),
    note="your own machine: nothing is rented",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a launch would do: exactly the request, the price, the layers that would end it.

    `request` is JSON-able and holds `<redacted:NAME>` in place of each secret. `format` is how it
    is shown to a person: `json`, or `yaml`, with all else in comments. `obstacle` is what kept
    the plan from being complete (no key, no network), and keeps a launch from beginning.
    """

    runner: str
    where: str
    request: object
    quote: Quote = FREE
    layers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    format: str = "json"
    obstacle: CvlError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something of ours out there that must not outlive its run.

    `name` is ours and carries the run id; `id` is the provider's, "" until it is known.
    `deadline` is UTC epoch seconds by the provider's clock. `alive` is False only when the
    provider was seen to say so: an unknown status is alive. `proven` is False for what only looks
    like ours, for it carries none of our tags: enough to see our own gone, not to judge by.
    `unclear` is an entry of the provider's list that cannot be read: while one is listed, nothing
    that it may be is gone.
    """

    kind: str
    name: str
    id: str = ""
    run_id: str = ""
    owner: str = ""
    deadline: float | None = None
    price_per_hour: Decimal | None = None
    alive: bool = True
    proven: bool = True
    unclear: bool = False
    note: str = ""


def new_run_id(example: str = "", *, now: float | None = None) -> str:
    """Return a fresh run id: at most 40 of `[a-z0-9-]`, sortable within a day, readable.

    It starts with the example's folder name so that `cvl ps` can be read, and ends with 40
    random bits. Valid as a DNS label (RFC 1123), and as a name with every provider.
    """
    words = re.findall(r"[a-z0-9]+", example.rsplit("/", 1)[-1].lower())
    stem = "-".join(words)[:17].strip("-") or "run"
    stamp = time.strftime("%m%d-%H%M%S", time.gmtime(now))
    return f"{stem}-{stamp}-{os.urandom(5).hex()}"
