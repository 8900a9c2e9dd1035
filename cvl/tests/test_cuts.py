"""A connection that breaks costs nothing: not a byte lost, not a byte repeated."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvl.core.interfaces import Process
from cvl.core.scope import Scope
from cvl.core.spec import JobSpec, Source, new_run_id
from cvl.host.job import RemoteJob
from cvl.host.launch import Setup, start
from cvl.host.rpc import FarSide
from cvl.testing.cli_harness import Client, Desk, wait_for
from cvl.testing.fault_proxy import Cable
from cvl.testing.sshd import Sshd
from cvl.transports.local import Local

LINES = 40_000
CUTS = 10
COUNT = f"""
i=0
while [ $i -lt {LINES} ]; do
    i=$((i + 1)); echo "line $i"
    [ $((i % 400)) != 0 ] || sleep 0.03
done
exit 7
"""
WHOLE = b"".join(b"line %d\n" % (i + 1) for i in range(LINES))


class Severed(Local):
    """This machine; of what it says there comes only the beginning, when it is told so."""

    said: int | None = None

    def start(self, argv: Sequence[str]) -> Process:
        if self.said is None:
            return super().start(argv)
        beginning, self.said = f'"$@" 2>/dev/null | head -c {self.said}', None
        return super().start(("sh", "-c", beginning, "sh", *argv))


@contextmanager
def cabled(sshd: Sshd, folder: Path, flag: str) -> Iterator[tuple[Desk, Cable]]:
    """Put a cable between a desk and a host."""
    with Cable(("127.0.0.1", sshd.port)) as cable:
        config = folder / "ssh_config"
        known = folder / "known_hosts"
        known.write_text(sshd.host_line(cable.port))
        text = sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {cable.port}")
        config.write_text(text.replace(str(sshd.known_hosts), str(known)))
        env = {**sshd.env, "CVL_SSH_CONFIG": str(config)}
        yield Desk(folder=folder / "desk", options=(flag, "testhost"), env=env), cable


def nothing_lost(desk: Desk, client: Client) -> None:
    """See that the output is that of a run that was never cut, and so is the log."""
    done = client.ended()
    assert done.code == 7, done.err
    assert len(done.out) == len(WHOLE)
    assert done.out == WHOLE
    assert desk.cvl("logs", desk.runs()[0]).out == WHOLE


def grows(client: Client) -> None:
    """Wait for more output, or for the end: where all is slow the job may be over before."""
    before = len(client.out)
    wait_for(lambda: len(client.out) > before or client.process.poll() is not None)


def passes(cable: Cable, size: int) -> None:
    """Wait until so many more bytes have passed."""
    until = cable.passed + size
    wait_for(lambda: cable.passed >= until)


def ssh_processes(desk: Desk) -> list[int]:
    """Return the pids of the ssh that this desk's cvl has started, the kept connection's too."""
    mark = desk.env["CVL_SSH_CONFIG"].encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if words.startswith(b"ssh") and mark in words:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("flag", ["--ssh", "--docker"])
def test_cut_ten_times(flag: str, host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, flag) as (desk, cable), desk.running(COUNT) as client:
        for cut in range(CUTS):
            grows(client)
            if cut % 2:
                cable.reset()
            else:
                for pid in ssh_processes(desk):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        nothing_lost(desk, client)


def test_the_host_drops_every_connection(tmp_path: Path) -> None:
    with Sshd(tmp_path / "host") as sshd:
        desk = Desk(folder=tmp_path, options=("--ssh", "testhost"), env=sshd.env)
        with desk.running(COUNT) as client:
            for _ in range(3):
                grows(client)
                sshd.cut()
            sshd.stop()
            sshd.cut()
            time.sleep(2)
            sshd.start()
            nothing_lost(desk, client)


def test_the_port_is_cut_for_seconds(host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable), desk.running(COUNT) as client:
        client.shows(b"line 800\n")
        cable.cut()
        time.sleep(4)
        cable.listen()
        nothing_lost(desk, client)


def test_a_client_that_is_suspended(host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable), desk.running(COUNT) as client:
        client.shows(b"line 800\n")
        client.signal(signal.SIGSTOP)
        for pid in (pids := ssh_processes(desk)):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        cable.reset()
        time.sleep(1)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        client.signal(signal.SIGCONT)
        nothing_lost(desk, client)


def test_cut_while_it_starts(host: Sshd, tmp_path: Path) -> None:
    """Whenever the line breaks, the job has run once, or not at all and that is said."""
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        assert desk.sh("exit 3").code == 3
        big = desk.repo / "examples/conformance/one/big"
        for size in (1, 200_000, 3_000_000):
            big.write_bytes(os.urandom(size))
            with desk.running("echo once; exit 5") as client:
                passes(cable, size // 2)
                cable.reset()
                done = client.ended()
            assert (done.code, done.out) == (5, b"once\n"), done.err


def test_cut_while_it_is_stopped(host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        with desk.running("echo x >result; echo ready; sleep 1000") as client:
            client.shows(b"ready")
            cable.cut()
            client.signal(signal.SIGINT)
            time.sleep(2)
            cable.listen()
            assert client.ended().code == 130
        assert desk.result("result") == b"x\n"
        assert not desk.left(desk.runs()[0])


def test_cut_while_results_come(host: Sshd, tmp_path: Path) -> None:
    with cabled(host, tmp_path, "--ssh") as (desk, cable):
        assert desk.sh("exit 3").code == 3
        cable.rate = 4_000_000
        with desk.running("head -c 3000000 /dev/zero >result; echo ready") as client:
            client.shows(b"ready")
            passes(cable, 500_000)
            cable.reset()
            done = client.ended()
        run = desk.runs()[0]
        if done.code:
            assert f"cvl fetch {run}" in done.err
            assert desk.cvl("fetch", run).code == 0
        assert len(desk.result("result")) == 3_000_000


def test_cut_at_each_byte(tmp_path: Path) -> None:
    """Also within what says that the output is over: it is no part of it."""
    severed, output = Severed(), b"one\n\0"
    far = FarSide(severed, str(tmp_path / "base"))
    spec = JobSpec(
        run_id=new_run_id("one"),
        argv=("printf", r"one\n\000"),
        example="one",
        preset="p",
        source=Source(root=tmp_path, folder=""),
    )
    started = start(far, spec, {"run": spec.run_id}, Setup(in_place=True), Scope(seconds=60))
    assert b"".join(chunk.data for chunk in started.chunks()) == output
    mark = len("cvl:0123456789abcdef\n")
    for said in range(mark + len(output) + len("\0 end\n") + mark):
        severed.said = said
        chunks = list(RemoteJob(far, started.handle).chunks())
        assert b"".join(chunk.data for chunk in chunks) == output, said
        assert chunks[-1].cursor == str(len(output))
