"""The hosts that other tests are attacked by: honest until told, and then what they say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from cvl.host.rpc import FarSide
from cvl.testing import hostile
from cvl.testing.hostile import BEHAVIOURS, HostileHost
from cvl.testing.machine import Machine, possible
from cvl.testing.network import Network
from cvl.transports.ssh.openssh import OpenSSH

ENDLESS = set(BEHAVIOURS) - {
    *("garbage", "garbage-result", "exited-256", "exited-huge", "sized-listing"),
    *("close-early", "close-after-mark", "less-than-named", "slowly"),
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileHost]:
    with hostile.host(tmp_path_factory.mktemp("hostile")) as made:
        yield made


def reach(there: HostileHost) -> OpenSSH:
    sshd = there.sshd
    return OpenSSH(sshd.name, config=sshd.ssh_config, control_persist=0)


def test_it_is_honest_at_first_and_again_when_told(there: HostileHost) -> None:
    far = FarSide(reach(there))
    there.login.turn("garbage-result", "stop")
    answers, _ = far.ask("status", [("id", "none")])
    there.login.reform()
    again, _ = far.ask("stop", [("id", "none")])
    assert [each.word for each in (*answers, *again)] == ["unknown", "unknown"]


@pytest.mark.parametrize("name", sorted(BEHAVIOURS))
def test_every_behaviour_is_what_it_says(there: HostileHost, name: str) -> None:
    there.login.turn(name)
    command = ["ssh", "-F", str(there.sshd.ssh_config), there.sshd.name, "supervisor.sh"]
    asked = b"lib base\nnonce 12\nverb pack\n\nwork/a\0"
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with child.stdin as stdin, child.stderr as stderr:  # type: ignore[union-attr]
        stdin.write(asked)
        stdin.flush()
        try:
            ended = child.wait(0.5 if name in ENDLESS else 20) is not None
        except subprocess.TimeoutExpired:
            ended = False
            child.kill()
            child.wait()
        said = stderr.read()
    assert b"Traceback" not in said, said
    assert ended == (name not in ENDLESS)
    there.login.reform()


@pytest.mark.skipif(bool(possible()), reason=possible())
def test_a_machine_of_its_own_can_have_such_a_login() -> None:
    network = Network()
    try:
        with Machine(network) as machine:
            machine.power_on()
            machine.wait_up()
            made = hostile.mount(machine)
            made.turn("exited-256")
            environment = ("env", "SSH_ORIGINAL_COMMAND=supervisor.sh")
            words = f"printf 'l b\\nnonce 1\\nverb status\\n\\n' | {made.program} {made.there}"
            said = machine.run(*environment, "sh", "-c", words)
            assert said.stderr == "cvl:1 result exited 256 0\ncvl:1 end\n"
            assert made.forced in machine.run("cat", "/run/sshd_config").stdout
    finally:
        network.close()
