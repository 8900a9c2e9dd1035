"""Instances that are real machines, each with its own address, and the API within reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from socket import socket

from cvl.testing.clock import Clock
from cvl.testing.lambda_cloud.hosts import Host, Worker
from cvl.testing.machine import Image, Machine
from cvl.testing.network import Network

BOOT_LIMIT = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The API's own port, served on every machine's loopback as well.

    So one and the same URL works for a client here and for a dead man's switch there. `serve`
    takes over a listening socket and returns what ends that.
    """

    port: int
    serve: Callable[[socket], Callable[[], None]]


class RealHosts:
    """Builds machines behind one switch."""

    kind = "machine"

    def __init__(self, clock: Clock, door: Door | None = None) -> None:
        self._clock = clock
        self._door = door
        self._network = Network()
        self._all: list[RealHost] = []

    @property
    def errors(self) -> list[str]:
        return [host.worker.error for host in self._all if host.worker.error]

    def new(self, image: Image) -> Host:
        host = RealHost(Worker(self._clock), self._network, image, self._door)
        self._all.append(host)
        return host

    def close(self) -> None:
        for host in self._all:
            host.destroy()
        for host in self._all:
            host.worker.join()
        self._network.close()


class RealHost:
    """One of them. `machine` is None until it is built."""

    def __init__(self, worker: Worker, network: Network, image: Image, door: Door | None) -> None:
        self.worker = worker
        self.machine: Machine | None = None
        self._network, self._image, self._door = network, image, door
        self._shut: Callable[[], None] | None = None

    @property
    def address(self) -> str:
        return self.machine.address if self.machine else ""

    @property
    def ready_at(self) -> float | None:
        return self.worker.ready_at

    @property
    def alive(self) -> bool:
        return self.machine is not None and self.machine.on

    def power_on(self) -> None:
        self.worker.boot(self._on)

    def power_cut(self) -> None:
        if self.machine is not None:
            self.worker.do(self.machine.power_cut)

    def reboot(self) -> None:
        if self.machine is not None:
            self.worker.boot(self._off_and_on)

    def move(self) -> None:
        if self.machine is not None:
            self.worker.do(self._move)

    def destroy(self) -> None:
        self.worker.do(self._destroy, last=True)

    def _on(self) -> None:
        if self.machine is None:
            self.machine = Machine(self._network, self._image)
            if self._door is not None:
                self._shut = self._door.serve(self.machine.listen(self._door.port))
        self.machine.power_on()
        self.machine.wait_up(BOOT_LIMIT)

    def _off_and_on(self) -> None:
        if self.machine is not None:
            self.machine.reboot()
            self.machine.wait_up(BOOT_LIMIT)

    def _move(self) -> None:
        if self.machine is not None:
            self.machine.move(self._network.address())

    def _destroy(self) -> None:
        if self._shut is not None:
            self._shut()
        if self.machine is not None:
            self.machine.destroy()
