"""A switch for machines, with a card of this computer plugged in: 198.19.N.0/24.

The switch lives in a network namespace that only one process of ours holds open. When we end, in
whatever way, its stdin ends, it ends, and the kernel takes back the switch and all its cables.
198.18.0.0/15 is set aside for benchmarks (RFC 2544): nobody is reached by it.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import threading
from types import TracebackType
from typing import Self

from cvl.testing.lifeline import Lifeline

SUBNETS = 256
SWITCH = "ip link add br0 up type bridge && echo ready && exec cat"
UPLINK = ("uplink", "master", "br0", "up")


class Network:
    """A switch, and the addresses behind it. Needs root; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Lifeline | None = None
        self._subnet = -1
        self._hosts = itertools.count(2)
        self._ports = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Pull every cable. Idempotent."""
        with self._lock:
            holder, self._holder = self._holder, None
        if holder is None:
            return
        if self._subnet >= 0:
            run("ip", "link", "delete", f"cvlm{self._subnet}")
        holder.close()

    def address(self) -> str:
        """Return an address that nobody here has had yet."""
        self._switch()
        return f"198.19.{self._subnet}.{next(self._hosts)}"

    def plug(self, pid: int, address: str) -> str:
        """Give the network namespace of `pid` a card with that address; return its port."""
        switch = self._switch()
        port = f"p{next(self._ports)}"
        at = ("nsenter", "--net", "--target")
        card = ("type", "veth", "peer", "name", "eth0", "netns", str(pid))
        run(*at, str(switch), "ip", "link", "add", port, "master", "br0", "up", *card)
        script = f"addr add {address}/24 dev eth0\nlink set eth0 up\n"
        script += f"link set lo up\nroute add default via 198.19.{self._subnet}.1\n"
        run(*at, str(pid), "ip", "-batch", "-", stdin=script)
        return port

    def cable(self, port: str, *, up: bool) -> None:
        """Plug a machine's cable in, or pull it: no packet says goodbye."""
        state = "up" if up else "down"
        run("nsenter", "--net", "--target", str(self._switch()), "ip", "link", "set", port, state)

    def unplug(self, port: str) -> None:
        """Take the card away for good."""
        run("nsenter", "--net", "--target", str(self._switch()), "ip", "link", "delete", port)

    def _switch(self) -> int:
        with self._lock:
            if self._holder is None:
                self._holder = Lifeline(("unshare", "--net", "sh", "-c", SWITCH))
                self._subnet = _uplink(self._holder.pid)
            return self._holder.pid


def run(*argv: str, stdin: str | None = None) -> str:
    """Run a command to its end; raise `OSError` with what it said if it fails."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _uplink(switch: int) -> int:
    """Connect this computer; an interface's name is the lock on its subnet."""
    here = str(os.getpid())
    for subnet in random.sample(range(SUBNETS), SUBNETS):
        name = f"cvlm{subnet}"
        card = ("type", "veth", "peer", "name", name, "netns", here)
        try:
            run("nsenter", "--net", "--target", str(switch), "ip", "link", "add", "uplink", *card)
        except OSError as error:
            if "exists" in str(error):
                continue
            raise
        run("nsenter", "--net", "--target", str(switch), "ip", "link", "set", *UPLINK)
        run("ip", "addr", "add", f"198.19.{subnet}.1/24", "dev", name)
        run("ip", "link", "set", name, "up")
        return subnet
    raise OSError("every subnet of 198.19.0.0/16 is taken")
