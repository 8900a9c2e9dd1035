"""Fan-out: what it costs to run on many hosts at once, and how that grows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import commands
from bench.commands import Run
from bench.cvls import Cvl
from bench.pairs import after, in_turns
from bench.profiles import functions
from bench.values import Goal, Measure, Sample, Topic
from bench.work import Host, Work, example, keeps
from cvl.testing.sshd import Sshd

REASONS = {
    "each": "Each run is a Python of its own: its start-up, fifty times, on the few cores that "
    "the hosts themselves take up here. On a machine of one's own only the clients would count.",
    "one process": "One Python for all is loaded once, but its threads take turns, and the hosts "
    "run on the same few cores: ten short processes for each run, against one with ssh.",
}
LOOK = 0.25
LEAST = 2


def measure(work: Work) -> Topic:
    """Measure ssh and cvl on 1, 10 and 50 hosts at once."""
    topic = Topic(
        name="fanout",
        title="Many hosts at once",
        question="What does it cost to run on many hosts at once, and how does that grow?",
    )
    most = max(work.sizes.hosts)
    with _hosts(work, most) as (there, names):
        example(there.repo, "hello", "echo hello\n")
        example(there.repo, "long", f"echo hello; sleep {work.sizes.job_seconds}\n")
        for cvl in work.cvls:
            _at_once(_runs(cvl, names, "hello"), there.env(cvl))  # what is only done once
            there.cool(cvl)
        share = work.seconds / (len(work.sizes.hosts) + 2)
        for count in work.sizes.hosts:
            _compare(topic, work, there, names[:count], "hello", share)
        _compare(topic, work, there, names, "long", 2 * share)
        topic.reasons = REASONS
        if topic.missed():
            cvl = work.cvls[0]
            topic.profiles["functions of one of the runs"] = functions(
                cvl, _runs(cvl, names[:1], "hello")[0][1:], there.env(cvl)
            )
    return topic


def _compare(
    topic: Topic, work: Work, there: Host, names: Sequence[str], what: str, seconds: float
) -> None:
    """Add what ssh, one cvl per host, and one Python process for all of them take."""
    count, base = len(names), "ssh HOST cmd, each"
    script = "echo hello" + (f"; sleep {work.sizes.job_seconds}" if what == "long" else "")
    env = there.env(work.cvls[0])
    ssh = ["ssh", "-F", str(there.sshd.ssh_config), "-S", "none"]
    measures: dict[str, Measure] = {
        base: lambda: _at_once([[*ssh, name, script] for name in names], env)
    }
    for cvl in work.cvls[: 1 if what == "long" else None]:  # a minute a round is enough
        measures[f"{cvl.called('run')} each"] = after(
            partial(there.cool, cvl), partial(_at_once, _runs(cvl, names, what), there.env(cvl))
        )
    cvl = work.cvls[0]
    measures["cvl in Python, one process"] = after(
        partial(there.cool, cvl),
        partial(_at_once, [[*cvl.python("fan_once.py"), what, *names]], env, share=count),
    )
    found = in_turns(
        measures,
        rounds=work.sizes.rounds,
        seconds=seconds,
        warm=False,
        least=LEAST,
    )
    topic.missing |= found.missing
    job = f"a job of {work.sizes.job_seconds} s" if what == "long" else "a job that says hello"
    title = f"{count} host{'s' * (count > 1)} at once, {job}"
    last = count == max(work.sizes.hosts)
    ours = f"{cvl.called('run')} each"
    wall = {name: Goal(limit=1.2) for name in (ours, "cvl in Python, one process") if last}
    memory = {name: Goal(limit=25.0, ratio=False) for name in wall}
    topic.tables.append(found.table(f"{title}: wall clock", "s", "s", base, wall))
    topic.tables.append(found.table(f"{title}: processor time", "cpu_s", "s", base))
    if what == "long":
        note = (
            "Proportional set size: what processes share counts once. Of each run, with the ssh "
            "that keeps its connection, while all of the jobs run."
        )
        title = f"{count} hosts at once: memory for each run"
        topic.tables.append(found.table(title, "pss_mb", "MB", base, memory, note=note))


def _runs(cvl: Cvl, names: Sequence[str], what: str) -> list[list[str]]:
    return [
        [cvl.program, "run", "--no-fetch", "-q", "--docker", name, what, "train"] for name in names
    ]


def _at_once(
    commands_: Sequence[Sequence[str]], env: Mapping[str, str], *, share: int = 0
) -> Sample:
    """Run commands at once: wall clock, processor time of all, most memory per run."""
    sockets = env["XDG_RUNTIME_DIR"].encode()
    most, began = 0.0, time.perf_counter()
    with ExitStack() as stack:
        runs = [stack.enter_context(Run(argv, env)) for argv in commands_]
        looked = time.perf_counter()
        while any(_alive(run.process.pid) for run in runs):
            time.sleep(0.005)
            if time.perf_counter() - looked > LOOK * len(runs):
                most, looked = max(most, _memory(sockets)), time.perf_counter()
        samples = [run.ended() for run in runs]
        seconds = time.perf_counter() - began
    found = {"s": seconds, "cpu_s": sum(each["cpu_s"] for each in samples)}
    return {**found, "pss_mb": most / (share or len(runs))} if most else found


def _alive(pid: int) -> bool:
    """Return whether our child still runs; it is not waited for, so its pid stays its own."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is None


def _memory(sockets: bytes) -> float:
    """Return the MB of all that was started with this folder for sockets, or keeps one in it."""
    mark = b"XDG_RUNTIME_DIR=" + sockets
    total = 0
    for entry in os.scandir("/proc"):
        try:
            if not entry.name.isdigit():
                continue
            if mark in Path(entry.path, "environ").read_bytes() or keeps(entry.name, sockets):
                text = Path(entry.path, "smaps_rollup").read_text()
                total += int(text.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):
            continue
    return total * commands.KIB / 1e6


@contextmanager
def _hosts(work: Work, count: int) -> Iterator[tuple[Host, list[str]]]:
    """Start so many sshd, each on an address of its own; one ssh_config names them all."""
    with ExitStack() as stack:
        found = [
            stack.enter_context(
                Sshd(work.folder / f"host-{n}", name=f"host-{n}", address=f"127.0.1.{n}")
            )
            for n in range(1, count + 1)
        ]
        config = "\n".join(each.ssh_config.read_text() for each in found)
        found[0].ssh_config.write_text(config)
        there = Host(sshd=found[0], folder=work.folder, repo=work.folder / "repo")
        yield there, [each.name for each in found]
        for cvl in work.cvls:
            there.cool(cvl)
