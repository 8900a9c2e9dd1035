"""Crash points, bad hosts and damaged ledgers by lot, and a report: `make chaos MINUTES=30`."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cvl.testing.crashes import Bench, Outcome, Point, hostile, mixed, summary
from cvl.testing.lambda_cloud import FAULTS

JOBS = ("echo a >out", "sleep 0.2; echo a >out", "echo hello; sleep 1; echo b >late", "exit 3")
LONG = "sleep 60"
"""A job that is still there at its deadline."""
GUARDIAN = {"request": 10, "write": 10}
PLENTY = 100_000
SLOW = 20.0
"""Seconds after which a trial is worth a look."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What was tried, and what it came to. Filled by several threads."""

    outcomes: list[Outcome] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: Outcome, seconds: float) -> None:
        """Take in one trial."""
        with self.lock:
            self.outcomes.append(outcome)
            if seconds > SLOW:
                self.slow.append(f"{outcome.point}: {seconds:.1f} s")
                sys.stdout.write(f"SLOW {self.slow[-1]}\n{outcome.notes}\n")
            for leak in outcome.leaks:
                sys.stdout.write(f"LEAK {outcome.point}: {leak}\n")
            if len(self.outcomes) % 500 == 0:
                sys.stdout.write(f"{len(self.outcomes)} points tried\n")
            sys.stdout.flush()

    def shown(self) -> dict[str, object]:
        """Return the figures."""
        ends = [each.to_terminate for each in self.outcomes if each.to_terminate is not None]
        killed = [each for each in self.outcomes if each.status is not None and each.status < 0]
        lasted = [each.to_terminate for each in killed if each.guarded]
        guarded = [each for each in lasted if each is not None]
        return {
            "points tried": len(self.outcomes),
            "different": len({str(each.point) for each in self.outcomes}),
            "on a machine with a real sshd": sum(each.real for each in self.outcomes),
            "clients killed": len(killed),
            "with a second kill": sum(bool(each.point.guardian) for each in self.outcomes),
            "with a fault": sum(bool(each.point.fault) for each in self.outcomes),
            "with a hostile host": sum(bool(each.point.host) for each in self.outcomes),
            "ways of being hostile": len({each.point.host for each in self.outcomes} - {""}),
            "with a damaged ledger": sum(bool(each.point.damage) for each in self.outcomes),
            "seconds past the deadline": summary([each.overdue for each in self.outcomes]),
            "faults": len({each.point.fault for each in self.outcomes} & FAULTS.keys()),
            "leaked": sum(bool(each.leaks) for each in self.outcomes),
            "kinds of leaks": dict(
                Counter(leak for each in self.outcomes for leak in each.leaks[:1])
            ),
            "left to reap though the guardian lived": sum(
                each.reaped and each.guarded for each in killed
            ),
            "left to reap for want of a guardian": sum(
                each.reaped and not each.guarded for each in killed
            ),
            "seconds from death to terminate": summary(ends),
            "the same, with a guardian that lived": summary(guarded),
            "seconds billed": summary([each.billed for each in self.outcomes]),
            "slow": self.slow[:20],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Try points until the time is up; return 1 if anything leaked."""
    parser = argparse.ArgumentParser(prog="python -m cvl.testing.chaos")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--hostile", type=int, default=2, help="how many at once with bad hosts")
    parser.add_argument("--real", type=int, default=1, help="how many at once on a real sshd")
    options = parser.parse_args(argv)
    report, until = Report(), time.monotonic() + options.minutes * 60
    sys.stdout.write(
        f"seed {options.seed}, {options.at_once} at once, {options.real} by ssh, "
        f"{options.hostile} with hosts and ledgers that go bad\n"
    )
    folder = Path(tempfile.mkdtemp(prefix="cvl-chaos-"))
    hosts = ["none"] * options.at_once + ["auto"] * options.real
    threads = [
        threading.Thread(target=work, args=(folder / str(i), kind, options.seed + i, until, report))
        for i, kind in enumerate(hosts)
    ]
    threads += [
        threading.Thread(target=bad, args=(folder / f"bad{i}", options.seed + i, until, report))
        for i in range(options.hostile)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not any(each.leaks for each in report.outcomes):
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(report.shown(), indent=2) + "\n")
    return 1 if any(each.leaks for each in report.outcomes) else 0


def work(folder: Path, hosts: str, seed: int, until: float, report: Report) -> None:
    """Try points of this seed until the time is up."""
    with Bench(folder, hosts=hosts) as bench:
        counts = {**bench.tried(Point()).counts, "guardian": GUARDIAN}
        tried(bench, mixed(counts, PLENTY, seed), JOBS, until, report)


def bad(folder: Path, seed: int, until: float, report: Report) -> None:
    """The same, with machines that turn hostile and ledgers that are damaged."""
    with Bench(folder) as bench:
        tried(bench, hostile(PLENTY, seed), (*JOBS, LONG), until, report)


def tried(
    bench: Bench, points: Iterable[Point], jobs: Sequence[str], until: float, report: Report
) -> None:
    """Try these points, each with a job by lot, until the time is up."""
    for point in points:
        began = time.monotonic()
        if began > until:
            return
        outcome = bench.tried(point, job=random.Random(str(point)).choice(jobs))
        report.note(outcome, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
