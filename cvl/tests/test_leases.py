"""Noted before it is made, settled when in doubt, closed only when it was seen gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from cvl.cleanup.guardian_keeper import FOLLOW, MOST
from cvl.cleanup.leases import Leases, cost, last_of, spent
from cvl.cleanup.until_gone import UNSEEN
from cvl.core.errors import (
    Ambiguity,
    CvlError,
    LedgerError,
    NoCapacity,
    ProviderError,
    Rejected,
    StillOpen,
)
from cvl.core.process import me
from cvl.core.scope import Scope
from cvl.core.spec import Cause, Resource, ended
from cvl.core.units import YEAR
from cvl.ledger import LeaseState, Ledger, Run, RunState
from cvl.testing.cli_harness import wait_for
from cvl.tests.fakes import FakeClock

RUN = "run-1124-050000-0123456789"
WANTED = Resource(kind="instance", name="cvl-1", run_id=RUN, price_per_hour=Decimal("0.75"))


class Shop:
    """An `Owner` that can hide what it has, ignore what it is told, and fall silent."""

    name = "shop"
    listing_lag = 120.0
    unique = frozenset[str]()

    def __init__(self, clock: FakeClock) -> None:
        self.things: dict[str, Resource] = {}
        self.heard: list[str] = []
        self.hidden = self.deaf = self.dumb = self.lists = 0
        self.forgets = True
        self._clock = clock

    def make(self, wanted: Resource = WANTED, id_: str = "i-1") -> str:
        self.heard.append(f"make {id_}")
        self.things[id_] = replace(wanted, id=id_)
        return id_

    def owned(self, kind: str = "") -> Iterable[Resource]:
        self.heard.append("list")
        self.lists += 1
        if self.dumb:
            self.dumb -= 1
            raise ProviderError("nobody home")
        if self.hidden:
            self.hidden -= 1
            return []
        return [each for each in self.things.values() if kind in {"", each.kind}]

    def destroy(self, resource: Resource) -> None:
        self.heard.append(f"destroy {resource.id}")
        if self.deaf:
            self.deaf -= 1
        elif self.forgets:
            self.things.pop(resource.id, None)
        else:
            self.things[resource.id] = replace(resource, alive=False)


class FakeGuard:
    """A guardian that only writes down what it is told."""

    owner = "guardian"

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.dead = threading.Event()

    def alive(self) -> bool:
        return not self.dead.is_set()

    def wait(self) -> None:
        self.dead.wait()

    def limit(self, seconds: float, room: float) -> None:
        del room
        self.heard.append(f"limit {seconds:g}")

    def hang_up(self, last_word: str = "") -> None:
        self.heard.append(last_word or "hang up")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shop(clock: FakeClock) -> Shop:
    return Shop(clock)


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.db", now=clock.time)
    ledger.begin(Run(id=RUN, runner="shop", owner=me()))
    ledger.advance(RUN, RunState.LAUNCHING)
    return ledger


def leases_of(
    ledger: Ledger, shop: Shop, clock: FakeClock, guard: Callable[[], FakeGuard] | None = None
) -> Leases:
    return Leases(ledger, RUN, shop, Scope(clock), guard=guard)


def states(ledger: Ledger) -> list[tuple[str, str]]:
    return [(line.id, line.state.value) for line in ledger.leases(RUN)]


def fails(error: Exception) -> Callable[[], str]:
    def create() -> str:
        raise error

    return create


def test_it_is_noted_and_guarded_before_it_is_made(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    duty = FakeGuard()
    seen: list[object] = []

    def guard() -> FakeGuard:
        assert states(ledger) == []
        seen.append("guarded")
        return duty

    def create() -> str:
        seen.append(states(ledger))
        return shop.make()

    made = leases_of(ledger, shop, clock, guard).acquire(WANTED, create)
    assert seen == ["guarded", [("", "intended")]]
    assert (made.id, states(ledger)) == ("i-1", [("i-1", "live")])


@pytest.mark.parametrize("error", [NoCapacity("none"), Rejected("no")])
def test_a_clear_no_closes_the_line(
    ledger: Ledger, shop: Shop, clock: FakeClock, error: CvlError
) -> None:
    with pytest.raises(type(error)):
        leases_of(ledger, shop, clock).acquire(WANTED, fails(error))
    assert states(ledger) == [("", "released")]
    assert shop.heard == []


@pytest.mark.parametrize("doubt", [Ambiguity("?"), KeyError("instance_ids"), OSError("reset")])
def test_an_unclear_reply_is_settled_by_listing_for_the_name(
    ledger: Ledger, shop: Shop, clock: FakeClock, doubt: Exception
) -> None:
    shop.hidden = 40

    def create() -> str:
        shop.make()
        raise doubt

    made = leases_of(ledger, shop, clock).acquire(
        WANTED, create, in_doubt=lambda: shop.heard.append("forget the key")
    )
    assert made.id == "i-1"
    assert shop.heard[:3] == ["make i-1", "forget the key", "list"]
    assert states(ledger) == [("i-1", "live")]


def test_not_seen_is_not_there_only_after_the_listing_lag(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    before = clock.monotonic()
    with pytest.raises(Ambiguity):
        leases_of(ledger, shop, clock).acquire(WANTED, fails(Ambiguity("?")))
    assert clock.monotonic() - before > shop.listing_lag
    assert shop.lists > UNSEEN
    assert states(ledger) == [("", "released")]


def test_when_nobody_can_say_the_line_stays_open(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    shop.dumb = 10**6
    leases = leases_of(ledger, shop, clock)
    with pytest.raises(StillOpen, match=r"instance cvl-1 at \$0.75/h \(if it exists\)"):
        leases.acquire(WANTED, fails(Ambiguity("?")))
    assert states(ledger) == [("", "intended")]
    assert leases.any_open()


def test_gone_is_what_is_not_listed_any_more(ledger: Ledger, shop: Shop, clock: FakeClock) -> None:
    """Told twice in vain, it is told again; the id is never forgotten."""
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    shop.deaf = 2
    leases.release()
    assert shop.heard.count("destroy i-1") >= 3
    assert shop.things == {}
    assert states(ledger) == [("i-1", "released")]


def test_one_look_is_not_enough(ledger: Ledger, shop: Shop, clock: FakeClock) -> None:
    """A list that leaves out what is there, and a destroy that does nothing, at the same time."""
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    list(shop.owned())
    clock.now += 1000
    shop.deaf, shop.hidden = 2, 2
    leases.release()
    assert shop.things == {}


def test_what_was_just_made_need_not_be_listed_yet(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    shop.deaf, shop.hidden = 8, 8
    leases.release()
    assert shop.things == {}


def test_a_wall_clock_that_jumps_is_no_reason_to_stop_looking(
    ledger: Ledger, shop: Shop, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process goes on right after the create call; the clock was set in between."""
    leases_of(ledger, shop, clock).acquire(WANTED, shop.make)
    monkeypatch.setattr(FakeClock, "time", lambda clock: clock.now + 86400)
    shop.deaf, shop.hidden = 8, 8
    leases_of(ledger, shop, clock).release()
    assert shop.things == {}


