"""Turns any `Cloud` into a `Provider`: rent, wait for SSH, run, and the machine is gone.

What runs on the machine is the same supervisor as on a machine of the user's own. New here are
only the price, the deadline, the keys of one run, and the wait for a machine to come up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from threading import Thread

from cvl.cleanup.leases import HOUR, cost
from cvl.core import identity as whose
from cvl.core.errors import CvlError, HostError, NoCapacity, NotReady, explained
from cvl.core.interfaces import Cloud, Leases, Machine, Offer, Order, Owner, completed
from cvl.core.paths import ledger_file
from cvl.core.scope import DeadlineExceeded, Scope, Tell, silent
from cvl.core.spec import STOP_LIMIT, JobSpec, Plan, Quote, Resource
from cvl.core.tags import name_of
from cvl.core.units import elapsed
from cvl.host import launch
from cvl.host.job import RemoteJob
from cvl.host.launch import Setup
from cvl.host.rpc import FarSide
from cvl.ledger import Ledger
from cvl.rental import job as rented
from cvl.rental.choice import Choice, Market
from cvl.rental.deadline import Deadline, deadline_of, too_little
from cvl.rental.job import RentedJob
from cvl.rental.keys import RunKeys
from cvl.rental.offers import runs
from cvl.run.log import run_folder

LOOKS = (0.2, 0.5, *(1.0,) * 60, 2.0)
"""Seconds between two looks at a booting machine; the last one repeats. It costs from the moment
that it is up: what we see late is paid for."""
LOOK_AGAIN = 5
"""Attempts to log in after which the machine itself is looked at again."""
LOGIN_LIMIT = 30.0
"""Seconds that a machine may take to answer the first question; then it is asked again."""
KIND = "instance"
ELSEWHERE = "in another region if there is none left, at no higher price"
AMD64_ONLY = "an image or a program for amd64 does not run there"
UNVERIFIED = "--accept-new-host-key: whoever answers first at the machine's address is taken for it"


class Machines:
    """The `Provider` that rents one machine for one run."""

    many_nodes = False
    guarded = True
    stop_limit = STOP_LIMIT

    def __init__(
        self,
        cloud: Cloud,
        *,
        kind: str | None = None,
        region: str | None = None,
        patience: float = 0.0,
        accept_new_host_key: bool = False,
        setup: Setup = Setup(),  # noqa: B008 - a frozen value
    ) -> None:
        """`kind` None: the cheapest that will do. `patience`: seconds to wait for capacity.

        `accept_new_host_key`: of an image that does not take the host key that we made.
        """
        cloud = completed(cloud, Owner)
        self.name, self.listing_lag, self.unique = cloud.name, cloud.listing_lag, cloud.unique
        self._cloud, self._setup = cloud, setup
        self._accept_new = accept_new_host_key
        self._key = os.urandom(16)
        self._anywhere = region is None
        self._market = Market(cloud.offers, kind=kind, region=region, patience=patience)

    @property
    def secrets(self) -> Mapping[str, str]:
        return self._cloud.secrets

    def identity(self) -> str:
        return whose.of(self._cloud)

    def confirm(self, identity: str) -> None:
        whose.confirm(self._cloud, identity)

    def plan(self, spec: JobSpec) -> Plan:
        choice = self._market.planned(spec.needs)
        limit = self._deadline(spec, choice.offer)
        order = self._order(spec, choice, RunKeys.redacted(), limit)
        price = None if choice.obstacle else choice.offer.price_per_hour
        parts = [f"ends at the latest after {limit.seconds / 3600:.1f} h: {limit.why}"]
        parts += [ELSEWHERE] if self._anywhere and not choice.obstacle else []
        note = "; ".join([*parts, *filter(None, [choice.note])])
        if choice.obstacle:
            note = f"not known: {explained(choice.obstacle)}; {note}"
        return Plan(
            runner=self.name,
            where=where_of(choice),
            request=self._cloud.request(order),
            quote=Quote(
                price_per_hour=price,
                max_hours=(Decimal(str(limit.seconds)) / HOUR).quantize(Decimal("0.01")),
                max_cost=None if price is None else cost(price, limit.seconds),
                note=note,
            ),
            layers=self._cloud.layers,
            warnings=(
                *self._cloud.warnings,
                *((UNVERIFIED,) if self._accept_new else ()),
                *self._unfit(spec, choice.offer),
                *too_little(spec.limits, choice.offer.price_per_hour),
            ),
            obstacle=choice.obstacle,
        )

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {
            "run": spec.run_id,
            "seal": launch.seal(self._key, spec.run_id),
            "base": "",
            "place": launch.example_folder(spec, self._setup),
            "image": spec.image or "",
            "machine": name_of(spec.run_id),
        }

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> RentedJob:
        rented.check()
        keys = RunKeys.made(run_folder(spec.run_id) / "ssh", accept_new=self._accept_new)
        machine = self._rented(spec, keys, leases, scope)
        scope = scope.within(leases.left())
        far, address = self._up(machine, scope)
        # beside the job's start, not before it: it takes some seconds of the rate limit
        Thread(target=self._admitted, args=(leases, scope), daemon=True).start()
        handle = {**self.handle(spec), "id": machine.id, "address": address}
        job = launch.start(far, spec, handle, self._setup, scope)
        return RentedJob(job, far, self._cloud, machine)

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> RentedJob:
        machine = Resource(kind=KIND, name=handle["machine"], id=handle.get("id", ""))
        address = handle.get("address", "")
        if not address:
            machine, address = self._found(machine, whose.noted(handle))
        far = rented.reach(self._cloud.user, handle["run"], address)
        job = RemoteJob(far, {**handle, "id": machine.id, "address": address}, tell=tell)
        return RentedJob(job, far, self._cloud, machine)

    def owned(self, kind: str = "") -> Iterable[Resource]:
        return self._cloud.owned(kind)

    def destroy(self, resource: Resource) -> None:
        self._cloud.destroy(resource)

    def _unfit(self, spec: JobSpec, offer: Offer) -> tuple[str, ...]:
        """Return what a type lacks that was named all the same."""
        words = []
        if not runs(offer, spec.needs):
            words.append(f"{offer.type} is an {offer.arch} machine: {AMD64_ONLY}")
        if 0 < offer.vram_gib < spec.needs.vram_gb and spec.needs.gpus <= 1:
            each = f"{offer.vram_gib:g} GB of GPU memory, and {spec.example} asks for"
            words.append(f"{offer.type} has {each} {spec.needs.vram_gb:g} GB")
        return tuple(words)

    def _rented(self, spec: JobSpec, keys: RunKeys, leases: Leases, scope: Scope) -> Resource:
        """Rent a machine: where there is one, for as long as was asked, at the price agreed to.

        What is listed as free may be taken by the time that we ask: then elsewhere, or later.
        """
        for choice in self._market.choices(spec.needs, scope):
            limit = self._deadline(spec, choice.offer)
            leases.until(limit.seconds - limit.room, limit.room, where_of(choice))
            order = self._order(spec, choice, keys, limit)
            try:
                return self._cloud.rent(order, leases, scope.within(leases.left()))
            except NoCapacity as error:
                waits = self._market.taken(choice, error)
                leases.until(waits + limit.seconds - limit.room, limit.room)
        raise AssertionError

    def _admitted(self, leases: Leases, scope: Scope) -> None:
        try:
            self._cloud.admitted(leases)
        except CvlError as error:
            scope.tell("waiting", str(error))  # its line is open; the last release ends it

    def _deadline(self, spec: JobSpec, offer: Offer) -> Deadline:
        return deadline_of(
            spec.limits, offer.price_per_hour, self._cloud.boot_limit, builds=bool(spec.build)
        )

    def _order(self, spec: JobSpec, choice: Choice, keys: RunKeys, limit: Deadline) -> Order:
        there = None if choice.obstacle else self._cloud.now()
        now = time.time() if there is None else there
        return Order(
            run_id=spec.run_id,
            owner=Ledger(ledger_file()).id(),
            offer=choice.offer,
            region=choice.region,
            deadline=now + limit.seconds,
            host_key=keys.host_key,
            host_public_key=keys.host_public_key,
            public_key=keys.public_key,
        )

    def _up(self, machine: Resource, scope: Scope) -> tuple[FarSide, str]:
        """Return the way to the machine, once it lets us in, and its address.

        While it boots, another host key only means "not ready yet". Raises `NotReady` if it never
        will be.
        """
        scope = scope.within(self._cloud.boot_limit)
        began = scope.clock.monotonic()
        listed_by = began + self._cloud.listing_lag
        far, address, words = None, "", ""
        for attempt in scope.attempts(LOOKS):
            if far is None or attempt.number % LOOK_AGAIN == 0:
                look = self._look(machine)
                late = look.state == "missing" and scope.clock.monotonic() > listed_by
                if look.state in {"broken", "gone"} or late:
                    raise NotReady(f"{machine.name} did not come up: it is {look.words}")
                words = f"{machine.name} is {look.words}"
                if look.state == "ready" and look.address != address:
                    address = look.address
                    far = rented.reach(self._cloud.user, machine.run_id, address)
            if far and not (words := self._refused(far, scope)):
                return far, address
            scope.tell("booting", words)
        waited = elapsed(scope.clock.monotonic() - began)
        raise NotReady(f"{machine.name} did not come up within {waited}: {words}")

    def _refused(self, far: FarSide, scope: Scope) -> str:
        """Return why the machine does not let us in, "" if it does. Raises `Cancelled`."""
        try:
            far.ask("status", [("id", "none")], scope=scope.within(LOGIN_LIMIT))
        except HostError as error:
            return str(error)
        except DeadlineExceeded:
            return f"{far.transport.where} takes the connection, and does not answer"
        return ""

    def _look(self, machine: Resource) -> Machine:
        try:
            return self._cloud.look(machine)
        except CvlError as error:
            return Machine(state="booting", words=f"not to be seen ({error})")

    def _found(self, machine: Resource, identity: str) -> tuple[Resource, str]:
        for each in self._cloud.owned(KIND):
            if each.name == machine.name and each.alive:
                look = self._cloud.look(each)
                if look.state == "ready":
                    return each, look.address
        self.confirm(identity)
        raise NotReady(f"{machine.name} is not there, or not up")


def where_of(choice: Choice) -> str:
    """Return where a run goes, for a person."""
    return f"{choice.offer.type} in {choice.region}"
