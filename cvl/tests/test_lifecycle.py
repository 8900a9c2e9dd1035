"""The life of one run against a provider that does what it is told, badly where that is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cvl.cleanup import leases as cleanup
from cvl.cleanup.guardian_keeper import Guard
from cvl.core.errors import (
    AuthError,
    CvlError,
    FetchError,
    HostKeyError,
    LostContact,
    NotReady,
    Unreachable,
    UsageError,
)
from cvl.core.interfaces import Leases
from cvl.core.scope import Cancelled, DeadlineExceeded, Scope, Tell, silent
from cvl.core.spec import STOP_LIMIT, Cause, ExitStatus, JobSpec, LogChunk, Plan, Resource, ended
from cvl.ledger import Ledger, RunState
from cvl.run import lifecycle
from cvl.run.context import Context
from cvl.run.options import stop_limit

RUN = "toy-1"
SPEC = JobSpec(run_id=RUN, argv=("true",), example="examples/toy", preset="train")


@dataclass
class Job:
    """An execution: what it says, how it ends, and what goes wrong on the way."""

    said: list[bytes] = field(default_factory=lambda: [b"one\n", b"two\n"])
    end: ExitStatus | None = field(default_factory=lambda: ExitStatus(3, run_id=RUN))
    trouble: Exception | None = None
    on_fetch: Callable[[], None] = lambda: None
    stopped: list[Cause] = field(default_factory=list)
    fetched: int = 0
    closed: int = 0
    handle: Mapping[str, str] = field(default_factory=lambda: {"run": RUN})

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        whole = b"".join(self.said)
        offset = int(after or 0)
        if whole[offset:]:
            yield LogChunk(data=whole[offset:], cursor=str(len(whole)))
        if self.trouble:
            raise self.trouble

    def written(self, after: str = "") -> None:
        del after

    def poll(self) -> ExitStatus | None:
        return self.end

    def stop(self, grace: float, cause: Cause) -> None:
        del grace
        self.stopped.append(cause)
        self.end = ended(cause, run_id=RUN)

    def fetch(self, into: Path, scope: Scope) -> None:
        del into, scope
        self.fetched += 1
        self.on_fetch()

    def discard(self) -> None:
        return

    def close(self) -> None:
        self.closed += 1


@dataclass
class Toy:
    """A provider with one job."""

    job: Job = field(default_factory=Job)
    on_launch: Callable[[Scope], None] = lambda _scope: None
    many_nodes: bool = False
    guarded: bool = True
    stop_limit: float = STOP_LIMIT
    name: str = "toy"
    listing_lag: float = 0.0
    unique: frozenset[str] = frozenset()
    secrets: Mapping[str, str] = field(default_factory=dict)

    def plan(self, spec: JobSpec) -> Plan:
        del spec
        return Plan(runner="toy", where="toyland", request={})

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> Job:
        del spec, leases
        self.on_launch(scope)
        return self.job

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {"run": spec.run_id}

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> Job:
        del handle, tell
        return self.job

    def owned(self, kind: str = "") -> tuple[Resource, ...]:
        del kind
        return ()

    def destroy(self, resource: Resource) -> None:
        raise AssertionError(resource)


@dataclass
class Ear:
    """An observer that remembers."""

    heard: list[str] = field(default_factory=list)
    output_seen: list[bytes] = field(default_factory=list)
    on_output: Callable[[], None] = lambda: None

    def phase(self, name: str, text: str) -> None:
        self.heard.append(f"{name}: {text}")

    def output(self, chunk: LogChunk) -> None:
        self.output_seen.append(chunk.data)
        self.on_output()

    def warn(self, text: str) -> None:
        self.heard.append(f"warn: {text}")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return Ledger(tmp_path / "state/ledger.db")


@pytest.fixture
def options(tmp_path: Path) -> lifecycle.Options:
    return lifecycle.Options(observer=Ear(), results=tmp_path / "results", guarded=False)


def ear(options: lifecycle.Options) -> Ear:
    assert isinstance(options.observer, Ear)
    return options.observer


def test_a_run_from_start_to_end(ledger: Ledger, options: lifecycle.Options) -> None:
    toy = Toy()
    status = lifecycle.run(SPEC, toy, ledger, options)
    run = ledger.run(RUN)
    assert (int(status), status.cause, status.run_id) == (3, Cause.EXITED, RUN)
    assert (run.state, run.exit_code, run.fetched, run.owner) == (RunState.ENDED, 3, True, "")
    assert b"".join(ear(options).output_seen) == b"one\ntwo\n"
    assert (toy.job.fetched, toy.job.closed >= 1) == (1, True)


def test_what_is_refused_is_not_even_noted(ledger: Ledger, options: lifecycle.Options) -> None:
    with pytest.raises(UsageError, match="one node"):
        lifecycle.run(replace(SPEC, nodes=2), Toy(), ledger, options)

    def refuse(plan: Plan) -> None:
        raise CvlError(f"not on {plan.where}")

    with pytest.raises(CvlError, match="toyland"):
        lifecycle.run(SPEC, Toy(), ledger, replace(options, agree=refuse))
    assert ledger.runs() == []


def test_a_launch_that_fails_has_ended(ledger: Ledger, options: lifecycle.Options) -> None:
    def fail(_: Scope) -> None:
        raise NotReady("toyland has no sh")

    with pytest.raises(NotReady):
        lifecycle.run(SPEC, Toy(on_launch=fail), ledger, options)
    run = ledger.run(RUN)
    assert (run.state, run.exit_code, run.cause) == (RunState.ENDED, 125, Cause.NOT_STARTED)


@pytest.mark.parametrize(
    "trouble",
    [HostKeyError("its key has changed"), AuthError("no"), LostContact("gone", "wait")],
)
def test_a_job_that_cannot_be_followed_lives_on_and_is_named(
    trouble: CvlError, ledger: Ledger, options: lifecycle.Options
) -> None:
    toy = Toy(job=Job(trouble=trouble, end=None))
    with pytest.raises(LostContact, match=str(trouble)) as caught:
        lifecycle.run(SPEC, toy, ledger, options)
    assert f"cvl attach {RUN}" in caught.value.hint
    run = ledger.run(RUN)
    assert (run.state, run.owner, run.exit_code) == (RunState.RUNNING, "", None)
    toy.job.trouble, toy.job.end = None, ExitStatus(4, run_id=RUN)
    assert lifecycle.attach(run, toy, ledger, options) == 4
    assert b"".join(ear(options).output_seen) == b"one\ntwo\n"
    assert ledger.run(RUN).state is RunState.ENDED


def test_results_that_do_not_come_are_said_and_the_run_is_over(
    ledger: Ledger, options: lifecycle.Options
) -> None:
    def late() -> None:
        raise DeadlineExceeded

    with pytest.raises(FetchError, match="did not arrive within") as caught:
        lifecycle.run(SPEC, Toy(job=Job(on_fetch=late)), ledger, options)
    assert f"cvl fetch {RUN}" in caught.value.hint
    run = ledger.run(RUN)
    assert (run.state, run.exit_code, run.fetched) == (RunState.ENDED, 3, False)


def test_that_a_run_is_lost_says_more_than_that_its_results_are(
    ledger: Ledger, options: lifecycle.Options
) -> None:
    def fail() -> None:
        raise FetchError("no such run")

    job = Job(end=ended(Cause.LOST, run_id=RUN), on_fetch=fail)
    status = lifecycle.run(SPEC, Toy(job=job), ledger, options)
    assert (int(status), status.cause) == (125, Cause.LOST)
    assert "warn: no such run" in ear(options).heard


@pytest.mark.parametrize(("cause", "code"), [(Cause.INTERRUPTED, 130), (Cause.TERMINATED, 143)])
def test_to_stop_while_it_starts(
    cause: Cause, code: int, ledger: Ledger, options: lifecycle.Options
) -> None:
    def interrupted(scope: Scope) -> None:
        scope.cancel(cause)
        raise Cancelled(cause)

    running = Toy(job=Job(end=None), on_launch=interrupted)
    status = lifecycle.run(SPEC, running, ledger, options)
    assert (int(status), running.job.stopped, running.job.fetched) == (code, [cause], 1)
    unknown = Toy(job=Job(end=ended(Cause.LOST)), on_launch=interrupted)
    status = lifecycle.run(replace(SPEC, run_id="toy-2"), unknown, ledger, options)
    assert (int(status), status.cause, unknown.job.stopped) == (code, cause, [])
    assert {run.state for run in ledger.runs()} == {RunState.ENDED}


def test_a_job_that_has_ended_while_it_was_interrupted_is_brought_home(
    ledger: Ledger, options: lifecycle.Options
) -> None:
    def interrupted(scope: Scope) -> None:
        scope.cancel(Cause.INTERRUPTED)
        raise Cancelled(Cause.INTERRUPTED)

    toy = Toy(on_launch=interrupted)
    lifecycle.run(SPEC, toy, ledger, options)
    assert toy.job.fetched == 1
    assert b"".join(ear(options).output_seen) == b"one\ntwo\n"


def test_a_reader_who_has_stopped_reading_does_not_keep_the_end_from_us(
    ledger: Ledger, options: lifecycle.Options
) -> None:
    forever = threading.Event()
    scopes: list[Scope] = []
    toy = Toy(job=Job(end=None), on_launch=scopes.append, stop_limit=0.2)
    observer = Ear()

    def stuck() -> None:
        scopes[0].cancel(Cause.INTERRUPTED)
        forever.wait(30)

    observer.on_output = stuck
    toy.job.close = forever.set  # type: ignore[method-assign]
    assert lifecycle.run(SPEC, toy, ledger, replace(options, observer=observer, grace=0.0)) == 130
    assert ledger.run(RUN).state is RunState.ENDED


def test_a_hang_up_leaves_the_job_and_always_says_so(
    ledger: Ledger, options: lifecycle.Options
) -> None:
    def hang_up(scope: Scope) -> None:
        scope.cancel(Cause.HANGUP)

    toy = Toy(job=Job(end=None), on_launch=hang_up)
    status = lifecycle.run(SPEC, toy, ledger, options)
    assert (int(status), toy.job.stopped) == (129, [])
    assert any(f"cvl attach {RUN}" in line for line in ear(options).heard if "warn" in line)
    assert (ledger.run(RUN).state, ledger.run(RUN).owner) == (RunState.RUNNING, "")


def test_a_stop_that_cannot_be_delivered_is_tried_and_then_said(
    ledger: Ledger, options: lifecycle.Options
) -> None:
    class Deaf(Job):
        def stop(self, grace: float, cause: Cause) -> None:
            del grace, cause
            raise Unreachable("toyland is down")

    def interrupted(scope: Scope) -> None:
        scope.cancel(Cause.INTERRUPTED)

    toy = Toy(job=Deaf(end=None), on_launch=interrupted, stop_limit=0.2)
    with pytest.raises(LostContact, match="could not see toy-1 end") as caught:
        lifecycle.run(SPEC, toy, ledger, replace(options, grace=0.0))
    assert f"cvl stop {RUN}" in caught.value.hint
    assert ledger.run(RUN).owner == ""


@pytest.mark.parametrize("guarded", [False, True])
def test_a_guardian_is_there_where_the_provider_wants_one(
    guarded: bool, ledger: Ledger, options: lifecycle.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for who only comes back to a run: one that is not wanted would stop the job."""
    monkeypatch.setattr(Context, "_guard", started := Started())
    toy = Toy(guarded=guarded, listing_lag=0.1)
    record = lifecycle.new_record(SPEC, toy, toy.plan(SPEC), options)
    ledger.begin(record)
    ledger.advance(RUN, RunState.LAUNCHING)
    rented = Resource(kind="thing", name="cvl-toy-1", run_id=RUN)
    cleanup.Leases(ledger, RUN, toy, Scope()).acquire(rented, lambda: "t-1")
    ledger.advance(RUN, RunState.RUNNING)
    wanted = replace(options, guarded=True)
    with pytest.raises(CvlError, match="no guardian") if guarded else nullcontext():
        assert lifecycle.attach(ledger.run(RUN), toy, ledger, wanted) == 3
    assert started.times == int(guarded)


@dataclass
class Started:
    """Guardians that were started; none of them is one."""

    times: int = 0

    def __call__(self) -> Guard:
        self.times += 1
        raise CvlError("there is no guardian in toyland")


@pytest.mark.parametrize(
    ("own", "limit"), [("", 61.0), ("0", 61.0), ("300", 360.0), ("-1", 61.0), ("9" * 9, 61.0)]
)
def test_a_stop_lasts_as_long_as_the_job_was_promised(own: str, limit: float) -> None:
    assert stop_limit(Toy(), {"run": RUN, "grace": own}, 1.0) == limit
    assert stop_limit(Toy(stop_limit=1000.0), {"run": RUN}, 1.0) == 1001.0
