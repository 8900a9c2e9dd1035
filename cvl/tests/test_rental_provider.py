"""From a cloud that rents machines to a provider: deadlines, bad boots, jobs that move."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from cvl.core.errors import (
    AuthError,
    CvlError,
    FetchError,
    HostKeyError,
    NotReady,
    ProviderError,
    Unreachable,
)
from cvl.core.interfaces import Machine, Offer, Process
from cvl.core.parallel import bounded
from cvl.core.scope import Cancelled, DeadlineExceeded, Scope
from cvl.core.spec import Cause, ExitStatus, Limits, LogChunk, Resource
from cvl.host.rpc import FarSide
from cvl.rental import deadline
from cvl.rental import job as rented
from cvl.rental.deadline import deadline_of
from cvl.rental.job import RentedJob
from cvl.rental.provider import Machines
from cvl.run import pump
from cvl.tests.fakes import FakeClock
from cvl.transports.local import Local

MACHINE = Resource(kind="instance", name="cvl-r", id="i-1", run_id="r")


def test_the_deadline_has_room_to_boot_build_and_fetch() -> None:
    limits = Limits(timeout=100.0, grace=10.0, fetch=1000.0)
    found = deadline_of(limits, Decimal("0.75"), 1800.0, builds=True)
    assert found.seconds == 1800 + deadline.BUILD_LIMIT + 100 + 10 + 1000
    assert found.room == 1010


def test_without_a_timeout_it_is_a_day() -> None:
    found = deadline_of(Limits(), Decimal("0.75"), 1800.0, builds=False)
    assert (found.seconds, found.why) == (24 * 3600, "no --timeout was given")


@pytest.mark.parametrize("timeout", [None, 10**6])
def test_money_that_is_gone_sooner_is_the_deadline(timeout: float | None) -> None:
    """With room to fetch: the job is stopped before the money is spent."""
    limits = Limits(timeout=timeout, max_cost=Decimal("0.10"))
    found = deadline_of(limits, Decimal("0.60"), 1800.0, builds=False)
    assert found.seconds == 600
    assert found.room == 600 * deadline.SHARE
    assert found.why == "--max-cost 0.10"


def test_money_that_lasts_longer_than_the_timeout_changes_nothing() -> None:
    limits = Limits(timeout=60.0, max_cost=Decimal(100))
    assert deadline_of(limits, Decimal(1), 60.0, builds=False).why.startswith("the timeout")


class Cloud:
    """Shows the looks that it is given, the last one for ever."""

    name, user, listing_lag, boot_limit = "cloud", "ubuntu", 10.0, 600.0
    layers = warnings = ()
    secrets: Mapping[str, str] = {}
    unique: frozenset[str] = frozenset()

    def __init__(self, *looks: Machine | CvlError) -> None:
        self.looks = list(looks)
        self.looked = 0

    def offers(self) -> list[Offer]:
        raise NotImplementedError

    def look(self, resource: Resource) -> Machine:
        assert resource is MACHINE
        self.looked += 1
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, CvlError):
            raise found
        return found


class Door(Local):
    """A way to the machine that fails as it is told to before it opens."""

    def __init__(self, *failures: CvlError) -> None:
        self.failures = list(failures)

    def start(self, argv: object) -> Process:
        if self.failures:
            failure = self.failures.pop(0) if len(self.failures) > 1 else self.failures[0]
            raise failure
        return super().start(argv)  # type: ignore[arg-type]


BOOTING = Machine(state="booting", words="booting")
READY = Machine(state="ready", address="10.0.0.1", words="active")
MOVED = Machine(state="ready", address="10.0.0.2", words="active")


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Door]:
    """Which door is behind which address."""
    doors: dict[str, Door] = {}

    def reach(_user: str, _run_id: str, address: str) -> FarSide:
        return FarSide(doors[address], str(tmp_path / "far"))

    monkeypatch.setattr(rented, "reach", reach)
    return doors


def up(cloud: Cloud, clock: FakeClock) -> str:
    provider = Machines(cloud)  # type: ignore[arg-type]
    return provider._up(MACHINE, Scope(clock))[1]


def test_it_is_up_when_it_lets_us_in(doors: dict[str, Door]) -> None:
    doors["10.0.0.1"] = Door()
    cloud = Cloud(BOOTING, BOOTING, ProviderError("busy"), READY)
    assert up(cloud, FakeClock()) == "10.0.0.1"
    assert cloud.looked == 4


def test_another_host_key_while_it_boots_is_not_ready_yet(doors: dict[str, Door]) -> None:
    doors["10.0.0.1"] = Door(HostKeyError("changed"))
    clock = FakeClock()
    before = clock.now
    with pytest.raises(NotReady, match=r"did not come up within 10m0\ds: changed"):
        up(Cloud(READY), clock)
    assert 600 <= clock.now - before < 610


def test_an_address_that_changes_while_it_boots_is_followed(doors: dict[str, Door]) -> None:
    doors["10.0.0.1"] = Door(Unreachable("no answer"))
    doors["10.0.0.2"] = Door()
    assert up(Cloud(READY, READY, MOVED), FakeClock()) == "10.0.0.2"


@pytest.mark.parametrize("state", ["broken", "gone"])
def test_one_that_will_never_be_up_is_given_up_at_once(state: str, doors: dict[str, Door]) -> None:
    clock = FakeClock()
    before = clock.now
    with pytest.raises(NotReady, match="did not come up: it is unhealthy"):
        up(Cloud(BOOTING, Machine(state=state, words="unhealthy")), clock)
    assert clock.now - before < 2


def test_one_that_breaks_while_we_wait_for_ssh_is_given_up(doors: dict[str, Door]) -> None:
    doors["10.0.0.1"] = Door(Unreachable("refused"))
    clock = FakeClock()
    before = clock.now
    with pytest.raises(NotReady, match="it is unhealthy"):
        up(Cloud(READY, Machine(state="broken", words="unhealthy")), clock)
    assert clock.now - before < 10


def test_not_listed_is_not_gone_before_the_listing_lag(doors: dict[str, Door]) -> None:
    doors["10.0.0.1"] = Door()
    missing = Machine(state="missing", words="unknown")
    assert up(Cloud(*[missing] * 8, READY), FakeClock()) == "10.0.0.1"
    with pytest.raises(NotReady, match="unknown"):
        up(Cloud(missing), FakeClock())


class Remote:
    """What a `RentedJob` sees of the job over there: chunks and polls, until it breaks."""

    run_id = "r"
    handle: Mapping[str, str] = {"run": "r", "address": "10.0.0.1"}

    def __init__(self, far: FarSide, failure: CvlError) -> None:
        self.far, self.failure = far, failure
        self.while_away: Callable[[], None] = lambda: None
        self.asked: list[str] = []

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        self.asked.append(after)
        if not after:
            yield LogChunk(data=b"one", cursor="3")
            self.broken()
        yield LogChunk(data=b"two", cursor="6")

    def broken(self) -> None:
        if isinstance(self.failure, Unreachable):
            self.while_away()
        else:
            raise self.failure

    def poll(self) -> ExitStatus | None:
        if isinstance(self.far.transport, Door) and self.far.transport.failures:
            raise self.failure
        return ExitStatus(0)


def rented_job(
    doors: dict[str, Door], cloud: Cloud, failure: CvlError, tmp_path: Path
) -> tuple[RentedJob, Remote]:
    doors |= {"10.0.0.1": Door(failure), "10.0.0.2": Door()}
    far = FarSide(doors["10.0.0.1"], str(tmp_path))
    remote = Remote(far, failure)
    return RentedJob(remote, far, cloud, MACHINE), remote  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", [Unreachable("cut"), HostKeyError("another's")])
@pytest.mark.parametrize(
    "fate", [Machine(state="gone", words="terminated"), Machine(state="broken", words="preempted")]
)
def test_a_machine_that_is_gone_ends_the_run_with_its_own_words(
    doors: dict[str, Door], failure: CvlError, fate: Machine, tmp_path: Path
) -> None:
    job, _ = rented_job(doors, Cloud(fate), failure, tmp_path)
    assert [chunk.data for chunk in job.chunks()][:1] == [b"one"]
    status = job.poll()
    assert status is not None
    assert (status.cause, status.detail) == (Cause.LOST, f"the machine is {fate.words}")
    with pytest.raises(NotReady):
        job.stop(1.0, Cause.STOPPED)
    with pytest.raises(FetchError, match="are lost"):
        job.fetch(tmp_path, Scope())


def test_a_machine_that_moved_is_followed_without_a_gap(
    doors: dict[str, Door], tmp_path: Path
) -> None:
    job, remote = rented_job(doors, Cloud(MOVED), HostKeyError("another's"), tmp_path)
    assert b"".join(chunk.data for chunk in job.chunks()) == b"onetwo"
    assert remote.asked == ["", "3"]
    assert remote.far.transport is doors["10.0.0.2"]
    assert job.poll() == 0


def test_a_machine_that_is_well_but_not_reached_is_an_error_of_the_connection(
    doors: dict[str, Door], tmp_path: Path
) -> None:
    job, _ = rented_job(doors, Cloud(READY), AuthError("no"), tmp_path)
    with pytest.raises(AuthError):
        list(job.chunks())
    with pytest.raises(AuthError):
        job.poll()


class Results:
    """What `pulling` sees of an execution: every fetch is written down, some fail."""

    def __init__(self) -> None:
        self.fetched = threading.Semaphore(0)
        self.times = 0

    def fetch(self, *_: object) -> None:
        self.times += 1
        self.fetched.release()
        if self.times == 1:
            raise FetchError("not just now")


def test_results_are_pulled_while_the_job_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pump, "EVERY", 0.01)
    results = Results()
    with pump.pulling(results, tmp_path, Scope()):  # type: ignore[arg-type]
        for _ in range(3):
            assert results.fetched.acquire(timeout=10)
    after = results.times
    assert not results.fetched.acquire(timeout=0.1) or results.times == after


def test_a_call_that_hangs_is_waited_for_no_longer_than_its_scope() -> None:
    hang = threading.Event()
    try:
        with pytest.raises(DeadlineExceeded):
            bounded(lambda: hang.wait(30), Scope(seconds=0.05))
        scope = Scope()
        scope.cancel(Cause.STOPPED)
        with pytest.raises(Cancelled):
            bounded(lambda: hang.wait(30), scope)
        assert bounded(lambda: 7, Scope(seconds=10)) == 7
        with pytest.raises(FetchError):
            bounded(failing, Scope(seconds=10))
    finally:
        hang.set()


def failing() -> None:
    raise FetchError("no")
