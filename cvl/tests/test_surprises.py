"""Whatever goes wrong, wherever: what was rented is given back."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from threading import Thread, Timer

import pytest

from cvl.cleanup import release, until_gone
from cvl.cleanup.leases import Leases
from cvl.core import interfaces
from cvl.core.errors import CvlError, StillOpen, Unreadable
from cvl.core.parallel import together
from cvl.core.paths import ledger_file
from cvl.core.process import me
from cvl.core.scope import Scope, Tell, silent
from cvl.core.spec import GRACE, Cause, ExitStatus, JobSpec, LogChunk, Plan, Resource, ended
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import guardian_listener, takeover
from cvl.operations.guardian_listener import Listener
from cvl.run import lifecycle
from cvl.run.context import Context

RUN = "rented-1124-050000-0123456789"
SPEC = JobSpec(run_id=RUN, argv=("true",), example="examples/toy", preset="train")
SURPRISES: Mapping[str, Exception] = {
    "key": KeyError("machine"),
    "value": ValueError("invalid literal for int() with base 10: 'exited'"),
    "memory": MemoryError(),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "system": OSError(5, "Input/output error"),
    "text": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "type": TypeError("'NoneType' object is not subscriptable"),
    "assertion": AssertionError(),
    "unreadable": Unreadable("somewhere answered what cannot be read"),
}
FLIPS = 150
PLACES = ("attach", "chunks", "poll", "stop", "fetch", "discard", "close")


@dataclass
class Rented:
    """A provider with one rented machine and the job on it, both of which fail where told."""

    where: str = ""
    surprise: Exception = field(default_factory=RuntimeError)
    alive: bool = False
    end: ExitStatus | None = None
    many_nodes: bool = False
    guarded: bool = True
    stop_limit: float = 0.5
    name: str = "rented"
    listing_lag: float = 0.1
    unique: frozenset[str] = frozenset()
    secrets: Mapping[str, str] = field(default_factory=dict)
    handle_: Mapping[str, str] = field(default_factory=lambda: {"run": RUN})
    asked: list[str] = field(default_factory=list)

    def _at(self, place: str) -> None:
        self.asked.append(place)
        if place == self.where:
            raise self.surprise

    def plan(self, spec: JobSpec) -> Plan:
        del spec
        return Plan(runner="rented", where="somewhere", request={})

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {"run": spec.run_id}

    def launch(self, spec: JobSpec, leases: interfaces.Leases, scope: Scope) -> Job:
        del spec, scope
        self.rent(leases)
        self._at("launch")
        return Job(self)

    def rent(self, leases: interfaces.Leases) -> None:
        def create() -> str:
            self.alive = True
            return "i-1"

        leases.acquire(machine(), create)

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> Job:
        del handle, tell
        self._at("attach")
        return Job(self)

    def owned(self, kind: str = "") -> list[Resource]:
        del kind
        return [machine("i-1")] if self.alive else []

    def destroy(self, resource: Resource) -> None:
        assert resource.id == "i-1"
        self.alive = False


@dataclass
class Job:
    """Its job: runs until it is stopped."""

    there: Rented
    handle: Mapping[str, str] = field(default_factory=lambda: {"run": RUN})

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        del after
        self.there._at("chunks")
        yield from ()

    def written(self, after: str = "") -> None:
        del after

    def poll(self) -> ExitStatus | None:
        self.there._at("poll")
        return self.there.end

    def stop(self, grace: float, cause: Cause) -> None:
        del grace
        self.there._at("stop")
        self.there.end = ended(cause, run_id=RUN)

    def fetch(self, into: Path, scope: Scope) -> None:
        del into, scope
        self.there._at("fetch")

    def discard(self) -> None:
        self.there._at("discard")

    def close(self) -> None:
        self.there._at("close")


def machine(id_: str = "") -> Resource:
    price = Decimal("0.75")
    return Resource(kind="instance", name=f"cvl-{RUN}", id=id_, run_id=RUN, price_per_hour=price)


@dataclass
class Quiet:
    """An observer that keeps what it hears."""

    heard: list[str] = field(default_factory=list)

    def phase(self, name: str, text: str) -> None:
        self.heard.append(f"{name} {text}")

    def output(self, chunk: LogChunk) -> None:
        del chunk

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(autouse=True)
def soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(release, "LOOK", 0.02)
    monkeypatch.setattr(until_gone, "PAUSES", (0.02,) * 3)


@pytest.fixture
def options(tmp_path: Path) -> lifecycle.Options:
    return lifecycle.Options(
        observer=Quiet(), results=tmp_path / "results", guarded=False, grace=0.1, fetch_limit=1.0
    )


def running(there: Rented, **facts: object) -> Run:
    """Note a run whose machine is rented and whose job runs; its driver is this process."""
    ledger = Ledger(ledger_file())
    ledger.begin(Run(id=RUN, runner="rented", owner=me(), handle={"run": RUN}, **facts))  # type: ignore[arg-type]
    ledger.advance(RUN, RunState.LAUNCHING)
    there.rent(Leases(ledger, RUN, there, Scope()))
    ledger.advance(RUN, RunState.RUNNING)
    return ledger.run(RUN)


@pytest.mark.parametrize("kind", SURPRISES)
def test_a_launch_that_dies_after_renting_is_released(
    kind: str, options: lifecycle.Options
) -> None:
    there, ledger = Rented("launch", SURPRISES[kind]), Ledger(ledger_file())
    with pytest.raises(CvlError) as told:
        lifecycle.run(SPEC, there, ledger, options)
    assert told.value.exit_code == 125
    assert "\n" not in str(told.value)
    assert (there.alive, ledger.run(RUN).state) == (False, RunState.ENDED)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", SURPRISES)
def test_whoever_stops_a_run_releases_it(kind: str, where: str, options: lifecycle.Options) -> None:
    """As the guardian and `reap` do: the job is to be stopped, and something goes wrong."""
    there, ledger = Rented(where, SURPRISES[kind]), Ledger(ledger_file())
    record = running(there)
    lifecycle.recover(Context(record, there, ledger, options), cause=Cause.STOPPED)
    assert (there.alive, ledger.run(RUN).state) == (False, RunState.ENDED)


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("where", ["attach", "fetch"])
def test_an_end_that_is_known_stays_the_end(
    where: str, code: int, options: lifecycle.Options
) -> None:
    """Zero as any other: whoever goes on has not to ask for it, and concludes nothing else."""
    there, ledger = Rented(where, SURPRISES["unreadable"]), Ledger(ledger_file())
    running(there)
    ledger.advance(RUN, RunState.FETCHING, status=ExitStatus(code, run_id=RUN))
    status = lifecycle.recover(Context(ledger.run(RUN), there, ledger, options), cause=None)
    assert (int(status), status.cause) == (code, Cause.EXITED)
    noted = ledger.run(RUN)
    assert (noted.state, noted.exit_code, noted.cause) == (RunState.ENDED, code, Cause.EXITED)
    assert (there.alive, "chunks" in there.asked, "poll" in there.asked) == (False, False, False)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("code", [0, 3])
def test_what_is_only_to_be_released_keeps_its_end(
    code: int, at_once: bool, options: lifecycle.Options
) -> None:
    there, ledger = Rented(), Ledger(ledger_file())
    running(there)
    ledger.advance(RUN, RunState.FETCHING, status=ExitStatus(code, run_id=RUN))
    if not at_once:
        ledger.advance(RUN, RunState.RELEASING)
    ctx = Context(ledger.run(RUN), there, ledger, options)
    status = lifecycle.recover(ctx, Cause.STOPPED, at_once=at_once)
    assert (int(status), status.cause) == (code, Cause.EXITED)
    assert (ledger.run(RUN).exit_code, there.alive) == (code, False)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", ["key", "unreadable"])
def test_a_followed_run_is_released_at_its_deadline(
    kind: str, where: str, options: lifecycle.Options
) -> None:
    """What goes wrong before may pass: it is raised, to be tried again."""
    there, ledger = Rented(where, SURPRISES[kind]), Ledger(ledger_file())
    running(there)
    Leases(ledger, RUN, there, Scope()).until(0.3, 0.4)
    for _ in range(20):
        try:
            lifecycle.recover(Context(ledger.run(RUN), there, ledger, options), cause=None)
        except CvlError as error:
            assert not isinstance(error, StillOpen)  # noqa: PT017
            ledger.take(RUN, me(), ledger.run(RUN).owner)
        except (KeyError, Unreadable):
            pass
        if ledger.run(RUN).state is RunState.ENDED:
            break
        if ledger.run(RUN).deadline is not None and not there.alive:
            break
        late(there, ledger, options)
    assert not there.alive


def late(there: Rented, ledger: Ledger, options: lifecycle.Options) -> None:
    """Do what the guardian does once the limit has passed."""
    import time

    if time.time() >= (ledger.run(RUN).deadline or 0):
        lifecycle.recover(Context(ledger.run(RUN), there, ledger, options), cause=Cause.TIMEOUT)
    time.sleep(0.05)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", ["value", "memory", "unreadable"])
def test_without_a_ledger_it_is_released_all_the_same(
    kind: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Rented(where, SURPRISES[kind])
    without_ledger(there, monkeypatch)
    assert not there.alive


def test_without_a_ledger_its_job_is_stopped_and_its_results_are_brought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = Rented()
    without_ledger(there, monkeypatch)
    assert {"stop", "fetch"} <= {*there.asked}
    assert (there.end and there.end.cause, there.alive) == (Cause.STOPPED, False)


@pytest.mark.parametrize("ledger", ["damaged", "removed", "another"])
def test_without_a_ledger_a_job_is_followed_though_its_host_gives_no_answer_for_a_while(
    ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Rented("attach", SURPRISES["unreadable"], end=ExitStatus(0, run_id=RUN))
    record = running(there, results="/nowhere", detached=True)
    if ledger == "damaged":
        ledger_file().write_bytes(b"no database" * 1000)
    else:
        ledger_file().unlink()
    if ledger == "another":
        Ledger(ledger_file()).begin(Run(id="another-1124-050000-0123456789"))
    Timer(0.5, lambda: setattr(there, "where", "")).start()
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    assert takeover.take_over(record, "gone", {}, Deaf(10.0)) == 0  # type: ignore[arg-type]
    assert ("fetch" in there.asked, there.alive) == (True, False)


def without_ledger(there: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a guardian take over, which has known the run since before its job had begun."""
    record = replace(running(there, results="/nowhere"), state=RunState.LAUNCHING)
    ledger_file().write_bytes(b"no database" * 1000)
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    assert takeover.take_over(record, "gone", {}, Deaf(10.0)) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "value"),
    [("handle", '{"run": 5}'), ("results", None), ("detached", None), ("runner", None)],
)
def test_what_the_ledger_has_lost_is_known_from_the_start(
    column: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a job is followed, or stopped, and its results are brought."""
    there, known = Rented(), dict[str, str]()
    record = running(there, results="/nowhere", detached=column == "detached")
    there.end = ExitStatus(0, run_id=RUN) if record.detached else None
    with closing(sqlite3.connect(ledger_file(), isolation_level=None)) as db:
        db.execute(f"UPDATE runs SET {column} = ?", (value,))
    assert Ledger(ledger_file()).run(RUN).damage == (column,)

    def reopened(_name: str, handle: Mapping[str, str], _secrets: object) -> Rented:
        known.update(handle)
        return there

    monkeypatch.setattr(takeover, "reopen", reopened)
    assert takeover.take_over(record, "gone", {}, Deaf(10.0)) == 0  # type: ignore[arg-type]
    assert (known, there.alive, "fetch" in there.asked) == (record.handle, False, True)
    assert ("stop" in there.asked) is (not record.detached)


class Deaf:
    """The ears of a guardian to which nothing is said; its last limit is `last` seconds away."""

    hurried = False

    def __init__(self, last: float) -> None:
        import time

        self._now = time.monotonic
        self._last = self._now() + last

    def left(self) -> float:
        return max(self._last - 0.2 - self._now(), 0.0)

    def last(self) -> float:
        return max(self._last - self._now(), 0.0)

    def at_the_latest(self, seconds: float) -> None:
        del seconds

    def hear(self) -> None:
        import time

        time.sleep(min(self.last(), 0.05))

    def wake(self) -> None:
        return


@pytest.mark.parametrize("where", ["attach", "poll", "stop", "fetch", "chunks"])
def test_a_host_that_hangs_for_ever_does_not_hold_the_guardian(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading
    import time

    there = Rented()
    record = running(there)
    never = threading.Event()

    def at(place: str) -> None:
        if place == where:
            never.wait()

    there._at = at  # type: ignore[method-assign]
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    monkeypatch.setattr(takeover, "GIVE_WAY", 0.3)
    began = time.monotonic()
    assert takeover.take_over(record, "late", {}, Deaf(1.0)) == 0  # type: ignore[arg-type]
    assert time.monotonic() - began < 15
    assert not there.alive
    assert Ledger(ledger_file()).run(RUN).state is RunState.ENDED
    never.set()


def test_a_stop_is_waited_for_as_long_as_its_provider_declares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, ears, told = Rented(stop_limit=900.0), Deaf(10.0), list[float]()
    record = running(there)
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    monkeypatch.setattr(ears, "at_the_latest", told.append)
    assert takeover.take_over(record, "gone", {}, ears) == 0  # type: ignore[arg-type]
    assert told == [GRACE + 900.0 + takeover.ANY_END]


def test_side_by_side_one_that_fails_or_hangs_is_in_nobody_s_way() -> None:
    import threading

    def fails() -> int:
        raise MemoryError

    never: Callable[[], object] = threading.Event().wait
    one, two, three = together([fails, never, lambda: 3], 0.5)
    assert isinstance(one, MemoryError)
    assert isinstance(two, TimeoutError)
    assert three == 3


def test_whatever_bits_of_the_ledger_flip_the_machine_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the guardian does when there is no more time."""
    import random

    there = Rented(listing_lag=0.0)
    record = running(there)
    sound, chance = ledger_file().read_bytes(), random.Random(7)
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    monkeypatch.setattr(takeover, "PAUSES", (0.01,))
    for _ in range(FLIPS):
        data = bytearray(sound)
        for _ in range(chance.choice((1, 1, 8))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        for left in ledger_file().parent.glob("ledger.db*"):
            left.unlink()
        ledger_file().write_bytes(data)
        there.alive = True
        takeover.Work(record, "release", {}, Deaf(0.0)).go()  # type: ignore[arg-type]
        assert not there.alive


@pytest.fixture
def ears() -> Iterator[Listener]:
    """Those of a guardian to which nothing was said."""
    before = signal.getsignal(signal.SIGTERM)
    yield Listener(os.getpid())
    signal.signal(signal.SIGTERM, before)


def test_a_limit_that_was_noted_counts_though_nobody_has_told_it(
    ears: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client was killed when a guardian had just taken the place of one that had died."""
    there = Rented("attach", SURPRISES["unreadable"])
    Leases(Ledger(ledger_file()), running(there, detached=True).id, there, Scope()).until(0.5, 0.4)
    record = Ledger(ledger_file()).run(RUN)
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    monkeypatch.setattr(takeover, "PAUSES", (0.05,))
    guardian = Thread(target=takeover.take_over, args=(record, "gone", {}, ears), daemon=True)
    guardian.start()
    guardian.join(10)
    assert not there.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("where", ["attach", "fetch"])
def test_a_guardian_s_thread_that_dies_leaves_the_release_to_the_other(
    where: str, ears: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Rented(where, SystemExit(3))  # type: ignore[arg-type]
    record = running(there, results="/nowhere")
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    monkeypatch.setattr(guardian_listener, "LONG", 0.1)
    assert takeover.take_over(record, "follow" if where == "attach" else "gone", {}, ears) == 0
    assert (there.alive, Ledger(ledger_file()).run(RUN).state) == (False, RunState.ENDED)


def test_where_no_thread_can_be_had_what_is_rented_ends_without(
    ears: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Rented()
    record = running(there)
    monkeypatch.setattr(takeover, "reopen", lambda *_: there)
    monkeypatch.setattr(Thread, "start", none_more)
    assert takeover.take_over(record, "gone", {}, ears) == 0
    assert (there.alive, Ledger(ledger_file()).run(RUN).state) == (False, RunState.ENDED)


def none_more(_thread: Thread) -> None:
    raise RuntimeError("can't start new thread")
