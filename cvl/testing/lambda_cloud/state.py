"""The cloud itself: what each operation of the API does to keys, instances and the bill.

Nothing happens in the background: every operation first lets happen what should have happened by
now, so that an injected clock decides everything.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cvl.testing.clock import Clock
from cvl.testing.faults import EVER
from cvl.testing.lambda_cloud import catalog
from cvl.testing.lambda_cloud.catalog import Json
from cvl.testing.lambda_cloud.faults import BOOT, Fault, Faults, What
from cvl.testing.lambda_cloud.hosts import Hosts
from cvl.testing.lambda_cloud.instance import Instance, Order, Status
from cvl.testing.lambda_cloud.meter import Bill
from cvl.testing.lambda_cloud.replies import INVALID, MISSING, ApiError
from cvl.testing.machine import Image, Ssh


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this cloud behaves. Seconds; a rate limit of 0 is none; no key is a random one."""

    key: str = ""
    request_interval: float = 1.0
    launch_interval: float = 12.0
    boot_seconds: float = 0.2
    terminate_seconds: float = 0.1
    linger_seconds: float = 60.0
    terminate_while_booting: bool = True
    quota: int = 1_000_000
    capacity: Mapping[tuple[str, str], int] | None = None
    duplicate_key_code: str = INVALID
    date_offset: float = 0.0
    hang_seconds: float = 600.0
    hosts: str = "none"
    seed: int = 0


class Cloud:
    """All that the provider knows. Safe in any thread."""

    def __init__(self, settings: Settings, clock: Clock, hosts: Hosts, faults: Faults) -> None:
        self.settings = settings
        self.faults = faults
        self._clock = clock
        self.hosts = hosts
        self.lock = threading.RLock()
        self.instances: dict[str, Instance] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new account."""
        with self.lock:
            for instance in self.instances.values():
                instance.host.destroy()
            self.instances = {}
            self.account = secrets.token_hex(16)
            self.keys: dict[str, Json] = {}
            self.created_keys: list[str] = []
            self.file_systems: dict[str, Json] = {}
            self._later: list[tuple[float, Callable[[], object]]] = []
            given = self.settings.capacity
            self._capacity = dict(catalog.CAPACITY if given is None else given)

    def advance(self) -> float:
        """Let happen what should have happened by now; return now."""
        with self.lock:
            now = self._clock.monotonic()
            due = [work for at, work in self._later if at <= now]
            self._later = [(at, work) for at, work in self._later if at > now]
            for work in due:
                work()
            for instance in self.instances.values():
                instance.advance(now)
            return now

    def now(self) -> float:
        """Return the cloud's monotonic clock."""
        return self._clock.monotonic()

    def utc(self) -> float:
        """Return the cloud's idea of the time, as its HTTP `Date` tells it."""
        return self._clock.time() + self.settings.date_offset

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do `work` that much later, before anything that comes after it."""
        with self.lock:
            self._later.append((self._clock.monotonic() + seconds, work))

    def bill(self) -> Bill:
        """Return the bill up to now."""
        with self.lock:
            now = self.advance()
            return Bill(lines=tuple(each.bill(now) for each in self.instances.values()))

    def alive(self) -> list[Instance]:
        """Return the instances that cost money, or will."""
        with self.lock:
            self.advance()
            return [each for each in self.instances.values() if each.costs]

    def find(self, id_: str) -> Instance:
        """Return a listed instance. Raises `ApiError` 404."""
        found = [each for each in self.listed() if each.id == id_]
        if not found:
            raise ApiError(404, MISSING)
        return found[0]

    def listed(self) -> list[Instance]:
        """Return the instances that the API still knows, those that have long ended left out."""
        now, linger = self._clock.monotonic(), self.settings.linger_seconds
        return [
            each
            for each in self.instances.values()
            if each.status is not Status.TERMINATED
            or each.gone_at is None
            or now < each.gone_at + linger
        ]

    def show(self, instance: Instance) -> Json:
        """Return an instance as the API shows it."""
        now = self._clock.monotonic()
        return instance.json(now, can_terminate=self.settings.terminate_while_booting)

    def free(self, type_: str, region: str) -> int:
        """Return how many of a type can be launched in a region now."""
        used = [
            each
            for each in self.instances.values()
            if each.status is not Status.TERMINATED
            and (each.order.type.name, each.order.region) == (type_, region)
        ]
        return self._capacity.get((type_, region), 0) - len(used)

    def create(self, order: Order) -> Instance:
        """Make an instance; it boots at once, with what is armed to go wrong."""
        now = self._clock.monotonic()
        plan = self.faults.take_all("launchInstance", BOOT)
        faults = {fault.what: fault for fault in plan}
        host = self.hosts.new(self._image(order, faults))
        host.power_on()
        instance = Instance(
            id=secrets.token_hex(16),
            order=order,
            host=host,
            faults=faults,
            name=order.name,
            launched=now,
            boots_at=now + self.settings.boot_seconds,
            hidden=faults[What.HIDDEN].count if What.HIDDEN in faults else 0,
        )
        self.instances[instance.id] = instance
        return instance

    def _image(self, order: Order, faults: Mapping[What, Fault]) -> Image:
        trouble = faults.get(What.NO_SSH) or faults.get(What.OTHER_KEY)
        ssh, seconds = Ssh.NORMAL, 0.0
        if trouble is not None:
            seconds = trouble.delay
            ssh = Ssh.OTHER_KEY if trouble.what is What.OTHER_KEY else Ssh.LATE
            ssh = Ssh.NO if seconds >= EVER else ssh
        keys = [str(key["public_key"]) for key in self.keys.values() if key["name"] in order.keys]
        return Image(
            authorized=tuple(keys),
            user_data=order.user_data,
            hostname=order.hostname or "lambda",
            ssh=ssh,
            ssh_seconds=seconds,
        )
