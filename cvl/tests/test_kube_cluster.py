"""The real cluster by hand; it leaves nothing behind, however its owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvl.testing import kube, kube_cluster

pytestmark = [pytest.mark.kube, pytest.mark.slow]

PLACES = [
    "/run/dockershim.sock",
    "/usr/libexec/kubernetes",
    "/var/lib/dockershim/sandbox",
    "/var/lib/kubelet/device-plugins",
    "/var/log/containers",
    "/var/log/pods",
]
KUBECTL = str(kube_cluster.programs() / "kubectl")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who types `make kube` and `make kube-stop`, with a cache folder of their own."""

    cache: Path

    def keeper(self, act: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cvl.testing.kube_keeper", act],
            env={**os.environ, "XDG_CACHE_HOME": str(self.cache)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    @property
    def pid(self) -> int:
        return int(json.loads((self.cache / "cvl-kube/keeper.json").read_text())["pid"])


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    if why := kube_cluster.missing():
        pytest.skip(why)
    (tmp_path / "cvl-kube").mkdir()
    (tmp_path / "cvl-kube/bin").symlink_to(kube_cluster.programs())
    made = Person(tmp_path)
    yield made
    made.keeper("stop")


def test_a_person_starts_and_stops_one(person: Person) -> None:
    told = person.keeper("start")
    kubeconfig = Path(told.splitlines()[0].removeprefix("export KUBECONFIG="))
    assert "Ready" in kube.kubectl(kubeconfig, "get", "nodes", program=KUBECTL)
    assert person.keeper("start") == told, "one is enough"
    assert person.keeper("stop") == ""
    assert not kubeconfig.exists()
    assert person.keeper("stop") == "", "nothing to do"


def test_nothing_is_left_of_it_when_its_owner_is_killed(person: Person) -> None:
    before = places()
    told = person.keeper("start").splitlines()[0]
    kubeconfig = Path(told.removeprefix("export KUBECONFIG="))
    folder, server = kubeconfig.parent, json.loads(kubeconfig.read_text())["clusters"][0]
    subnet = server["cluster"]["server"].removeprefix("https://").rpartition(".")[0]
    assert all(traces(folder, subnet).values()), "else the test would see nothing"
    assert str(folder) not in Path("/proc/mounts").read_text(), "its mounts are its own"
    os.kill(person.pid, signal.SIGKILL)
    ends = time.monotonic() + 60
    while any((left := traces(folder, subnet)).values()):
        assert time.monotonic() < ends, left
        time.sleep(0.1)
    assert places() == before


def traces(folder: Path, subnet: str) -> dict[str, list[str]]:
    """Return what there is of a cluster on this computer."""
    addresses = subprocess.check_output(["ip", "-brief", "address"], text=True).splitlines()
    groups = Path("/sys/fs/cgroup").glob(f"*/{folder.name}")
    return {
        "folders": [str(folder)] if folder.exists() else [],
        "processes": [pid for pid, words in commands() if str(folder) in words],
        "interfaces": [line for line in addresses if f" {subnet}." in line],
        "control groups": [str(group) for group in groups],
    }


def places() -> dict[str, float]:
    """Return where a kubelet writes unless told otherwise, and when somebody did."""
    return {str(place): place.stat().st_mtime for place in map(Path, PLACES) if place.exists()}


def commands() -> Iterator[tuple[str, str]]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.parent.name, file.read_bytes().decode(errors="replace")
