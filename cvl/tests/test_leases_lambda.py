"""Leases over Lambda's API: what each reply lets us conclude, and what it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from cvl.cleanup.leases import Leases
from cvl.core.errors import Ambiguity, AuthError, CvlError, NoCapacity, Rejected, StillOpen
from cvl.core.interfaces import Offer, Order
from cvl.core.paths import ledger_file
from cvl.core.process import me
from cvl.core.scope import Cancelled, Scope
from cvl.core.spec import Cause, Resource, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.providers.lambda_cloud.api import LambdaAPI, Throttled
from cvl.providers.lambda_cloud.cloud import LambdaCloud, api
from cvl.rental.keys import RunKeys
from cvl.testing.cli_harness import Desk
from cvl.testing.lambda_cloud import FAULTS, Entry, Moment, Settings
from cvl.testing.lambda_cloud import LambdaCloud as FakeCloud
from cvl.tests.fakes import FakeClock

OFFER = Offer(type="gpu_1x_a10", price_per_hour=Decimal("0.75"), gpus=1)
AMBIGUOUS = sorted(
    name for name in FAULTS if name.startswith("launch-") and name.endswith(("-before", "-after"))
)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    settings = Settings(
        request_interval=0, launch_interval=0, boot_seconds=0, terminate_seconds=0, hang_seconds=2
    )
    with FakeCloud(settings) as cloud:
        given = {
            **cloud.env,
            "CVL_STATE_DIR": str(tmp_path / "state"),
            "LAMBDA_API_RPS": "0",
            "LAMBDA_LAUNCH_INTERVAL": "0",
            "LAMBDA_SETTLE": "0.6",
            "LAMBDA_READ_LIMIT": "0.3",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        yield cloud
        assert not cloud.violations


def begun() -> tuple[LambdaCloud, Leases, Order]:
    run_id, ledger = new_run_id("leased"), Ledger(ledger_file())
    ledger.begin(Run(id=run_id, runner="lambda", owner=me()))
    ledger.advance(run_id, RunState.LAUNCHING)
    cloud = LambdaCloud(api())
    keys = RunKeys.made(ledger_file().parent / run_id)
    order = Order(
        run_id=run_id,
        owner=ledger.id(),
        offer=OFFER,
        region="us-west-1",
        deadline=(cloud.now() or 0) + 3600,
        host_key=keys.host_key,
        host_public_key=keys.host_public_key,
        public_key=keys.public_key,
    )
    return cloud, Leases(ledger, run_id, cloud, Scope()), order


def rented(cloud: LambdaCloud, leases: Leases, order: Order) -> Resource | CvlError:
    try:
        return cloud.rent(order, leases, Scope(seconds=30))
    except CvlError as error:
        return error


@pytest.mark.parametrize("fault", [*AMBIGUOUS, "launch-late", "launch-hidden"])
def test_a_launch_is_sent_once_and_settled(fake: FakeCloud, fault: str) -> None:
    fake.inject(replace(FAULTS[fault], delay=0.3))
    cloud, leases, order = begun()
    found = rented(cloud, leases, order)
    operations = [entry.operation for entry in fake.log]
    assert operations.count("launchInstance") == 1
    if isinstance(found, CvlError):
        assert isinstance(found, Ambiguity)
        assert not fake.alive()
    else:
        assert [each.id for each in fake.alive()] == [found.id]
    if fault != "launch-hidden":
        after = operations[operations.index("launchInstance") + 1 :]
        assert after[0] == "deleteSSHKey", "first: a late launch then fails"
    leases.release()
    assert (fake.alive(), fake.keys(), leases.any_open()) == ([], [], False)


def test_who_waits_for_a_turn_to_launch_can_be_called_off(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent by then, and nothing is in doubt."""
    monkeypatch.setenv("LAMBDA_LAUNCH_INTERVAL", "600")
    cloud, leases, order = begun()
    cloud._api.launch_turn(Scope())
    scope = Scope()
    threading.Timer(0.2, scope.cancel, [Cause.INTERRUPTED]).start()
    with pytest.raises(Cancelled):
        cloud.rent(order, leases, scope)
    assert [each.operation for each in fake.log].count("launchInstance") == 0
    assert [line.kind for line in Ledger(ledger_file()).leases()] == ["ssh-key"]
    leases.release()
    assert fake.keys() == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("launch-no-capacity", NoCapacity),
        ("launch-quota", Rejected),
        ("launch-object-missing", Rejected),
    ],
)
def test_a_refusal_is_believed(fake: FakeCloud, fault: str, error: type[CvlError]) -> None:
    cloud, leases, order = begun()
    fake.inject(replace(FAULTS[fault], on="launchInstance"))
    assert isinstance(rented(cloud, leases, order), error)
    leases.release()
    assert (fake.alive(), fake.keys(), leases.any_open()) == ([], [], False)


