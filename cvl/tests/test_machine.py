"""The machines that the fake clouds rent out: real sshd, real power switch, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvl.testing.cloud_init import scripts
from cvl.testing.machine import Image, Machine, Ssh, possible
from cvl.testing.network import Network

needs_machines = pytest.mark.skipif(bool(possible()), reason=possible())


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return keygen(tmp_path / "key")


def keygen(path: Path) -> Path:
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))
    subprocess.run(argv, check=True, timeout=10)
    return path


def public(path: Path) -> str:
    return path.with_name(path.name + ".pub").read_text().strip()


def injected(host_key: Path) -> str:
    """Cloud-config that gives a machine this host key."""
    private = "".join(f"    {line}\n" for line in host_key.read_text().splitlines())
    return (
        "#cloud-config\nssh_deletekeys: true\nssh_keys:\n"
        f"  ed25519_private: |\n{private}  ed25519_public: {public(host_key)}\n"
    )


class Client:
    """The user's ssh: it knows one host key and accepts no other."""

    def __init__(self, machine: Machine, key: Path, host_key: str) -> None:
        known = key.with_name("known_hosts")
        known.write_text(f"{machine.address} {host_key}\n")
        options = ["BatchMode=yes", f"UserKnownHostsFile={known}", "ServerAliveInterval=1"]
        options += ("StrictHostKeyChecking=yes", "ServerAliveCountMax=1", "ConnectTimeout=2")
        flags = (flag for option in options for flag in ("-o", option))
        self._argv = ("ssh", "-F", "none", "-i", str(key), *flags, f"ubuntu@{machine.address}")

    def start(self, command: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen((*self._argv, command), stdout=pipe, stderr=pipe, text=True)

    def run(self, command: str) -> tuple[int, str]:
        with self.start(command) as process:
            out, err = process.communicate(timeout=20)
            return process.returncode, out + err


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


@needs_machines
def test_its_life(network: Network, tmp_path: Path, key: Path) -> None:
    """One machine for all: each step costs a boot or a connection."""
    host_key = keygen(tmp_path / "host_key")
    image = Image(authorized=(public(key),), user_data=injected(host_key), hostname="one")
    with Machine(network, image) as machine:
        assert not machine.on
        started = time.monotonic()
        machine.power_on()
        machine.wait_up()
        assert time.monotonic() - started < 10
        client = Client(machine, key, " ".join(public(host_key).split()[:2]))

        told = "cat /proc/sys/kernel/random/boot_id; id -un; hostname; pwd; echo kept > file"
        code, text = client.run(told)
        assert (code, text) == (0, f"{machine.boot_id}\nubuntu\none\n/home/ubuntu\n")
        assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() != machine.boot_id
        assert client.run("sudo id -u; sudo -n -u ubuntu id -u") == (0, "0\n1000\n")
        assert client.run("ls -d /work /root/.ssh /home/*")[1].count("\n") == 3, "only its own"

        first = machine.boot_id
        machine.reboot()
        machine.wait_up()
        assert machine.boot_id != first
        assert client.run("cat file; cut -d. -f1 /proc/uptime")[1].split("\n")[0] == "kept"

        with client.start("echo ready; sleep 100") as session:
            assert session.stdout is not None
            assert session.stdout.readline() == "ready\n"
            machine.power_cut()
            assert not machine.on
            assert session.wait(10) == 255
        machine.power_on()
        machine.wait_up()

        with client.start("echo ready; sleep 100") as session:
            assert session.stdout is not None
            assert session.stdout.readline() == "ready\n"
            machine.run("shutdown", "-h", "now")
            assert session.wait(10) == 255
        machine.wait_down()
        assert client.run("true")[0] == 255
        chassis = machine.pid
    assert not Path(f"/proc/{chassis}").exists()


@needs_machines
def test_a_wrong_host_key_is_shown_for_a_while(network: Network, tmp_path: Path, key: Path) -> None:
    host_key = keygen(tmp_path / "host_key")
    image = Image(
        authorized=(public(key),),
        user_data=injected(host_key),
        ssh=Ssh.OTHER_KEY,
        ssh_seconds=1.5,
    )
    with Machine(network, image) as machine:
        machine.power_on()
        machine.wait_up()
        client = Client(machine, key, " ".join(public(host_key).split()[:2]))
        code, text = client.run("true")
        assert code == 255
        assert "Host key verification failed" in text
        until(lambda: client.run("true")[0] == 0)


@needs_machines
def test_no_ssh_and_another_address(network: Network) -> None:
    with Machine(network, Image(ssh=Ssh.NO)) as machine:
        machine.power_on()
        machine.wait_up()
        assert machine.run("cat", "/run/sshd.pid").returncode != 0
        before = machine.address
        machine.move(network.address())
        assert machine.address != before
        assert machine.address in machine.run("ip", "addr", "show", "dev", "eth0").stdout
        assert before not in machine.run("ip", "addr", "show", "dev", "eth0").stdout


@needs_machines
def test_a_service_of_ours_is_reached_on_its_loopback(network: Network) -> None:
    with Machine(network) as machine, machine.listen(8123) as listener:
        machine.power_on()
        machine.wait_up()
        listener.settimeout(10)
        talk = "import socket; socket.create_connection(('127.0.0.1', 8123)).sendall(b'hello')"
        assert machine.run("/usr/bin/python3", "-c", talk).returncode == 0
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(5) == b"hello"


USER_DATA = """#cloud-config
write_files:
- path: /opt/a/tick
  permissions: '0755'
  content: |
    #!/bin/sh
    echo "$1" >> /root/ticks
- {path: /etc/systemd/system/t.service, content: "[Service]\\nExecStart=/opt/a/tick timer\\n"}
- path: /etc/systemd/system/t.timer
  encoding: b64
  content: W1RpbWVyXQpPbkJvb3RTZWM9MQo=
- {path: /root/secret, content: x, permissions: '0600', owner: 'ubuntu:ubuntu'}
bootcmd:
- echo boot >> /root/ticks
runcmd:
- [sh, -c, 'echo "$0" >> /root/ticks', 'it''s run']
- systemctl daemon-reload && systemctl enable --now t.timer
"""


@needs_machines
def test_user_data_is_honoured_and_a_timer_survives_a_reboot(network: Network) -> None:
    with Machine(network, Image(user_data=USER_DATA)) as machine:
        ticks = machine.disk / "root/ticks"

        def seen() -> list[str]:
            return ticks.read_text().splitlines() if ticks.exists() else []

        machine.power_on()
        machine.wait_up()
        until(lambda: "timer" in seen())
        assert seen() == ["boot", "it's run", "timer"]
        secret = machine.run("stat", "-c", "%a %U", "/root/secret").stdout
        assert secret == "600 ubuntu\n"
        machine.run("reboot")
        until(lambda: seen().count("timer") == 2)
        assert seen() == ["boot", "it's run", "timer", "boot", "timer"]


CHILD = """
import sys, time
from cvl.testing.machine import Machine
from cvl.testing.network import Network
network = Network()
machine = Machine(network)
machine.power_on()
machine.wait_up()
print(machine.pid, machine.address, flush=True)
time.sleep(100)
"""


@needs_machines
def test_it_dies_with_whoever_made_it() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", CHILD), stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, address = owner.stdout.readline().split()
        session = os.getsid(int(pid))
        subnet = address.split(".")[2]
        assert Path(f"/sys/class/net/cvlm{subnet}").exists()
        owner.send_signal(signal.SIGKILL)
        until(lambda: not Path(f"/sys/class/net/cvlm{subnet}").exists())
        until(lambda: not in_session(session))


def in_session(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(text)
    return found


def test_user_data_that_is_no_cloud_config_is_left_alone() -> None:
    assert scripts("hello", user="ubuntu") == scripts("", user="ubuntu")
    assert scripts("#!/bin/sh\ntrue\n", user="ubuntu").final.endswith("user-script")
    with pytest.raises(ValueError, match="not YAML"):
        scripts("#cloud-config\na: [", user="ubuntu")
    with pytest.raises(ValueError, match="mapping"):
        scripts("#cloud-config\n- a\n", user="ubuntu")
