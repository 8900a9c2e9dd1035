"""What the containers of one pod share: an address, names, and a network that outlives them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cvl.testing.kubernetes.containers import POD, full_name
from cvl.testing.kubernetes.network import DOMAIN
from cvl.testing.kubernetes.objects import Obj, meta, name_of
from cvl.testing.kubernetes.pod_state import PodState

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet

HOST_NAME_LIMIT = 63
LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
SLEEP = ["sleep", "2147483647"]


class Sandbox:
    """One pod's. A pod of one container needs none but that one."""

    def __init__(self, kubelet: Kubelet, state: PodState, folder: Path) -> None:
        self._kubelet, self._state, self._folder = kubelet, state, folder
        self._pause = ""

    def open(self, mounts: list[Obj]) -> None:
        """Take an address; where several containers share it, start what keeps it.

        `mounts` are kept alive with it. Raises `EngineError`, `OSError`.
        """
        network, pod = self._kubelet.network, self._state.pod
        self._state.address = network.take()
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "resolv.conf").write_text(network.resolver(meta(pod)["namespace"]))
        (self._folder / "hosts").write_text(self._hosts())
        if len(self._state.containers) > 1:
            place = self.place()
            place["HostConfig"] |= {"Mounts": mounts, "IpcMode": "shareable"}
            about = {POD: meta(pod)["uid"]}
            body = {"Image": self._kubelet.image, "Entrypoint": SLEEP, "Labels": about, **place}
            self._pause = self._kubelet.engine.create(full_name(pod, "POD"), body)
            self._kubelet.engine.do("POST", f"/containers/{self._pause}/start")

    def close(self) -> None:
        """Give the address back."""
        if self._pause:
            self._kubelet.engine.remove(self._pause)
        if self._state.address:
            self._kubelet.network.give_back(self._state.address)

    def place(self) -> Obj:
        """Return where a container runs: in the sandbox, or in a network of its own."""
        if self._pause:
            shared = f"container:{self._pause}"
            return {"HostConfig": {"NetworkMode": shared, "IpcMode": shared}}
        name = self._kubelet.network.name
        endpoint = {"IPAMConfig": {"IPv4Address": self._state.address}}
        return {
            "Hostname": self._host[:HOST_NAME_LIMIT].rstrip("-"),
            "HostConfig": {"NetworkMode": name},
            "NetworkingConfig": {"EndpointsConfig": {name: endpoint}},
        }

    def files(self) -> list[tuple[Path, str]]:
        """Return the files that every container has, and where."""
        return [(self._folder / name, f"/etc/{name}") for name in ("resolv.conf", "hosts")]

    @property
    def _host(self) -> str:
        return str(self._state.pod["spec"].get("hostname") or name_of(self._state.pod))

    def _hosts(self) -> str:
        pod = self._state.pod
        group = pod["spec"].get("subdomain")
        names = self._host
        if group:
            names = f"{self._host}.{group}.{meta(pod)['namespace']}.svc.{DOMAIN}\t{names}"
        return f"{LOCAL}{self._state.address}\t{names}\n"
