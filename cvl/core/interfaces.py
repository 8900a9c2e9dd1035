"""The seams: what a provider, a running job, a cloud and a transport have to offer.

Everything above speaks only to these. What runs jobs as a service is a `Provider`
itself; what rents machines is a `Cloud`, and `rental.provider.Machines` makes a `Provider` of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, MethodType
from typing import IO, Protocol, TypeVar, runtime_checkable

from cvl.core.frozen import dataclass
from cvl.core.scope import Scope, Tell, silent
from cvl.core.spec import STOP_LIMIT, Cause, ExitStatus, JobSpec, LogChunk, Plan, Resource
from cvl.core.tags import Marks

Made = TypeVar("Made")


class Owner(Protocol):
    """Finds and ends what is ours out there, by name and tag alone: no local state needed.

    `listing_lag`: seconds after a create call in which what it made may not be listed yet.
    `unique`: the kinds of things whose ids no other account or cluster has.
    """

    name: str
    listing_lag: float
    unique: frozenset[str] = frozenset()

    def owned(self, kind: str = "") -> Iterable[Resource]:
        """Yield every resource (of that kind) that carries our tag, also those that are ending."""
        ...

    def destroy(self, resource: Resource) -> None:
        """Ask for the end of its billing. Already gone is success.

        A return proves nothing: gone is what `owned` no longer yields, or yields not alive.
        """
        ...


@runtime_checkable
class Identified(Protocol):
    """An owner that can tell whom it asks: which account, which cluster, which machine."""

    def identity(self) -> str:
        """Return what tells them from all others, in one line; no secrets. Raises `CvlError`."""
        ...

    def confirm(self, identity: str) -> None:
        """Raise `Elsewhere` unless it still asks whom `identity` names, as `identity` has said.

        Raises `CvlError` where that cannot be known now.
        """
        ...


class Reapable(Owner, Protocol):
    """An owner whose resources `cvl reap` may judge by their tags."""

    def now(self) -> float | None:
        """Return UTC epoch seconds by the provider's own clock (its HTTP `Date`), if it tells."""
        ...


class Leases(Protocol):
    """All of one run that must not outlive it, as whoever makes it sees them.

    The contract of each is with `cvl.cleanup.leases`, which keeps it.
    """

    def acquire(
        self,
        resource: Resource,
        create: Callable[[], str],
        *,
        in_doubt: Callable[[], None] = ...,
    ) -> Resource:
        """Note `resource`, then `create` it; return it with its id."""
        ...

    def held(self, kind: str) -> Resource | None:
        """Return what of that kind the run has already, None for nothing that it may use."""
        ...

    def ask(self, kind: str) -> None:
        """Ask once for the end of everything of that kind."""
        ...

    def until(self, seconds: float, room: float = 0.0, where: str = "") -> None:
        """Let the run last so many seconds from now, and `room` to end it."""
        ...

    def left(self) -> float | None:
        """Return the seconds that the run may still last, None for any number of them."""
        ...


class Execution(Protocol):
    """One job, running or ended. Closing lets go of it; it does not stop the job."""

    @property
    def handle(self) -> Mapping[str, str]:
        """All that `Provider.attach` needs, in any process, on any day. No secrets."""
        ...

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        """Yield the output that follows the cursor `after`, as it is produced.

        Reconnects by itself, at the byte where it was cut. Its end proves nothing: ask `poll`.
        Raises `LostContact` when it gives up.
        """
        ...

    def written(self, after: str = "") -> Iterator[LogChunk] | None:
        """Yield the output that follows the cursor `after` by now; None if it can but be followed.

        Raises `CvlError`, also while it is read.
        """
        ...

    def poll(self) -> ExitStatus | None:
        """Return how the job ended, or None while it has not. The only truth about the end."""
        ...

    def stop(self, grace: float, cause: Cause) -> None:
        """Ask the job to end: TERM, `grace` seconds, KILL; `cause` is what `poll` will tell.

        Returns before the job has ended; idempotent. Raises `Unreachable` when not delivered.
        """
        ...

    def fetch(self, into: Path, scope: Scope) -> None:
        """Bring everything new or changed into `into`. Raises `FetchError`; may be repeated."""
        ...

    def discard(self) -> None:
        """Remove what the run left behind over there, but its result: all of it is here now."""
        ...

    def close(self) -> None:
        """Let go: end our own processes and threads. The job is not touched; idempotent."""
        ...


class Observer(Protocol):
    """Hears what happens. Called from more than one thread; must not raise."""

    def phase(self, name: str, text: str) -> None:
        """A phase began or goes on: one word, and the rest for a person."""
        ...

    def output(self, chunk: LogChunk) -> None:
        """The job wrote something."""
        ...

    def warn(self, text: str) -> None:
        """Something that the user should know, though the run goes on."""
        ...


