"""Rented machines: what is billed beyond the job, and how soon that ends when cvl dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from bench.commands import Run, started_with, timed, wait_for
from bench.cvls import Cvl
from bench.pairs import Found, in_turns
from bench.values import Failed, Goal, Sample, Table, Topic
from bench.work import Work, example
from cvl.testing.lambda_cloud import Entry, LambdaCloud, Moment, Settings

JOB = 2.0
"""Seconds that the measured job takes."""
BOOT = 1.0
HASTE = 10.0
"""How much faster than the real API's limits the crowds are: 100 launches in 2 minutes, not 20."""
THROTTLED = "other programs may use the same account"
"""What a run says that ends because a request which makes something was answered with 429."""
LAUNCH_EVERY = 12.0
LISTING_LAG = {"LAMBDA_SETTLE": "3"}
"""Seconds in which the stand-in may not list what it made. The real one may take 120, which a run
that is shorter than that waits for in the end: nothing is billed then."""
KILL = "kill -9 while the job runs"
PATIENCE = 240.0
"""Seconds that a crowd may take; one that would take longer here is not measured."""
REASONS = {
    "a run": "Billing starts when the machine is active; what is beyond the job is ssh's first "
    "answer, the start, the fetch, and the pace of one request a second.",
    "kill": "The guardian first stops the job (its grace is 10 s), fetches, then terminates; each "
    "request waits for the pace of one a second.",
}
WORDS = ("-y", "--remote", "lambda", "--gpu-type", "gpu_1x_a10", "--timeout", "20m")


def measure(work: Work) -> Topic:
    """Measure single runs, kills, and crowds, by the cloud's own meter and log."""
    topic = Topic(
        name="rented",
        title="Rented machines",
        question="What is billed beyond the job, and how soon does billing end when cvl dies?",
    )
    repo = work.folder / "repo"
    example(repo, "short", f"sleep {JOB:g}\n")
    example(repo, "endless", "echo ready; sleep 600\n")
    cvl, rounds = work.cvls[0], work.sizes.rounds
    with LambdaCloud(Settings(boot_seconds=BOOT, launch_interval=0, hosts="auto")) as cloud:
        pace = {"LAMBDA_LAUNCH_INTERVAL": "0", **LISTING_LAG}
        with _renter(work, cloud, cvl, pace) as renter:
            measures = {"a run": renter.billed, KILL: renter.killed}
            found = in_turns(measures, rounds=min(5, rounds), seconds=work.seconds / 3, warm=False)
        topic.missing |= found.missing
        topic.tables += _single(found)
        topic.notes.append(
            f"A stand-in for the vendor's API on loopback; machines: {cloud.hosts.kind}. At the "
            f"API's real pace of one request a second; boot takes {BOOT:g} s, the job {JOB:g} s."
        )
    settings = Settings(
        boot_seconds=BOOT,
        request_interval=1 / HASTE,
        launch_interval=LAUNCH_EVERY / HASTE,
        hosts="auto",
    )
    with LambdaCloud(settings) as cloud:
        pace = {
            **LISTING_LAG,
            "LAMBDA_API_RPS": f"{HASTE:g}",
            "LAMBDA_LAUNCH_INTERVAL": f"{LAUNCH_EVERY / HASTE:g}",
        }
        with _renter(work, cloud, cvl, pace) as renter:
            topic.tables += _crowds(_grown(topic, renter, work.sizes.rents))
    topic.reasons = REASONS
    topic.notes.append(
        f"Crowds: the API's limits and cvl's pace are {HASTE:g} times the real ones, so that what "
        f"is late on a busy machine counts {HASTE:g} times as much. A launch that is answered with "
        "429 is not repeated, for nobody knows what became of it: the run sees that nothing was "
        "made, and ends."
    )
    return topic


def _grown(topic: Topic, renter: _Renter, counts: Sequence[int]) -> dict[int, Sample]:
    """Measure larger and larger crowds, as far as this machine's time allows."""
    found: dict[int, Sample] = {}
    for count in counts:
        last = max(found, default=0)
        needed = found[last]["s"] * count / last if last > 1 else 0.0
        if needed > PATIENCE:
            topic.missing[f"{count} runs at once"] = f"it would take about {needed:.0f} s here"
            continue
        found[count] = renter.crowd(count)
    return found


@contextmanager
def _renter(work: Work, cloud: LambdaCloud, cvl: Cvl, pace: dict[str, str]) -> Iterator[_Renter]:
    """Give somebody who rents at this cloud; nothing that was started is left afterwards."""
    renter = _Renter(work, cloud, cvl, pace)
    try:
        yield renter
    finally:
        renter.close()


