"""Streaming: how fast output comes through, at what cost, and how late."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import commands
from bench.cvls import Cvl
from bench.pairs import Found, in_turns
from bench.profiles import functions
from bench.values import Failed, Goal, Measure, Sample, Table, Topic
from bench.work import Host, Work, example, host, random_file

BASE = "ssh HOST cat"
RUN = "run"
PACE = 200
"""Lines a second."""
TICKER = """\
import sys, time
lines, pace = map(int, sys.argv[1:])
began = time.monotonic()
for number in range(lines):
    time.sleep(max(0.0, began + number / pace - time.monotonic()))
    print(time.time_ns(), flush=True)
"""
REASONS = {
    "run": "Each byte is written three times, once to the output file on the host and twice here, "
    "to the output and to the run's own log: that is why a cut connection costs nothing. ssh "
    "writes it once, and nothing over there. On this machine both ends share the processors, most "
    "of whose time goes into ssh's own encryption: with `Ciphers aes128-gcm@openssh.com` in your "
    "ssh_config it takes a third less, for ssh and for cvl.",
}
LATE = 0.010
"""Seconds that a line may come later than through ssh."""


def measure(work: Work) -> Topic:
    """Measure a big file, many short lines, and lines that come one by one."""
    topic = Topic(
        name="streaming",
        title="Streaming",
        question="How fast does output come through, at what cost for this machine, and how late?",
    )
    with host(work) as there:
        big = random_file(work.folder / "big", work.sizes.megabytes)
        short = _short_lines(work.folder / "short", work.sizes.lines)
        ticker = work.folder / "ticker.py"
        ticker.write_text(TICKER)
        ticking = f"exec {sys.executable} {ticker} {work.sizes.paced_lines} {PACE}"
        for name, script in (("big", f"cat {big}"), ("short", f"cat {short}"), ("tick", ticking)):
            example(there.repo, name, script + "\n")
        share = work.seconds / 6
        for file, each in ((big, 2 * share), (short, share)):
            found = in_turns(
                _copies(work, there, file), rounds=work.sizes.rounds, seconds=each, warm=False
            )
            topic.tables += _speeds(work, found, file)
            topic.missing |= found.missing
        found = in_turns(
            _delays(work, there, ticking),
            rounds=work.sizes.rounds,
            seconds=2 * share,
            warm=False,
        )
        topic.missing |= found.missing
        topic.tables += _lateness(work, found)
        _on_disk(topic, work, share)
        topic.reasons = REASONS
        if topic.missed():
            cvl = work.cvls[0]
            topic.profiles["functions of `cvl run` while the big file comes"] = functions(
                cvl, there.run(cvl, "big")[1:], there.env(cvl)
            )
    return topic


def _on_disk(topic: Topic, work: Work, seconds: float) -> None:
    """Add the big file once more, with all that is written on one disk."""
    work = replace(work, folder=work.disk)
    with host(work) as there:
        big = random_file(work.folder / "big", work.sizes.megabytes)
        example(there.repo, "big", f"cat {big}\n")
        found = in_turns(
            _copies(work, there, big), rounds=work.sizes.rounds, seconds=seconds, warm=False
        )
    title = f"{work.sizes.megabytes} MB of random bytes, all on one disk: speed"
    note = "The output file over there, the output and the log here: as if they shared a disk."
    topic.tables.append(found.table(title, "rate", "MB/s", BASE, note=note))
    topic.missing |= found.missing


def _short_lines(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for first in range(0, count, 10_000):
            numbers = range(first, min(count, first + 10_000))
            file.write("".join(f"step {number}\n" for number in numbers))
    return path


def _copies(work: Work, there: Host, file: Path) -> dict[str, Measure]:
    """Return measures that bring a file's content here as a command's output."""
    size, out = file.stat().st_size, work.folder / "out"

    def checked(sample: Sample, more: float = 0.0) -> Sample:
        if out.stat().st_size != size:
            raise Failed(f"{out.stat().st_size} of {size} bytes came")
        return {"rate": size / 1e6 / sample["s"], "cpu_s": sample["cpu_s"] + more}

    def ours(cvl: Cvl) -> Measure:
        def take() -> Sample:
            there.warm(cvl)
            env, before = there.env(cvl), there.kept_cpu(cvl)
            sample = commands.timed(there.run(cvl, file.name), env, out=out)
            found = checked(sample, there.kept_cpu(cvl) - before)
            there.forget(cvl)
            return found

        return take

    measures: dict[str, Measure] = {
        BASE: lambda: checked(commands.timed(there.ssh(f"cat {file}"), out=out)),
    }
    return measures | {cvl.called(RUN): ours(cvl) for cvl in work.cvls}


def _speeds(work: Work, found: Found, file: Path) -> list[Table]:
    what = {
        "big": f"{work.sizes.megabytes} MB of random bytes",
        "short": f"{work.sizes.lines:,} short lines",
    }[file.name]
    name = work.cvls[0].called(RUN)
    note = "Into a file; cvl writes a log of its own beside it, as every run does."
    return [
        found.table(
            f"{what}: speed",
            "rate",
            "MB/s",
            BASE,
            {name: Goal(limit=0.8, at_least=True)},
            note=note,
        ),
        found.table(
            f"{what}: processor time of the client",
            "cpu_s",
            "s",
            BASE,
            {name: Goal(limit=2.0)},
            note="With that of the ssh that keeps the connection.",
        ),
    ]


def _delays(work: Work, there: Host, ticking: str) -> dict[str, Measure]:
    measures: dict[str, Measure] = {BASE: lambda: _delay(there.ssh(ticking), None)}

    def ours(cvl: Cvl) -> Measure:
        def take() -> Sample:
            there.warm(cvl)
            return _delay(there.run(cvl, "tick"), there.env(cvl))

        return take

    return measures | {cvl.called(RUN): ours(cvl) for cvl in work.cvls}


def _delay(argv: Sequence[str], env: dict[str, str] | None) -> Sample:
    """Return how late the lines of the ticker are here: both ends read the same clock."""
    late, rest = [], b""
    with commands.Run(argv, env, piped=True) as run:
        while data := os.read(run.stdout.fileno(), 1 << 16):
            came = time.time_ns()
            *lines, rest = (rest + data).split(b"\n")
            late += [(came - int(line)) / 1e9 for line in lines]
        run.ended()
    cuts = statistics.quantiles(late, n=100, method="inclusive")
    return {"p50_s": cuts[49], "p99_s": cuts[98]}


def _lateness(work: Work, found: Found) -> list[Table]:
    lines = work.sizes.paced_lines
    tables = [
        found.table(
            f"Delay of a line at {PACE} lines a second: {title}", metric, "ms", BASE, scale=1000
        )
        for title, metric in (("median", "p50_s"), ("99th percentile", "p99_s"))
    ]
    worst = tables[1]
    added = {
        name: [mine - base for mine, base in zip(late, worst.samples.get(BASE, ()), strict=False)]
        for name, late in worst.samples.items()
        if name != BASE
    }
    goal = {work.cvls[0].called(RUN): Goal(limit=LATE * 1000, ratio=False)}
    note = f"Of {lines} lines a round: the 99th percentile less that of ssh in the same round."
    title = "Added delay of a line, 99th percentile"
    tables.append(Table(title=title, unit="ms", base="", samples=added, goals=goal, note=note))
    return tables
