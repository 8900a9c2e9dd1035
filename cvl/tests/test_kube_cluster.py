"""The real cluster leaves nothing behind, however its owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cvl.testing import kube_cluster

pytestmark = [pytest.mark.kube, pytest.mark.slow]

PLACES = [
    "/run/dockershim.sock",
    "/usr/libexec/kubernetes",
    "/var/lib/dockershim/sandbox",
    "/var/lib/kubelet/device-plugins",
    "/var/log/containers",
    "/var/log/pods",
]
HOLD = "import sys; from cvl.testing import kube_keeper; sys.exit(kube_keeper.hold())"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_nothing_is_left_of_it(number: signal.Signals, tmp_path: Path) -> None:
    if why := kube_cluster.missing():
        pytest.skip(why)
    before = places()
    (tmp_path / "cvl-kube").mkdir()
    (tmp_path / "cvl-kube/bin").symlink_to(kube_cluster.programs())
    keeper = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    with keeper.stdout:
        assert keeper.stdout.readline() == b"up\n"
    record = json.loads((tmp_path / "cvl-kube/keeper.json").read_text())
    folder = Path(record["kubeconfig"]).parent
    subnet = json.loads((folder / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    subnet = subnet.removeprefix("https://").rpartition(".")[0]
    assert all(traces(folder, subnet).values()), "else the test would see nothing"
    assert str(folder) not in Path("/proc/mounts").read_text(), "its mounts are its own"
    keeper.send_signal(number)
    keeper.wait(60)
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
