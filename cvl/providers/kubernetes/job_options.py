"""What is asked of a cluster for one run, checked as far as that needs nobody else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import field

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.request_template import Template
from cvl.core.spec import JobSpec, Limits

DAY = 86400
NO_LIMIT = DAY
"""Seconds that a job may run when nobody gave a limit."""
START_LIMIT = float(DAY)
"""Seconds that a job may wait for its start, unless said otherwise."""
AFTER_TERM = 30
"""Seconds that results wait after TERM with nobody in sight who wants them."""
START_OF_FETCH = 60
"""Seconds from a job's end until its results begin to be fetched, and from TERM to its trap."""
SPARE = 600
"""Seconds after its last moment for a cluster to be done with a run."""
GPU = "nvidia.com/gpu"
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?\Z")
"""Kubernetes' resource.Quantity, without its exponents."""
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
PULL_POLICY = "IfNotPresent"
POLICIES = ("Always", PULL_POLICY, "Never")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the user asks for. `start_limit` is in seconds; quantities are Kubernetes' own.

    `volumes` maps a path in the container to the PersistentVolumeClaim that is mounted there.
    """

    namespace: str = "default"
    image: str = ""
    gpu: int = 0
    gpu_resource: str = GPU
    memory: str = ""
    cpu: str = ""
    disk: str = ""
    shm: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    pull_secrets: tuple[str, ...] = ()
    pull_policy: str = PULL_POLICY
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    start_limit: float = START_LIMIT
    template: Template | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for what the API server would refuse."""
        if not LABEL.match(self.namespace):
            raise UsageError(f"{self.namespace!r} is no namespace", "small letters, digits and -")
        if self.gpu < 0:
            raise UsageError(f"--gpu {self.gpu}: less than none", "give a number of GPUs")
        for flag in ("memory", "cpu", "disk", "shm"):
            if (amount := getattr(self, flag)) and not QUANTITY.match(amount):
                raise UsageError(
                    f"--{flag} {amount}: no quantity of Kubernetes", "write 8Gi, 500Mi, 2 or 500m"
                )
        if self.pull_policy not in POLICIES:
            raise UsageError(
                f"--pull-policy {self.pull_policy} is none", f"there are: {', '.join(POLICIES)}"
            )


def runtime(limits: Limits) -> int:
    """Return the seconds that the job may run. Raises `UsageError`."""
    if limits.max_cost is not None:
        raise UsageError(
            "--max-cost needs a price, and a cluster has none", "leave it out and give --timeout"
        )
    return NO_LIMIT if limits.timeout is None else max(math.ceil(limits.timeout), 1)


def lifetime(options: JobOptions, limits: Limits) -> int:
    """Return the seconds after which Kubernetes ends the Job, started or not."""
    return runtime(limits) + math.ceil(options.start_limit)


def hold(limits: Limits) -> int:
    """Return the seconds that results wait in their pod: as long as a fetch may last, and a bit."""
    return math.ceil(limits.fetch) + START_OF_FETCH


def leave(spec: JobSpec) -> int:
    """Return the seconds between TERM and KILL: the job's grace, and time to collect results."""
    grace = math.ceil(spec.limits.grace)
    return grace + hold(spec.limits) if spec.source else max(grace, 1)


def ends(options: JobOptions, spec: JobSpec, now: float) -> float:
    """Return the UTC epoch second by which nothing of the run is there in any case."""
    return now + lifetime(options, spec.limits) + leave(spec) + SPARE


def pairs(words: Iterable[str], flag: str) -> dict[str, str]:
    """Return `KEY=VALUE` words as a mapping. Raises `UsageError`."""
    values = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UsageError(f"{flag} {word!r} is not KEY=VALUE", f"write {flag} KEY=VALUE")
        values[key] = value
    return values


def mounts(words: Iterable[str]) -> dict[str, str]:
    """Return `CLAIM:/PATH` words as path to claim. Raises `UsageError`."""
    claims = {}
    for word in words:
        claim, _, path = word.partition(":")
        if not (claim and path.startswith("/")):
            raise UsageError(f"--volume {word!r} is not CLAIM:/PATH", "write --volume data:/data")
        claims[path] = claim
    return claims