class _Renter:
    """Somebody who rents at one cloud, and looks at its meter."""

    def __init__(self, work: Work, cloud: LambdaCloud, cvl: Cvl, pace: dict[str, str]) -> None:
        self._cloud, self._cvl = cloud, cvl
        self._state = str(work.folder / f"state-{cloud.port}")
        self._env = cvl.environment(
            **cloud.env,
            **pace,
            CVL_STATE_DIR=self._state,
            CVL_ROOT=str(work.folder / "repo"),
        )
        self._cwd = work.folder

    def billed(self) -> Sample:
        """Run a job to its end; what was billed beyond it, and how often the API was asked."""
        before = len(self._cloud.log)
        timed(self._argv("short"), self._env, cwd=self._cwd)
        line = self._cloud.bill().lines[-1]
        if self._cloud.alive():
            raise Failed("a machine was left")
        return {"beyond_s": line.seconds - JOB, "requests": len(self._cloud.log) - before}

    def killed(self) -> Sample:
        """Kill cvl while the job runs; how long until terminate is asked for, and is seen done."""
        asked: list[float] = []

        def hear(entry: Entry, moment: Moment) -> None:
            if moment is Moment.RECEIVED and entry.operation == "terminateInstance":
                asked.append(time.perf_counter())

        self._cloud.on_request(hear)
        with Run(self._argv("endless"), self._env, cwd=self._cwd, piped=True) as run:
            if not run.stdout.read(5):
                raise Failed("the job did not start")
            died = time.perf_counter()
            run.process.send_signal(signal.SIGKILL)
            wait_for(lambda: asked and not self._cloud.alive())
        return {"asked_s": asked[0] - died, "gone_s": time.perf_counter() - died}

    def crowd(self, count: int) -> Sample:
        """Run many at once: wall clock, requests, refusals for pace, what was left."""
        before, billed = len(self._cloud.log), len(self._cloud.bill().lines)
        ended, began = 0, time.perf_counter()
        with ExitStack() as stack:
            argv = self._argv("short")
            runs = [stack.enter_context(Run(argv, self._env, cwd=self._cwd)) for _ in range(count)]
            for run in runs:
                try:
                    run.ended()
                except Failed as why:
                    if THROTTLED not in str(why):
                        raise
                    ended += 1
        seconds = time.perf_counter() - began
        log = self._cloud.log[before:]
        bill = self._cloud.bill().lines[billed:]
        return {
            "s": seconds,
            "pace_s": (count - 1) * LAUNCH_EVERY / HASTE,
            "requests": len(log) / count,
            "refused": sum(entry.status == 429 for entry in log),
            "ended": ended,
            "beyond_s": sum(line.seconds - JOB for line in bill) / max(1, len(bill)),
            "left": len(self._cloud.alive()),
        }

    def close(self) -> None:
        """End guardians that still try: their cloud goes away now."""
        for pid in started_with(f"CVL_STATE_DIR={self._state}"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _argv(self, name: str) -> Sequence[str]:
        return [self._cvl.program, "run", "-q", *WORDS, name, "train"]


def _single(found: Found) -> list[Table]:
    goals = {"a run": Goal(limit=3.0, ratio=False)}
    note = "By the cloud's meter: from the health checks passed to the terminate heard."
    return [
        found.table("Billed beyond the job", "beyond_s", "s", "", goals, note=note),
        found.table("API requests of a run", "requests", "requests", ""),
        found.table(
            "From the kill to the terminate request",
            "asked_s",
            "s",
            "",
            note="The guardian stops the job with its grace, fetches, then terminates.",
        ),
        found.table(
            "From the kill to no machine being alive",
            "gone_s",
            "s",
            "",
            {KILL: Goal(limit=30.0, ratio=False)},
        ),
    ]


def _crowds(crowds: dict[int, Sample]) -> list[Table]:
    """Return what crowds took, one sample each."""
    rows = {
        "wall clock": ("s", "s"),
        "least that the launch limit allows": ("pace_s", "s"),
        "API requests of each run": ("requests", "requests"),
        "requests refused for their pace (429)": ("refused", "requests"),
        "runs that such a refusal has ended": ("ended", "runs"),
        "billed beyond the job, each": ("beyond_s", "s"),
        "machines left": ("left", "machines"),
    }
    return [
        Table(
            title=f"{', '.join(map(str, crowds))} runs at once: {title}",
            unit=unit,
            base="",
            samples={f"{n} at once": [sample[metric]] for n, sample in crowds.items()},
        )
        for title, (metric, unit) in rows.items()
    ]