@pytest.mark.parametrize("fault", ["launch-bad-address", "inactive", "launch-401-before"])
def test_that_a_key_may_not_proves_nothing_and_is_settled(fake: FakeCloud, fault: str) -> None:
    """Nothing turns up while the lists are asked: then it is told as it was said."""
    cloud, leases, order = begun()
    fake.inject(replace(FAULTS[fault], on="launchInstance"))
    error = rented(cloud, leases, order)
    assert isinstance(error, Ambiguity)
    assert error.hint
    leases.release()
    assert (fake.alive(), fake.keys(), leases.any_open()) == ([], [], False)


def test_what_was_launched_for_a_key_that_is_void_since_is_ended_with_the_next(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launch was let through, and nothing after it."""
    monkeypatch.setattr("cvl.cleanup.release.BARRED_LIMIT", 0.5)
    cloud, leases, order = begun()
    fake.inject(FAULTS["launch-401-after"])

    def rotate(entry: Entry, moment: Moment) -> None:
        if entry.operation == "launchInstance" and moment is Moment.DONE:
            fake.api.key = "the-next"

    fake.on_request(rotate)
    error = rented(cloud, leases, order)
    assert isinstance(error, StillOpen)
    assert "does not accept this API key" in str(error)
    assert f"instance cvl-{order.run_id}" in str(error)
    assert len(fake.alive()) == 1
    with pytest.raises(StillOpen):
        leases.release(Scope(seconds=0.5))
    ledger = Ledger(ledger_file())
    later = Leases(ledger, order.run_id, LambdaCloud(api("the-next")), Scope())
    later.release()
    assert (fake.alive(), fake.keys(), later.any_open()) == ([], [], False)
    assert not ledger.leases(open_only=True)


def test_after_a_refusal_the_same_key_and_name_serve_again(fake: FakeCloud) -> None:
    """As often as capacity is looked for: a definite no leaves nothing in doubt."""
    cloud, leases, order = begun()
    fake.inject(replace(FAULTS["launch-no-capacity"], times=2))
    for _ in range(2):
        assert isinstance(rented(cloud, leases, order), NoCapacity)
    assert isinstance(rented(cloud, leases, order), Resource)
    assert (len(fake.alive()), len(fake.keys())) == (1, 1)
    leases.release()
    assert (fake.alive(), fake.keys(), leases.any_open()) == ([], [], False)


def test_a_wrong_key_is_told_at_once_and_never_again(fake: FakeCloud, tmp_path: Path) -> None:
    """The prices are asked for first: nothing is launched, and so nothing is in doubt."""
    desk = Desk(
        folder=tmp_path,
        options=("--remote", "lambda", "-y"),
        env={**fake.env, "LAMBDA_API_KEY": "wrong", "LAMBDA_API_RPS": "0"},
    )
    done = desk.sh("true")
    assert done.code == 125
    first, hint, *more = done.err.splitlines()
    assert "does not accept this API key" in first
    assert hint.startswith("hint: ")
    assert more == []
    assert {each.method for each in fake.log} == {"GET"}
    assert (desk.cvl("ps").err, desk.runs(), Ledger(desk.state / "ledger.db").leases()) == (
        "",
        [],
        [],
    )


def test_a_wrong_key_is_one_clear_sentence(fake: FakeCloud) -> None:
    with pytest.raises(AuthError, match="does not accept this API key") as caught:
        LambdaCloud(api("wrong")).offers()
    assert "wrong" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "fault",
    sorted(
        name for name in FAULTS if name.startswith(("terminate-", "list-", "key-delete-", "get-"))
    ),
)
def test_it_is_released_when_it_is_gone_and_not_before(fake: FakeCloud, fault: str) -> None:
    cloud, leases, order = begun()
    assert isinstance(rented(cloud, leases, order), Resource)
    fake.inject(replace(FAULTS[fault], times=2, delay=0.3))
    leases.release()
    assert (fake.alive(), fake.keys(), leases.any_open()) == ([], [], False)


def test_terminate_that_is_heard_and_ignored_again_and_again(fake: FakeCloud) -> None:
    """While lists leave out what is there: two hundred and an empty list prove nothing."""
    cloud, leases, order = begun()
    assert isinstance(rented(cloud, leases, order), Resource)
    fake.inject(replace(FAULTS["terminate-ignored"], times=2))
    fake.inject(replace(FAULTS["list-stale"], times=2))
    leases.release()
    assert (fake.alive(), leases.any_open()) == ([], False)


def test_a_machine_that_is_listed_without_name_and_tags_is_still_ours(fake: FakeCloud) -> None:
    """Both are optional in the API's document; the name of its SSH key is not."""
    cloud, leases, order = begun()
    made = rented(cloud, leases, order)
    assert isinstance(made, Resource)
    fake.inject(FAULTS["list-bare"])
    (found,) = cloud.owned("instance")
    assert (found.id, found.run_id, found.alive) == (made.id, order.run_id, True)
    fake.inject(replace(FAULTS["terminate-ignored"], times=4))
    leases.release()
    assert (fake.alive(), leases.any_open()) == ([], False)


def test_a_lost_reply_is_settled_without_name_and_tags_too(fake: FakeCloud) -> None:
    fake.inject(FAULTS["launch-reset-after"])
    fake.inject(FAULTS["list-bare"])
    cloud, leases, order = begun()
    assert isinstance(rented(cloud, leases, order), Resource)
    leases.release()
    assert (fake.alive(), fake.keys(), leases.any_open()) == ([], [], False)


@pytest.mark.parametrize(
    "data", [None, {}, [], {"instance_ids": []}, "x", [1], [{"id": 1}], [None]]
)
def test_a_reply_that_makes_no_sense_is_no_answer(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch, data: object
) -> None:
    """Whatever it holds: never a traceback, never "nothing is there"."""
    cloud = LambdaCloud(api())
    monkeypatch.setattr(LambdaAPI, "_send", lambda *_, **__: data)
    asks: list[Callable[[], object]] = [
        lambda: cloud._launch({}),
        lambda: cloud._add_key("n", "p"),
    ]
    if isinstance(data, list):  # each entry by itself: none of these can be read
        assert all(each.unclear for each in cloud.owned())
    else:
        asks += [lambda: cloud.look(Resource(kind="instance", name="cvl-x", id="1"))]
        asks += [lambda: list(cloud.owned())]
    asks += [cloud.offers] if data != {} else []
    for ask in asks:
        with pytest.raises(Ambiguity, match="makes no sense"):
            ask()


def test_who_asks_too_often_asks_again_later(fake: FakeCloud) -> None:
    """Other programs may share the account's limit: that passes, unlike most errors."""
    clock = FakeClock()
    fake.inject(replace(FAULTS["list-429"], times=3))
    account = LambdaAPI(fake.key, fake.base, interval=0, clock=clock)
    assert list(LambdaCloud(account).owned()) == []
    assert sum(clock.waited) >= 7
    fake.inject(replace(FAULTS["list-429"], times=0))
    with pytest.raises(Throttled) as caught:
        list(LambdaCloud(account).owned())
    assert "other programs" in caught.value.hint


def test_an_answer_that_drips_is_not_waited_for(fake: FakeCloud) -> None:
    """Each byte comes in time; all of them would take minutes."""
    fake.inject(FAULTS["list-drip"])
    cloud, before = LambdaCloud(api()), time.monotonic()
    assert list(cloud.owned()) == []
    assert time.monotonic() - before < 20
    fake.inject(replace(FAULTS["list-drip"], times=0))
    with pytest.raises(Ambiguity, match="did not answer"):
        list(cloud.owned())


def test_an_unknown_status_costs_money(fake: FakeCloud) -> None:
    cloud, leases, order = begun()
    made = rented(cloud, leases, order)
    assert isinstance(made, Resource)
    fake.inject(replace(FAULTS["list-unknown-status"], times=1))
    assert [(each.id, each.alive) for each in cloud.owned("instance")] == [(made.id, True)]
    fake.inject(replace(FAULTS["list-unknown-status"], times=1))
    assert cloud.look(made).state == "booting"
    leases.release()


def test_terminating_costs_until_it_is_terminated(fake: FakeCloud) -> None:
    cloud, leases, order = begun()
    made = rented(cloud, leases, order)
    assert isinstance(made, Resource)
    fake.inject(replace(FAULTS["terminate-slow"], delay=0.5))
    cloud.destroy(made)
    assert [each.alive for each in cloud.owned("instance")] == [True]
    leases.release()
    assert [each.alive for each in cloud.owned("instance")] == [False]
