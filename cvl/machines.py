"""Turns any `Cloud` into a `Provider`: rent, wait for SSH, run, and the machine is gone.

What runs on the machine is the same supervisor as on a machine of the user's own. New here are
only the price, the deadline, the keys of one run, and the wait for a machine to come up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from threading import Thread

from cvl.errors import CvlError, HostError, NoCapacity, NotReady, Unreachable
from cvl.keys import RunKeys
from cvl.leases import HOUR, UNSEEN, Leases, cost
from cvl.ledger import Ledger
from cvl.offers import choose
from cvl.paths import ledger_file
from cvl.provider import Cloud, Machine, Offer, Order
from cvl.remote import launch
from cvl.remote.far import FarSide
from cvl.remote.job import RemoteJob
from cvl.remote.launch import Setup
from cvl.runlog import run_folder
from cvl.scope import DeadlineExceeded, Scope
from cvl.spec import (
    Cause,
    ExitStatus,
    JobSpec,
    Limits,
    LogChunk,
    Plan,
    Quote,
    Resource,
    ended,
)
from cvl.transports.openssh import OpenSSH

BUILD_LIMIT = 3600.0
"""Seconds that building an image may take, when the deadline is reckoned."""
NO_LIMIT = 24 * 3600.0
"""Seconds after which a machine is ended when neither time nor money was limited."""
CAPACITY_PAUSE = 20.0
"""Seconds between two looks for capacity."""
LOOKS = (0.2, 0.5, 1.0, 2.0, 3.0, 5.0)
"""Seconds between two looks at a booting machine; the last one repeats."""
KIND = "instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """How long a machine may live: seconds from its creation, and why just so long."""

    seconds: float
    why: str


def deadline_of(limits: Limits, price: Decimal, boot: float, *, builds: bool) -> Deadline:
    """Return boot + build + timeout + grace + fetch, or what the money buys if that is less."""
    if limits.timeout is None:
        found = Deadline(seconds=NO_LIMIT, why="no --timeout was given")
    else:
        build = BUILD_LIMIT if builds else 0.0
        total = boot + build + limits.timeout + limits.grace + limits.fetch
        found = Deadline(seconds=total, why="the timeout, with room to boot, build and fetch")
    if limits.max_cost is not None and price > 0:
        bought = float(limits.max_cost / price * HOUR)
        if bought < found.seconds or limits.timeout is None:
            found = Deadline(seconds=bought, why=f"--max-cost {limits.max_cost}")
    return found


class Machines:
    """The `Provider` that rents one machine for one run."""

    many_nodes = False

    def __init__(
        self,
        cloud: Cloud,
        *,
        kind: str | None = None,
        region: str | None = None,
        patience: float = 0.0,
        setup: Setup = Setup(),  # noqa: B008 - a frozen value
    ) -> None:
        """`kind` None: the cheapest that will do. `patience`: seconds to wait for capacity."""
        self.name, self.settle = cloud.name, cloud.settle
        self._cloud, self._setup = cloud, setup
        self._kind, self._region, self._patience = kind, region, patience
        self._chosen: tuple[Offer, str] | None = None

    @property
    def secrets(self) -> Mapping[str, str]:
        return self._cloud.secrets

    def plan(self, spec: JobSpec) -> Plan:
        offer, region = self._offer(spec)
        limit = self._deadline(spec, offer)
        order = self._order(spec, RunKeys.redacted(), limit)
        return Plan(
            runner=self.name,
            where=f"{offer.type} in {region}",
            request=self._cloud.request(order),
            quote=Quote(
                price_per_hour=offer.price_per_hour,
                max_hours=(Decimal(str(limit.seconds)) / HOUR).quantize(Decimal("0.01")),
                max_cost=cost(offer.price_per_hour, limit.seconds),
                note=f"ends at the latest after {limit.seconds / 3600:.1f} h: {limit.why}",
            ),
            layers=self._cloud.layers,
            warnings=self._cloud.warnings,
        )

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {
            "run": spec.run_id,
            "base": "",
            "place": launch.place(spec, self._setup),
            "image": spec.image or "",
            "machine": machine_name(spec.run_id),
        }

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> RentedJob:
        offer, _region = self._waited_for(spec, scope)
        keys = RunKeys.made(run_folder(spec.run_id) / "ssh")
        machine = self._cloud.rent(
            self._order(spec, keys, self._deadline(spec, offer)), leases, scope
        )
        address = self._booted(machine, scope)
        far = FarSide(self._transport(spec.run_id, address))
        self._let_in(far, scope)
        handle = {**self.handle(spec), "id": machine.id, "address": address}
        job = launch.start(far, spec, handle, self._setup, scope)
        # beside the job's output, not before it: it takes some seconds of the rate limit
        Thread(target=self._admitted, args=(leases, scope), daemon=True).start()
        return RentedJob(job, self._cloud, machine)

    def attach(self, handle: Mapping[str, str]) -> RentedJob:
        machine = Resource(kind=KIND, name=handle["machine"], id=handle.get("id", ""))
        address = handle.get("address", "")
        if not address:
            machine, address = self._found(machine)
        far = FarSide(self._transport(handle["run"], address))
        return RentedJob(RemoteJob(far, handle), self._cloud, machine)

    def owned(self, kind: str = "") -> Iterable[Resource]:
        return self._cloud.owned(kind)

    def destroy(self, resource: Resource) -> None:
        self._cloud.destroy(resource)

    def _offer(self, spec: JobSpec) -> tuple[Offer, str]:
        if self._chosen is None:
            self._chosen = choose(
                self._cloud.offers(), spec.needs, kind=self._kind, region=self._region
            )
        return self._chosen

    def _waited_for(self, spec: JobSpec, scope: Scope) -> tuple[Offer, str]:
        """Return what to rent; while there is none, keep looking for as long as was asked."""
        scope = scope.within(self._patience)
        while True:
            try:
                return self._offer(spec)
            except NoCapacity as error:
                scope.tell("waiting", str(error))
                try:
                    scope.sleep(CAPACITY_PAUSE)
                except DeadlineExceeded:
                    raise error from None

    def _admitted(self, leases: Leases, scope: Scope) -> None:
        try:
            self._cloud.admitted(leases)
        except CvlError as error:
            scope.tell("waiting", str(error))  # its line is open; the last release ends it

    def _deadline(self, spec: JobSpec, offer: Offer) -> Deadline:
        return deadline_of(
            spec.limits, offer.price_per_hour, self._cloud.boot_limit, builds=bool(spec.build)
        )

    def _order(self, spec: JobSpec, keys: RunKeys, limit: Deadline) -> Order:
        offer, region = self._offer(spec)
        return Order(
            run_id=spec.run_id,
            owner=Ledger(ledger_file()).id(),
            offer=offer,
            region=region,
            deadline=self._cloud.now() + limit.seconds,
            host_key=keys.host_key,
            host_public_key=keys.host_public_key,
            public_key=keys.public_key,
        )

    def _booted(self, machine: Resource, scope: Scope) -> str:
        """Return the machine's address once it is ready. Raises `NotReady` if it never will be."""
        scope = scope.within(self._cloud.boot_limit)
        unseen = scope.clock.monotonic() + self._cloud.settle
        attempt = 0
        while True:
            look = self._look(machine)
            if look.state == "ready":
                return look.address
            late = look.state == "missing" and scope.clock.monotonic() > unseen
            if look.state in {"broken", "gone"} or late:
                raise NotReady(f"{machine.name} did not come up: it is {look.words}")
            scope.tell("booting", f"{machine.name} is {look.words}")
            try:
                scope.sleep(LOOKS[min(attempt, len(LOOKS) - 1)])
            except DeadlineExceeded as error:
                limit = self._cloud.boot_limit / 60
                raise NotReady(f"{machine.name} did not come up in {limit:.0f} minutes") from error
            attempt += 1

    def _look(self, machine: Resource) -> Machine:
        try:
            return self._cloud.look(machine)
        except CvlError as error:
            return Machine(state="booting", words=f"not to be seen ({error})")

    def _let_in(self, far: FarSide, scope: Scope) -> None:
        """Wait until SSH works. While it boots, another host key only means "not ready yet"."""
        scope = scope.within(self._cloud.boot_limit)
        attempt = 0
        while True:
            try:
                far.ask("status", [("id", "none")])
                return
            except HostError as error:
                scope.tell("booting", str(error))
                try:
                    scope.sleep(LOOKS[min(attempt, len(LOOKS) - 1)])
                except DeadlineExceeded:
                    raise error from None
            attempt += 1

    def _transport(self, run_id: str, address: str) -> OpenSSH:
        keys = RunKeys.at(run_folder(run_id) / "ssh")
        keys.pin(address)
        return OpenSSH(
            address,
            user=self._cloud.user,
            key=keys.path,
            known_hosts=keys.known_hosts,
            config=os.devnull,
        )

    def _found(self, machine: Resource) -> tuple[Resource, str]:
        for each in self._cloud.owned(KIND):
            if each.name == machine.name and each.alive:
                look = self._cloud.look(each)
                if look.state == "ready":
                    return each, look.address
        raise NotReady(f"{machine.name} is not there, or not up")


