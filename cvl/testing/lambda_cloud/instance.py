"""One rented instance: its states, what moves it from one to the next, how the API shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from cvl.testing.lambda_cloud import meter
from cvl.testing.lambda_cloud.catalog import InstanceType, Json, region
from cvl.testing.lambda_cloud.faults import Fault, What
from cvl.testing.lambda_cloud.hosts import Host


class Status(StrEnum):
    """The documented ones."""

    BOOTING = "booting"
    ACTIVE = "active"
    UNHEALTHY = "unhealthy"
    PREEMPTED = "preempted"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


_OVER = frozenset({Status.TERMINATING})
TRANSITIONS: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.BOOTING: _OVER | {Status.ACTIVE, Status.UNHEALTHY},
        Status.ACTIVE: _OVER | {Status.UNHEALTHY, Status.PREEMPTED, Status.BOOTING},
        Status.UNHEALTHY: _OVER | {Status.ACTIVE, Status.BOOTING},
        Status.PREEMPTED: _OVER,
        Status.TERMINATING: frozenset({Status.TERMINATED}),
        Status.TERMINATED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a launch asked for."""

    region: str
    type: InstanceType
    keys: tuple[str, ...]
    name: str | None = None
    hostname: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    file_systems: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    user_data: str = field(default="", repr=False)


@dataclass(slots=True, kw_only=True)
class Instance:
    """An instance from its launch on. Times are seconds of the cloud's monotonic clock."""

    id: str
    order: Order
    host: Host
    faults: Mapping[What, Fault]
    launched: float
    boots_at: float
    name: str | None = None
    status: Status = Status.BOOTING
    healthy: float | None = None
    ended: float | None = None
    gone_at: float | None = None
    hidden: int = 0
    moved: bool = False

    def become(self, status: Status) -> None:
        """Change the status; a change that the table does not allow is a bug of ours."""
        if status not in TRANSITIONS[self.status]:
            raise AssertionError(f"{self.id}: {self.status} -> {status}")
        self.status = status

    def advance(self, now: float) -> None:
        """Let happen what should have happened by `now`."""
        if self.status is Status.BOOTING:
            self._boot(now)
        if self.status is Status.ACTIVE:
            self._live(now)
        elif self.status is Status.UNHEALTHY:
            self._recover()
        elif self.status is Status.TERMINATING:
            self._end(now)

    def terminate(self, now: float, seconds: float) -> None:
        """Stop the meter, and be gone `seconds` later."""
        if self.status not in (Status.TERMINATING, Status.TERMINATED):
            self.become(Status.TERMINATING)
            self.ended = now if self.ended is None else self.ended
            self.gone_at = now + seconds
            self.host.destroy()

    def restart(self, now: float, seconds: float) -> None:
        """Boot anew; the meter runs on."""
        if self.status is not Status.BOOTING:
            self.become(Status.BOOTING)
        self.boots_at = now + seconds
        self.host.reboot()

    @property
    def costs(self) -> bool:
        """Whether it costs money, or will unless somebody terminates it."""
        return self.ended is None

    def bill(self, now: float) -> meter.Line:
        """Return its line on the bill."""
        end = now if self.ended is None else self.ended
        seconds = 0.0 if self.healthy is None else max(0.0, end - self.healthy)
        cents = self.order.type.cents
        return meter.Line(
            id=self.id,
            name=self.name or "",
            type=self.order.type.name,
            cents_per_hour=cents,
            launched=self.launched,
            started=self.healthy,
            ended=self.ended,
            seconds=seconds,
            minutes=meter.minutes(seconds),
            held=end - self.launched,
            cost=meter.cost(cents, meter.minutes(seconds)),
        )

    def json(self, now: float, *, can_terminate: bool) -> Json:
        """Return it as the API shows it."""
        shown: Json = {
            "id": self.id,
            "status": self.status.value,
            "ssh_key_names": list(self.order.keys),
            "file_system_names": list(self.order.file_systems),
            "region": region(self.order.region),
            "instance_type": self.order.type.json(),
            "actions": self._actions(can_terminate=can_terminate),
            "tags": [{"key": key, "value": value} for key, value in self.order.tags],
        }
        if self.name is not None:
            shown["name"] = self.name
        if self.order.hostname is not None:
            shown["hostname"] = self.order.hostname
        if self.order.mounts:
            pairs = self.order.mounts
            shown["file_system_mounts"] = [
                {"mount_point": point, "file_system_id": id_} for point, id_ in pairs
            ]
        if self._has_ip(now):
            shown["ip"] = shown["private_ip"] = self.host.address
        return shown

    def _recover(self) -> None:
        if What.UNHEALTHY in self.faults or self.host.ready_at is None:
            return
        if self.host.alive:
            self.become(Status.ACTIVE)

    def _end(self, now: float) -> None:
        if self.gone_at is not None and now >= self.gone_at:
            self.become(Status.TERMINATED)

    def _boot(self, now: float) -> None:
        ready = self.host.ready_at
        if What.NO_BOOT in self.faults or ready is None or now < self.boots_at:
            return
        if self.healthy is None:
            # An instance that boots into trouble is assumed to be billed as well.
            self.healthy = max(self.boots_at, ready)
        self.become(Status.UNHEALTHY if What.UNHEALTHY in self.faults else Status.ACTIVE)

    def _live(self, now: float) -> None:
        if self._since(What.PREEMPTED, now):
            self.become(Status.PREEMPTED)
            since = now if self.healthy is None else self.healthy
            self.ended = since + self.faults[What.PREEMPTED].delay
            self.host.power_cut()
        elif self.host.ready_at is not None and not self.host.alive:
            self.become(Status.UNHEALTHY)
        elif not self.moved and self._since(What.NEW_IP, now):
            self.moved = True
            self.host.move()

    def _since(self, what: What, now: float) -> bool:
        """Return whether a fault is due: `delay` after the instance became active."""
        fault = self.faults.get(what)
        return fault is not None and self.healthy is not None and now >= self.healthy + fault.delay

    def _has_ip(self, now: float) -> bool:
        if self.healthy is None or self.status in (Status.BOOTING, Status.TERMINATED):
            return False
        return What.NO_IP not in self.faults or self._since(What.NO_IP, now)

    def _actions(self, *, can_terminate: bool) -> Json:
        reasons = {
            Status.BOOTING: "vm-has-not-launched",
            Status.TERMINATING: "vm-is-terminating",
            Status.TERMINATED: "vm-is-terminating",
        }
        reason = reasons.get(self.status)
        free: Json = {"available": True}
        blocked: Json = {
            "available": False,
            "reason_code": reason,
            "reason_description": "The instance is not in a state that allows this.",
        }
        rest = blocked if reason else free
        booting = self.status is Status.BOOTING
        terminate = free if reason is None or (booting and can_terminate) else blocked
        names = ("migrate", "rebuild", "restart", "cold_reboot")
        return {**dict.fromkeys(names, rest), "terminate": terminate}