class Provider(Owner, Protocol):
    """Runs jobs somewhere.

    `guarded`: a job that has leases is to be ended should this process die, by a guardian; else
    whatever runs it ends it by itself, and what follows it only follows. `stop_limit`: seconds
    beyond the grace in which a stopped job has to be seen ended.
    """

    many_nodes: bool
    guarded: bool = True
    stop_limit: float = STOP_LIMIT

    @property
    def secrets(self) -> Mapping[str, str]:
        """What another process of ours needs beside a handle; travels only through pipes."""
        ...

    def plan(self, spec: JobSpec) -> Plan:
        """Return the exact request and its price. No side effects; needs no credentials."""
        ...

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> Execution:
        """Start the job. Whatever costs money is acquired through `leases`."""
        ...

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        """Return the handle that `launch` will have, known before anything is started."""
        ...

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> Execution:
        """Return the execution behind a handle: from another process, on another day.

        `tell(phase, text)` hears what is waited for.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A kind of machine that can be rented. GiB are 2**30 bytes; the price is of the whole.

    `vram_gib` is each GPU's, 0 where nobody says. `arch` is `amd64` or `arm64`.
    """

    type: str
    price_per_hour: Decimal
    gpus: int
    description: str = ""
    vram_gib: float = 0
    cpus: int = 0
    ram_gib: float = 0
    disk_gib: float = 0
    regions: tuple[str, ...] = ()
    arch: str = "amd64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One machine that is to be rented for one run.

    `owner` is the id of our ledger, `deadline` UTC epoch seconds. `host_key` is the private key
    that the machine is to have, `public_key` the one that may log in; in OpenSSH's format.
    """

    run_id: str
    owner: str
    offer: Offer
    region: str
    deadline: float
    host_key: str = field(repr=False)
    host_public_key: str
    public_key: str

    @property
    def marks(self) -> Marks:
        """Whose the machine is."""
        return Marks(run_id=self.run_id, owner=self.owner, deadline=self.deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One look at a rented machine.

    `state` is `booting`, `ready` (it has an `address`), `broken` (billed but of no use),
    `gone`, or `missing` (not listed, perhaps not yet); an unknown state of the provider is
    `booting`. `words` are the provider's own.
    """

    state: str
    address: str = ""
    words: str = ""


class Cloud(Reapable, Protocol):
    """Rents machines."""

    user: str
    boot_limit: float
    layers: tuple[str, ...]
    warnings: tuple[str, ...]
    secrets: Mapping[str, str]

    def offers(self) -> Sequence[Offer]:
        """Return what can be had at all, and where there is capacity now."""
        ...

    def request(self, order: Order) -> Mapping[str, object]:
        """Return exactly what `rent` would send, `<redacted:NAME>` for each secret."""
        ...

    def rent(self, order: Order, leases: Leases, scope: Scope) -> Resource:
        """Create the machine, and what it needs, through `leases`; return the machine."""
        ...

    def admitted(self, leases: Leases) -> None:
        """SSH works: release what was only needed to get in."""
        ...

    def look(self, resource: Resource) -> Machine:
        """Return the machine's state and address now. Raises `ProviderError`."""
        ...


class Process(Protocol):
    """A command that a transport has started: pipes, and an exit code on this side."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


@runtime_checkable
class Transport(Protocol):
    """Reaches one machine. Knows nothing of jobs or money."""

    @property
    def where(self) -> str:
        """The machine's name, for a person."""
        ...

    def start(self, argv: Sequence[str]) -> Process:
        """Run `argv` there, with pipes. Never with user data in it: that travels on stdin.

        Raises `MissingTool` when the client program is not installed here.
        """
        ...

    def failure(self, code: int, stderr: bytes) -> Exception | None:
        """Return what a finished process says of the connection, None if it was not that.

        `Unreachable` may pass and is worth a retry; `HostKeyError` and `AuthError` are not.
        """
        ...


MAY_LACK: Mapping[type, Sequence[str]] = MappingProxyType(
    {
        Owner: ("unique",),
        Provider: ("unique", "guarded", "stop_limit"),
        Execution: ("written",),
    }
)
"""What may be left out by another package that was written before there was such a thing."""


def completed(made: Made, seam: type) -> Made:
    """Give `made` what it may lack of a seam, as it stands there, and return it.

    It is called where what another package has made comes in, so that nobody behind has to ask.
    """
    for name in MAY_LACK[seam]:
        if not hasattr(made, name):
            default = getattr(seam, name)
            setattr(made, name, MethodType(default, made) if callable(default) else default)
    return made