def test_what_a_job_has_run_on_was_there_and_need_not_be_settled(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    assert ledger.advance(RUN, RunState.RUNNING)
    before = clock.monotonic()
    leases.release()
    assert clock.monotonic() - before < shop.listing_lag / 4
    assert shop.lists == UNSEEN


def test_what_costs_nothing_is_seen_before_it_is_destroyed(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """Then its absence tells more than the listing lag would."""
    leases, key = leases_of(ledger, shop, clock), replace(WANTED, kind="key", price_per_hour=None)
    leases.acquire(key, lambda: shop.make(key, "k-1"))
    shop.heard.clear()
    before = clock.monotonic()
    leases.release()
    assert shop.heard.index("list") < shop.heard.index("destroy k-1")
    assert clock.monotonic() - before < shop.listing_lag / 4
    assert shop.things == {}


def test_while_a_create_call_is_in_doubt_everything_is_destroyed_before_anything_is_looked_at(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """The key first: a launch that is still under way over there then fails."""
    leases, key = leases_of(ledger, shop, clock), replace(WANTED, kind="key", price_per_hour=None)
    leases.acquire(key, lambda: shop.make(key, "k-1"))
    ledger.intend(RUN, WANTED, provider="shop")
    shop.heard.clear()
    leases_of(ledger, shop, clock).release(Scope(clock, seconds=3600))
    assert shop.heard[0] == "destroy k-1"


def test_one_that_is_shown_as_ended_is_gone_at_once(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    shop.forgets = False
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    leases.release()
    assert shop.heard == ["make i-1", "destroy i-1", "list"]
    assert states(ledger) == [("i-1", "released")]


def test_a_line_without_an_id_is_settled_before_it_is_closed(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """The driver died in the middle of the create call, which takes effect only later."""
    ledger.intend(RUN, WANTED, provider="shop")
    leases = leases_of(ledger, shop, clock)
    late = clock.monotonic() + 60

    def owned(kind: str = "", look: Callable[[str], Iterable[Resource]] = shop.owned) -> object:
        if clock.monotonic() > late and "make i-1" not in shop.heard:
            shop.make()
        return look(kind)

    shop.owned = owned  # type: ignore[assignment]
    leases.release(Scope(clock, seconds=3600))
    assert "destroy i-1" in shop.heard
    assert shop.things == {}
    assert states(ledger) == [("i-1", "released")]


def test_a_second_one_under_the_same_name_goes_too(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    shop.make(id_="i-2")
    leases.release()
    assert shop.things == {}
    assert states(ledger) == [("i-1", "released"), ("i-2", "released")]


def test_a_provider_that_is_silent_leaves_everything_open(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    shop.dumb = shop.deaf = 10**6
    with pytest.raises(StillOpen, match="not seen gone: instance cvl-1 i-1 at"):
        leases.release()
    assert states(ledger) == [("i-1", "releasing")]
    assert "cvl reap" in leases.still_open()[0]
    shop.dumb = shop.deaf = 0
    leases.release()
    assert shop.things == {}


def test_without_its_ledger_everything_is_found_by_tag(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    shop.make(replace(WANTED, run_id="another"), "i-9")
    ledger.path.write_bytes(b"not a database" * 1000)
    shop.deaf, shop.hidden = 2, 1
    with pytest.raises(LedgerError, match="is gone all the same"):
        leases.release()
    assert list(shop.things) == ["i-9"], "only what carries our run's tag"


def test_who_was_overtaken_destroys_what_it_made(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """It slept in the create call while the guardian closed the run."""

    def create() -> str:
        line = ledger.leases(RUN)[0]
        ledger.releasing(line)
        ledger.released(line)
        assert ledger.finish(RUN, ended(Cause.STOPPED))
        return shop.make()

    leases = leases_of(ledger, shop, clock)
    with pytest.raises(CvlError, match="ended by another process"):
        leases.acquire(WANTED, create)
    assert states(ledger) == [("i-1", "live")], "on record, for whoever looks next"
    leases.release()
    assert shop.things == {}


def test_nothing_is_made_for_a_run_that_is_over(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    ledger.advance(RUN, RunState.RELEASING)
    with pytest.raises(CvlError, match="ended by another process"):
        leases_of(ledger, shop, clock).acquire(WANTED, shop.make)
    assert shop.heard == []


def test_a_name_is_used_once(ledger: Ledger, shop: Shop, clock: FakeClock) -> None:
    """Not seen within the listing lag is not the same as never made."""
    leases = leases_of(ledger, shop, clock)
    with pytest.raises(Ambiguity):
        leases.acquire(WANTED, fails(Ambiguity("?")))
    with pytest.raises(CvlError, match="was ended"):
        leases.acquire(WANTED, shop.make)
    assert "make i-1" not in shop.heard


def test_a_name_that_was_refused_is_used_again(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    for _ in range(2):
        with pytest.raises(NoCapacity):
            leases.acquire(WANTED, fails(NoCapacity("none")))
    assert leases.acquire(WANTED, shop.make).id == "i-1"
    leases.release()
    with pytest.raises(CvlError, match="was ended"):
        leases.acquire(WANTED, shop.make)
    assert states(ledger) == [("i-1", "released")]


def test_the_guardian_learns_the_limit(ledger: Ledger, shop: Shop, clock: FakeClock) -> None:
    duty = FakeGuard()
    leases = leases_of(ledger, shop, clock, lambda: duty)
    leases.until(600)
    leases.acquire(WANTED, shop.make)
    leases.until(300)
    assert duty.heard == ["limit 600", "limit 300"]
    assert ledger.run(RUN).deadline == clock.time() + 300
    clock.now += 100
    assert leases.left() == 200


def test_a_guardian_that_died_is_replaced(ledger: Ledger, shop: Shop, clock: FakeClock) -> None:
    duties = [FakeGuard(), FakeGuard()]
    supply = iter(duties)
    leases = leases_of(ledger, shop, clock, lambda: next(supply))
    leases.until(600)
    leases.acquire(WANTED, shop.make)
    duties[0].dead.set()
    wait_for(lambda: duties[1].heard == ["limit 600"])
    leases.give_up(FOLLOW)
    assert duties[1].heard == ["limit 600", "follow"]
    assert ledger.run(RUN).owner == "guardian"


def test_who_hands_over_makes_sure_that_there_is_somebody(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """It dies in that very moment: before anybody could replace it."""
    duties = [FakeGuard(), FakeGuard()]
    duties[0].wait = threading.Event().wait  # type: ignore[assignment]
    supply = iter(duties)
    leases = leases_of(ledger, shop, clock, lambda: next(supply))
    leases.acquire(WANTED, shop.make)
    duties[0].dead.set()
    leases.give_up(FOLLOW)
    assert duties[1].heard == ["follow"]


def test_a_guardian_that_has_ended_the_run_itself_is_not_replaced(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """Told by SIGTERM to release at once, it took the run."""
    started: list[FakeGuard] = []
    others = set(threading.enumerate())

    def start() -> FakeGuard:
        started.append(FakeGuard())
        return started[-1]

    leases = leases_of(ledger, shop, clock, start)
    leases.acquire(WANTED, shop.make)
    ledger.take(RUN, "guardian", me())
    started[0].dead.set()
    wait_for(lambda: not [each for each in set(threading.enumerate()) - others if each.is_alive()])
    assert len(started) == 1


def test_one_that_is_killed_again_and_again_is_not_replaced_for_ever(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    started: list[FakeGuard] = []
    others = set(threading.enumerate())

    def start() -> FakeGuard:
        started.append(FakeGuard())
        started[-1].dead.set()
        return started[-1]

    leases = leases_of(ledger, shop, clock, start)
    leases.acquire(WANTED, shop.make)
    wait_for(lambda: not [each for each in set(threading.enumerate()) - others if each.is_alive()])
    assert len(started) == MOST


def test_that_no_guardian_starts_in_the_end_hides_no_error(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    """A full disk: nothing can be noted, the guardian has done its part, another cannot start."""
    duty = FakeGuard()
    duty.wait = threading.Event().wait  # type: ignore[assignment]
    supply = iter([duty])

    def start() -> FakeGuard:
        for each in supply:
            return each
        raise CvlError("it did not start")

    leases = leases_of(ledger, shop, clock, start)
    leases.acquire(WANTED, shop.make)
    duty.dead.set()
    leases.close()
    with pytest.raises(CvlError, match="it did not start; nothing was rented"):
        leases_of(ledger, shop, clock, start).acquire(WANTED, shop.make)


def test_without_its_ledger_a_run_may_hold_something(
    ledger: Ledger, shop: Shop, clock: FakeClock
) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    ledger.path.unlink()
    assert leases.any_open()
    assert Ledger(ledger.path).leases() == []


@pytest.mark.parametrize(("left_open", "told"), [(True, "hang up"), (False, "done")])
def test_what_is_open_in_the_end_goes_to_the_guardian(
    ledger: Ledger, shop: Shop, clock: FakeClock, left_open: bool, told: str
) -> None:
    duty = FakeGuard()
    leases = leases_of(ledger, shop, clock, lambda: duty)
    leases.acquire(WANTED, shop.make)
    if not left_open:
        leases.release()
    leases.close()
    assert duty.heard == [told]
    assert ledger.run(RUN).owner == ("guardian" if left_open else me())


def test_the_cost_is_from_creation_to_the_end(ledger: Ledger, shop: Shop, clock: FakeClock) -> None:
    leases = leases_of(ledger, shop, clock)
    leases.acquire(WANTED, shop.make)
    clock.now += 3600
    assert leases.cost() == Decimal("0.75")
    assert cost(Decimal("0.75"), 1) == Decimal("0.01"), "a begun cent counts"
    line = ledger.leases(RUN)[0]
    assert line.state is LeaseState.LIVE


@pytest.mark.parametrize("jump", [-2 * YEAR, 2 * YEAR])
def test_a_clock_that_is_set_meanwhile_costs_nothing(
    shop: Shop, clock: FakeClock, ledger: Ledger, jump: float
) -> None:
    """Two years of it would be 13,140 dollars; what was rented here is counted by another clock."""
    leases = Leases(ledger, RUN, shop, Scope(clock))
    leases.until(600, 60)
    leases.acquire(WANTED, shop.make)
    clock.now += 480
    leases.release()
    at = clock.monotonic()
    ledger_of_tomorrow = ledger.leases(RUN)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clock, "time", lambda: at + jump)
        assert leases.cost() == Decimal("0.11")
    run = ledger.run(RUN)
    (line,) = ledger_of_tomorrow
    assert line.created is not None
    late = [replace(line, released=line.created + jump)]
    assert spent(late, at, last_of(run)) is None
    assert spent([line], at, last_of(run)) == Decimal("0.11")
