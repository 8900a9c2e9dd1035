"""The pods' network: one internal bridge of the engine, an address for each pod, and its DNS."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from cvl.testing.kubernetes.deleting import ENDED
from cvl.testing.kubernetes.engine_api import EngineApi, EngineError
from cvl.testing.kubernetes.objects import Obj, at, holds, labels_of, meta, name_of
from cvl.testing.kubernetes.resources import PODS, SERVICES
from cvl.testing.kubernetes.store import Store

DOMAIN = "cluster.local"
TRIES = 64
NOTHING, NO_NAME = 0, 3
A = 1
TTL = 5
"""Seconds."""


class PodNetwork:
    """An internal network on the engine: pods reach each other, and nothing else."""

    def __init__(self, engine: EngineApi, store: Store) -> None:
        """Raises `EngineError`, `OSError` when no subnet is free."""
        self._engine = engine
        self._lock = threading.Lock()
        self.name = f"cvl-kube-{secrets.token_hex(4)}"
        self._subnet = self._create()
        hosts = self._subnet.hosts()
        self.gateway = str(next(hosts))
        self._free = [str(address) for address in hosts][::-1]
        self._dns = Dns(self.gateway, lambda name: addresses(store, name))

    def take(self) -> str:
        """Return an address that nobody has. Raises `OSError` if there is none."""
        with self._lock:
            if not self._free:
                raise OSError("no address is free")
            return self._free.pop()

    def give_back(self, address: str) -> None:
        """Let others have it; those that were free longest come first."""
        with self._lock:
            self._free.insert(0, address)

    def resolver(self, namespace: str) -> str:
        """Return the resolv.conf of a namespace's pods."""
        search = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
        return f"nameserver {self.gateway}\nsearch {search}\noptions ndots:5\n"

    def close(self) -> None:
        self._dns.close()
        self._engine.call("DELETE", f"/networks/{self.name}")

    def _create(self) -> ipaddress.IPv4Network:
        error = ""
        for attempt in range(TRIES):
            third = (os.getpid() + attempt) % TRIES * 4
            subnet = ipaddress.IPv4Network(f"198.19.{third}.0/22")
            if _taken(str(subnet[1])):
                continue
            config = [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]
            wanted = {"Name": self.name, "Internal": True, "IPAM": {"Config": config}}
            try:
                self._engine.do("POST", "/networks/create", wanted)
            except EngineError as refusal:
                error = refusal.message
                continue
            return subnet
        raise OSError(f"no subnet is free for pods: {error}")


def _taken(gateway: str) -> bool:
    """Return whether somebody on this machine has that address: another engine, say."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((gateway, 0))
        except OSError:
            return False
    return True


def addresses(store: Store, name: str) -> list[str]:
    """Return the addresses of a name: those of the pods behind a headless service.

    https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
    """
    suffix = f".svc.{DOMAIN}"
    if not name.endswith(suffix):
        return []
    *pod, service, namespace = name.removesuffix(suffix).split(".")[-3:]
    found = store.find(SERVICES, namespace, service)
    if found is None:
        return []
    return [
        at(each, "status", "podIP")
        for each in _behind(store, found)
        if not pod or (_hostname(each) == pod[0] and at(each, "spec", "subdomain") == service)
    ]


def _behind(store: Store, service: Obj) -> Iterator[Obj]:
    """Return the pods that a service stands for."""
    selector = service["spec"].get("selector") or {}
    early = service["spec"].get("publishNotReadyAddresses")
    for pod in store.listed(PODS, meta(service)["namespace"]):
        labels = labels_of(pod)
        chosen = selector and all(labels.get(key) == value for key, value in selector.items())
        there = at(pod, "status", "podIP") and at(pod, "status", "phase") not in ENDED
        if chosen and there and (early or holds(pod, "Ready")):
            yield pod


def _hostname(pod: Obj) -> str:
    return str(at(pod, "spec", "hostname") or name_of(pod))


class Dns:
    """Answers questions for A records, by UDP on port 53."""

    def __init__(self, address: str, look_up: Callable[[str], list[str]]) -> None:
        self._look_up = look_up
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True, name="dns").start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, though it says ENOTCONN
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, client = self._socket.recvfrom(4096)
                if not question:
                    return
                self._socket.sendto(answer(question, self._look_up), client)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue  # that was no question
            except OSError:
                return


def answer(question: bytes, look_up: Callable[[str], list[str]]) -> bytes:
    """Return the answer to a question (RFC 1035): authoritative, whatever is not here is not."""
    number, flags = struct.unpack(">HH", question[:4])
    labels, place = [], 12
    while size := question[place]:
        labels.append(question[place + 1 : place + 1 + size].decode("ascii"))
        place += 1 + size
    kind, _ = struct.unpack(">HH", question[place + 1 : place + 5])
    found = look_up(".".join(labels).lower())
    shown = found if kind == A else []
    code = NOTHING if found else NO_NAME
    head = struct.pack(">HHHHHH", number, 0x8580 | flags & 0x0100 | code, 1, len(shown), 0, 0)
    records = [
        struct.pack(">HHHIH", 0xC00C, A, 1, TTL, 4) + socket.inet_aton(address) for address in shown
    ]
    return head + question[12 : place + 5] + b"".join(records)