class RentedJob:
    """A job on a machine that may itself go away: then nobody waits for it any longer."""

    def __init__(self, job: RemoteJob, cloud: Cloud, machine: Resource) -> None:
        self._job, self._cloud, self._machine = job, cloud, machine
        self._missing = 0

    @property
    def handle(self) -> Mapping[str, str]:
        return self._job.handle

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        self._job.while_away = self._check
        return self._job.chunks(after)

    def poll(self) -> ExitStatus | None:
        try:
            return self._job.poll()
        except Unreachable:
            if gone := self._gone():
                return ended(Cause.LOST, run_id=self.handle["run"], detail=gone)
            raise

    def stop(self, grace: float, cause: Cause) -> None:
        self._job.stop(grace, cause)

    def fetch(self, into: Path, scope: Scope) -> None:
        self._job.fetch(into, scope)

    def discard(self) -> None:
        """Nothing to tidy up: the machine itself goes."""

    def close(self) -> None:
        self._job.close()

    def _check(self) -> None:
        if gone := self._gone():
            raise NotReady(f"{self._machine.name}: {gone}")

    def _gone(self) -> str:
        """Return what became of the machine if it is no longer of use, else ""."""
        try:
            look = self._cloud.look(self._machine)
        except CvlError:
            return ""
        self._missing = self._missing + 1 if look.state == "missing" else 0
        over = look.state in {"gone", "broken"} or self._missing >= UNSEEN
        return f"the machine is {look.words}" if over else ""


def machine_name(run_id: str) -> str:
    """Return the name of a run's machine: ours, and it carries the run id (at most 64)."""
    return f"cvl-{run_id}"
