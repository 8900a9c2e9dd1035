"""Crash points: cvl is killed at one, its guardian perhaps at another, and nothing may be left.

A `Bench` is one cloud and one warm parent (`crash_child`). Every trial begins with an empty
account, kills what the point says, lets the guardian and then one `cvl reap` do their work, and
looks at the cloud and at the ledger. Meanwhile the machine may turn hostile, and bits of the
ledger may flip: then the machine has to be gone soon after the deadline that its tag carries.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, cast

from cvl.core.spec import new_run_id
from cvl.ledger import Ledger, RunState
from cvl.testing.crash_child import LIFE
from cvl.testing.hostile import BEHAVIOURS
from cvl.testing.lambda_cloud import FAULTS, Fault, LambdaCloud, Settings, What

LISTING_LAG = 0.5
OVERDUE_LIMIT = 60.0
"""Seconds after the deadline in its tag within which a machine has to be gone, whatever happens."""
PHASES = ("starting", "booting", "running", "stopping", "fetching", "releasing")
"""The phases of a run from which on its machine, or its ledger, may not be what it should be."""
DELAYS = {
    What.LATE: 0.25,
    What.SLOW: 0.1,
    What.LINGERS: 0.3,
    What.OUTAGE: 0.6,
    What.NO_IP: 0.1,
    What.NEW_IP: 0.1,
    What.NO_SSH: 0.1,
    What.OTHER_KEY: 0.1,
    What.PREEMPTED: 0.15,
}
"""How long what goes wrong lasts here: shorter than the listing lag."""
WIRE = ("request", ("before", "sent", "after"))
DISK = ("write", ("before", "inside", "after"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Where a process dies: at its n-th request or write, or after n seconds.

    `late` is the cloud's own: the process dies while its request is under way, which then
    still takes effect.
    """

    at: str
    n: float
    when: str = ""

    def __str__(self) -> str:
        return f"{self.when} {self.at} {self.n:g}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One trial: who dies where, and what goes wrong meanwhile.

    `fault` is the cloud's; `host` the name of how the machine misbehaves, `damage` the seed of
    the bits of the ledger that flip (0: none), both from the `phase` of the run on.
    """

    client: Kill | None = None
    guardian: Kill | None = None
    fault: str = ""
    detach: bool = False
    host: str = ""
    damage: int = 0
    phase: str = "running"

    @property
    def tame(self) -> bool:
        """Whether host and ledger are what they should be."""
        return not (self.host or self.damage)

    def __str__(self) -> str:
        who = [f"client {self.client}" if self.client else ""]
        who += [f"guardian {self.guardian}" if self.guardian else "", self.fault]
        who += [f"host {self.host}" if self.host else ""]
        who += [f"damage {self.damage}" if self.damage else ""]
        who += [f"from {self.phase} on" if not self.tame else ""]
        return ", ".join(filter(None, [*who, "detached" if self.detach else ""])) or "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial came to. `leaks` says what was left, and where to look; empty is as it must be.

    `to_terminate` are the seconds from the client's death to the end of billing, where both
    happened in this order; `overdue` those from the deadline in the machine's tag, where it ended
    later; `reaped` tells that the guardian had left something to `cvl reap`.
    """

    point: Point
    status: int | None
    leaks: tuple[str, ...]
    to_terminate: float | None = None
    billed: float = 0.0
    overdue: float = 0.0
    reaped: bool = False
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    notes: str = ""
    real: bool = False

    @property
    def guarded(self) -> bool:
        """Whether a guardian was on duty, and nothing killed it."""
        return not self.point.guardian and self.counts["guardian"]["write"] > 0


