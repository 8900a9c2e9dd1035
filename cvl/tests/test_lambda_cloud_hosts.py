"""The fake Lambda Cloud with something real to rent: sshd, power switch, dead man's switch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.lambda_cloud.real_hosts import RealHost
from cvl.testing.machine import possible
from cvl.tests.test_lambda_cloud import Client, until
from cvl.tests.test_machine import in_session, injected, keygen, public

needs_machines = pytest.mark.skipif(bool(possible()), reason=possible())
SETTINGS = Settings(request_interval=0, launch_interval=0, boot_seconds=0.1, hosts="machine")


class Renter:
    """Rents one host with a host key of its own, and logs in."""

    def __init__(self, cloud: LambdaCloud, folder: Path, user_data: str = "") -> None:
        self.client = Client(cloud.base, cloud.key)
        self._folder = folder
        self._key, self._host_key = keygen(folder / "key"), keygen(folder / "host_key")
        body = {"name": "k", "public_key": public(self._key)}
        self.client.data("POST", "/ssh-keys", body)
        self.id = self.client.launch(user_data=injected(self._host_key) + user_data)
        until(lambda: self.status() == "active")

    def status(self) -> object:
        return self.client.get(self.id)["status"]

    def ssh(
        self, command: str, config: str = "none", user: str = "ubuntu"
    ) -> subprocess.Popen[str]:
        address = str(self.client.get(self.id)["ip"])
        known = self._folder / "known_hosts"
        known.write_text(f"{address} {' '.join(public(self._host_key).split()[:2])}\n")
        options = ["BatchMode=yes", f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes"]
        flags = [flag for option in options for flag in ("-o", option)]
        argv = ("ssh", "-F", config, "-i", str(self._key), *flags, f"{user}@{address}", command)
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, command: str, **how: str) -> str:
        with self.ssh(command, **how) as process:
            out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        return out


@pytest.fixture
def cloud() -> Iterator[LambdaCloud]:
    with LambdaCloud(SETTINGS) as cloud:
        yield cloud


@needs_machines
def test_a_machine_is_rented_shut_down_restarted_and_terminated(
    cloud: LambdaCloud, tmp_path: Path
) -> None:
    began = time.monotonic()
    renter = Renter(cloud, tmp_path)
    assert time.monotonic() - began < 15
    assert renter.run("id -un; hostname; echo kept > file") == "ubuntu\ncvl-1\n"

    with renter.ssh("echo ready; sleep 100") as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        with renter.ssh("sudo shutdown -h now; sleep 100") as shutting:
            assert shutting.wait(20) == 255
        assert session.wait(20) == 255
    until(lambda: renter.status() == "unhealthy")
    billed = cloud.bill().of(renter.id).seconds
    until(lambda: cloud.bill().of(renter.id).seconds > billed)
    assert cloud.bill().running

    body = {"instance_ids": [renter.id]}
    renter.client.data("POST", "/instance-operations/restart", body)
    until(lambda: renter.status() == "active")
    assert renter.run("cat file") == "kept\n"

    host = cloud.state.instances[renter.id].host
    assert isinstance(host, RealHost)
    assert host.machine is not None
    chassis = Path(f"/proc/{host.machine.pid}")
    assert chassis.exists()
    assert renter.client.terminate(renter.id) == (200, "")
    until(lambda: not chassis.exists())
    assert not cloud.bill().running
    assert cloud.violations == []


@needs_machines
def test_a_host_that_cannot_be_built_is_told(cloud: LambdaCloud) -> None:
    client = Client(cloud.base, cloud.key)
    client.add_key()
    id_ = client.launch(user_data="#cloud-config\na: [\n")
    until(lambda: bool(cloud.violations))
    assert "not YAML" in cloud.violations[0]
    assert client.get(id_)["status"] == "booting"
    assert client.terminate(id_) == (200, "")


SWITCH = """
write_files:
- path: /usr/local/sbin/dead-man
  permissions: '0755'
  content: |
    #!/usr/bin/python3
    import json, urllib.request
    headers = {{"Authorization": "Bearer {key}", "Content-Type": "application/json"}}
    def call(path, body=None):
        request = urllib.request.Request("{base}" + path, body, headers)
        return json.load(urllib.request.urlopen(request, timeout=30))["data"]
    ids = [i["id"] for i in call("/instances") if i["name"] == "ours"]
    call("/instance-operations/terminate", json.dumps({{"instance_ids": ids}}).encode())
- path: /etc/systemd/system/dead-man.service
  content: |
    [Service]
    ExecStart=/usr/local/sbin/dead-man
- path: /etc/systemd/system/dead-man.timer
  content: |
    [Timer]
    OnBootSec=2s
    [Install]
    WantedBy=timers.target
runcmd:
- [systemctl, enable, --now, dead-man.timer]
"""


@needs_machines
def test_a_dead_mans_switch_on_the_machine_ends_the_billing(
    cloud: LambdaCloud, tmp_path: Path
) -> None:
    renter = Renter(cloud, tmp_path, SWITCH.format(key=cloud.key, base=cloud.base))
    host = cloud.state.instances[renter.id].host
    host.reboot()
    until(lambda: not cloud.bill().running, 30)
    assert cloud.log[-1].operation in ("terminateInstance", "getInstance")


def test_where_machines_cannot_be_had_a_plain_sshd_will_do(tmp_path: Path) -> None:
    plain = Settings(request_interval=0, launch_interval=0, boot_seconds=0.1, hosts="sshd")
    with LambdaCloud(plain) as cloud:
        renter = Renter(cloud, tmp_path)
        config = cloud.env["CVL_SSH_CONFIG"]
        user = subprocess.run(("id", "-un"), capture_output=True, text=True, check=True).stdout
        assert renter.run("echo hello", config=config, user=user.strip()) == "hello\n"
        folder = Path(config).parent
        assert folder.exists()
    assert not folder.exists()


@pytest.mark.parametrize(
    "kind", [pytest.param("machine", marks=needs_machines), pytest.param("sshd")]
)
def test_nothing_survives_a_kill(kind: str) -> None:
    module = (sys.executable, "-m", "cvl.testing.lambda_cloud")
    pace = ("--boot-seconds", "0.1", "--request-interval", "0", "--launch-interval", "0")
    argv = (*module, "--hosts", kind, *pace)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline().strip() for _ in range(3)]
        exports = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
        client = Client(exports["LAMBDA_API_BASE"], exports["LAMBDA_API_KEY"])
        client.add_key()
        id_ = client.launch()
        until(lambda: client.get(id_)["status"] == "active")
        family = sessions_of(server.pid)
        assert family
        server.send_signal(signal.SIGKILL)
        server.wait(10)
        until(lambda: not any(in_session(session) for session in family))
    subprocess.run((*module, "--clean"), capture_output=True, check=True, timeout=60)


def sessions_of(parent: int) -> set[int]:
    """Return the sessions of a process's children."""
    children = (
        int(pid)
        for path in Path(f"/proc/{parent}/task").glob("*/children")
        for pid in path.read_text().split()
    )
    return {os.getsid(pid) for pid in children}


def test_by_hand_the_bill_is_shown_at_the_end() -> None:
    argv = (sys.executable, "-m", "cvl.testing.lambda_cloud", "--hosts", "none")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "a Lambda Cloud on loopback" in server.stdout.readline()
        assert server.stdout.readline().startswith("export LAMBDA_API_BASE=http://127.0.0.1:")
        assert server.stdout.readline().startswith("export LAMBDA_API_KEY=")
        server.send_signal(signal.SIGTERM)
        assert server.stdout.read() == "# total: $0.0000\n"
        assert server.wait(10) == 0