class Bench:
    """One cloud and one warm parent; a context manager. Not for two threads at once."""

    def __init__(self, folder: Path, *, hosts: str = "none", boot_seconds: float = 0.05) -> None:
        """`hosts` as in `Settings`: with `none` the machine is a folder here."""
        self._root = folder
        self._number = 0
        self._real = hosts != "none"
        self.cloud = LambdaCloud(
            Settings(
                request_interval=0,
                launch_interval=0,
                boot_seconds=boot_seconds,
                terminate_seconds=0.02,
                hang_seconds=2.0,
                hosts=hosts,
            )
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "cvl.testing.crash_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=_environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.close()
        try:
            self._parent.wait(10)
        except subprocess.TimeoutExpired:
            self._parent.kill()
            self._parent.wait()
        self._parent.stdout.close()
        self.cloud.close()

    def tried(self, point: Point, **request: object) -> Outcome:
        """Go through one trial; what it leaves on disk is removed unless something leaked."""
        self._number += 1
        folder = self._root / str(self._number)
        (folder / "repo/examples/one").mkdir(parents=True)
        (folder / "repo/examples/one/example.yaml").write_text("name: one\n")
        self.cloud.reset()
        if point.fault:
            self.cloud.inject(quick(FAULTS[point.fault]))
        run_id = new_run_id("crash")
        plan = {"client": _plan(point.client), "guardian": _plan(point.guardian)}
        if point.client and point.client.when == "late":
            self.cloud.on_request(_Late(folder / "client.pid", int(point.client.n)))
        meanwhile = {"host": point.host, "damage": point.damage, "phase": point.phase}
        words = {"plan": plan, "run": run_id, "detach": point.detach, **meanwhile, **request}
        answer = self._ask(folder, words)
        outcome = self._judged(point, folder, run_id, answer)
        if not outcome.leaks:
            shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _judged(
        self, point: Point, folder: Path, run_id: str, answer: Mapping[str, object]
    ) -> Outcome:
        leaks = ["client or guardian is stuck"] if answer["stuck"] else []
        ledger = Ledger(folder / "state" / "ledger.db")
        reaped = bool(self._left(ledger, run_id, damaged=bool(point.damage)))
        died = cast("float", answer["died"])
        ends = [each.ended for each in self.cloud.bill().lines if each.ended is not None]
        if self._left(ledger, run_id, damaged=bool(point.damage)):
            self.cloud.clear_faults()
            if not point.tame:  # it goes by tags alone: then only what is past its deadline ends
                time.sleep(LIFE)
            if self._ask(folder, {"reap": True, "tame": point.tame})["stuck"]:
                leaks.append("reap is stuck")
            leaks += self._left(ledger, run_id, damaged=bool(point.damage))
        overdue = max((each.held - LIFE for each in self.cloud.bill().lines), default=0.0)
        if overdue > OVERDUE_LIMIT:
            leaks.append(f"ended {overdue:.0f} s after its deadline")
        leaks += self.cloud.violations
        if leaks:
            leaks.append(f"see {folder}")
        return Outcome(
            point=point,
            status=cast("int | None", answer["status"]),
            leaks=tuple(leaks),
            to_terminate=max(ends) - died if ends and max(ends) > died else None,
            billed=self.cloud.bill().seconds,
            overdue=0.0 if point.tame else max(overdue, 0.0),
            reaped=reaped,
            counts={who: _counts(folder / f"{who}.counts") for who in ("client", "guardian")},
            results=tuple(e.name for e in (folder / "results").rglob("*") if e.is_file()),
            notes=_text(folder / "client.notes") + _text(folder / "client.err"),
            real=self._real,
        )

    def _left(self, ledger: Ledger, run_id: str, *, damaged: bool) -> list[str]:
        """Return what is not as it must be after everything."""
        left = [f"machine {each.name} is {each.status}" for each in self.cloud.alive()]
        left += [f"key {name}" for name in list(self.cloud.keys())]
        if damaged:
            return left
        runs = [each for each in ledger.runs() if each.id == run_id]
        left += [f"the run is {each.state}" for each in runs if each.state is not RunState.ENDED]
        left += [f"{each.kind} is {each.state}" for each in ledger.leases(open_only=True)]
        return left

    def _ask(self, folder: Path, request: Mapping[str, object]) -> Mapping[str, object]:
        env = {
            **self.cloud.env,
            "CVL_STATE_DIR": str(folder / "state"),
            "LAMBDA_API_RPS": "0",
            "LAMBDA_LAUNCH_INTERVAL": "0",
            "LAMBDA_READ_LIMIT": "2" if self._real else "0.4",
            "LAMBDA_SETTLE": str(LISTING_LAG),
        }
        assert self._parent.stdin
        assert self._parent.stdout
        words = json.dumps({"env": env, "folder": str(folder), "real": self._real, **request})
        self._parent.stdin.write(words + "\n")
        self._parent.stdin.flush()
        answer: Mapping[str, object] = json.loads(self._parent.stdout.readline())
        return answer


class _Late:
    """Kills the client while the cloud has its n-th request in hand, which then goes on."""

    def __init__(self, pid: Path, n: int) -> None:
        self._pid, self._n = pid, n

    def __call__(self, entry: object, moment: str) -> None:
        if getattr(entry, "number", 0) == self._n and moment == "received":
            os.kill(int(self._pid.read_text()), signal.SIGKILL)
            time.sleep(0.1)


def quick(fault: Fault) -> Fault:
    """Return a fault that is over within the listing lag, unless it is meant to last."""
    delay = DELAYS.get(fault.what)
    return fault if delay is None or fault.delay > 10**6 else replace(fault, delay=delay)


def points(counts: Mapping[str, int]) -> list[Point]:
    """Return every point of a client that makes so many requests and writes, without a fault."""
    kills = [
        Kill(at=at, n=n, when=when)
        for at, moments in (WIRE, DISK)
        for n in range(1, counts[at] + 1)
        for when in moments
    ]
    late = [Kill(at="request", n=n, when="late") for n in range(1, counts["request"] + 1)]
    return [Point(client=kill) for kill in [*kills, *late]]


def anywhere(counts: Mapping[str, int], choice: random.Random) -> Kill:
    """Return a point of a process, of any kind."""
    at, moments = choice.choice((WIRE, DISK, ("time", ("",))))
    if at == "time":
        return Kill(at=at, n=round(choice.uniform(0.001, 0.6), 4))
    return Kill(at=at, n=choice.randint(1, max(counts[at], 1)), when=choice.choice(moments))


def mixed(counts: Mapping[str, Mapping[str, int]], number: int, seed: int = 0) -> list[Point]:
    """Return points drawn by lot: a kill of the client, often a fault, sometimes a second kill."""
    choice = random.Random(seed)
    names = sorted(FAULTS)
    return [
        Point(
            client=anywhere(counts["client"], choice),
            guardian=anywhere(counts["guardian"], choice) if choice.random() < 0.3 else None,
            fault=names[index % len(names)] if choice.random() < 0.8 else "",
            detach=choice.random() < 0.2,
        )
        for index in range(number)
    ]


def hostile(number: int, seed: int = 0) -> list[Point]:
    """Return points drawn by lot at which the machine misbehaves, or the ledger is damaged.

    Every behaviour comes up, from every phase on; most clients are killed.
    """
    choice = random.Random(seed)
    names = sorted(BEHAVIOURS)
    choice.shuffle(names)
    return [
        Point(
            client=Kill(at="time", n=round(choice.uniform(0.05, 1.0), 3)) if index % 3 else None,
            host=names[index % len(names)] if index % 4 else "",
            damage=choice.randint(1, 1 << 30) if index % 4 in {0, 1} else 0,
            detach=choice.random() < 0.2,
            phase=choice.choice(PHASES),
        )
        for index in range(number)
    ]


def _plan(kill: Kill | None) -> Mapping[str, object]:
    return {"at": kill.at, "n": kill.n, "when": kill.when} if kill else {}


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CVL_", "LAMBDA_"))}
    return {**kept, "HOME": tempfile.gettempdir(), "PYTHONDONTWRITEBYTECODE": "1"}


def _counts(path: Path) -> Mapping[str, int]:
    found: Mapping[str, int] = json.loads(_text(path) or '{"request": 0, "write": 0}')
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def summary(seconds: Sequence[float]) -> str:
    """Return median, p99 and the worst."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    p99 = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
    return f"median {ordered[len(ordered) // 2]:.2f}, p99 {p99:.2f}, worst {ordered[-1]:.2f}"
