"""What providers answer: each entry by itself; what cannot be read is neither ours nor gone."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cleanup.leases import Leases
from cvl.cli.console import Console
from cvl.core import replies
from cvl.core.errors import StillOpen
from cvl.core.process import me
from cvl.core.scope import Scope
from cvl.core.spec import Resource
from cvl.ledger import Ledger, Run, RunState
from cvl.operations import reap_findings
from cvl.operations.reap_survey import tell_unclear
from cvl.providers.lambda_cloud.cloud import key_of, machine_of
from cvl.tests.fakes import FakeClock

RUN = "ours-1124-050000-0123456789"
MACHINE = {
    "id": "i-1",
    "name": f"cvl-{RUN}",
    "status": "active",
    "ip": "127.0.0.1",
    "ssh_key_names": [f"cvl-{RUN}"],
    "instance_type": {"name": "gpu_1x_a10", "price_cents_per_hour": 75},
    "tags": [
        {"key": "cvl-run", "value": RUN},
        {"key": "cvl-owner", "value": "somebody"},
        {"key": "cvl-deadline", "value": "1800000000"},
    ],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def test_a_machine_of_ours_is_read_whole() -> None:
    assert machine_of(MACHINE) == Resource(
        kind="instance",
        name=f"cvl-{RUN}",
        id="i-1",
        run_id=RUN,
        owner="somebody",
        deadline=1.8e9,
        price_per_hour=Decimal("0.75"),
        note="active",
    )


@given(st.sampled_from([*MACHINE, ""]), JSON)
def test_no_field_alone_hides_a_machine_or_ends_the_reading(field: str, value: object) -> None:
    """Whatever one field is: it is listed as ours, or as something that may be ours."""
    found = list(replies.read("instance", [{**MACHINE, field: value}, MACHINE], machine_of))
    assert len(found) == 2
    assert found[1].run_id == RUN
    assert found[0].run_id == RUN or found[0].unclear
    assert found[0].alive or value == "terminated"


@given(JSON)
def test_whatever_an_entry_is_the_others_are_read(value: object) -> None:
    for kind, ours in (("instance", machine_of), ("ssh-key", key_of)):
        known = {"id": "k-1", "name": f"cvl-{RUN}"} if kind == "ssh-key" else MACHINE
        found = list(replies.read(kind, [value, known], ours))
        assert found[-1].run_id == RUN
        assert all(each.unclear for each in found[:-1])


def test_a_stranger_s_machine_is_not_ours_and_in_nobody_s_way() -> None:
    other = {**MACHINE, "name": "theirs", "ssh_key_names": ["theirs"], "tags": []}
    assert machine_of(other) is None
    assert machine_of({**other, "name": None}) is None


@pytest.mark.parametrize(
    "tag", ["", "-1", "1e999", "nan", "9" * 400, "99999999999999", "²", None, 7, "1800000000\0"]
)
def test_a_deadline_that_is_none_is_none(tag: object) -> None:
    assert replies.deadline(tag) is None


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Mon, 99 Foo 2026", None, "Fri, 31 Dec 9999 23:59:59 -9999", "0" * 99]
)
def test_a_date_that_is_none_is_none(date: object) -> None:
    assert replies.http_date(date) is None


@pytest.mark.parametrize("cents", [-1, 10**12, 7.5, "75", None, True, [], float("nan")])
def test_a_price_that_nobody_asks_is_none(cents: object) -> None:
    assert replies.price(cents) is None


def test_an_answer_is_not_read_further_than_makes_sense() -> None:
    pieces = 0

    def endless() -> Iterable[bytes]:
        nonlocal pieces
        while True:
            pieces += 1
            yield b"x" * 1000

    with pytest.raises(replies.TooLong):
        replies.taken(endless(), 10_000)
    assert pieces == 11


def test_what_is_nested_without_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="nested"):
        replies.parsed(b"[" * 50_000)


@pytest.mark.parametrize("each", [b"{}", b"[]", b"0", b'{"id":{"id":{}}}', b'[[[""]]]'])
def test_an_answer_of_more_values_than_make_sense_is_not_unfolded(each: bytes) -> None:
    """The smallest values take a hundred times their bytes."""
    row = each + b","
    body = b'{"data":[' + row * (replies.ANSWER // len(row) - 10) + b"0]}"
    assert len(body) < replies.ANSWER
    tracemalloc.start()
    try:
        with pytest.raises(replies.TooLong):
            replies.parsed(body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_account_with_a_thousand_machines_is_read_whole() -> None:
    body = json.dumps({"data": [MACHINE] * 1500}).encode()
    assert replies.parsed(replies.taken([body])) == {"data": [MACHINE] * 1500}


def test_what_nobody_can_read_is_said_once_and_not_without_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    alike = [replies.unreadable("instance")] * 30_000
    others = [replies.unreadable("instance", f"i-{number}") for number in range(100)]
    tell_unclear("shop", [*alike, *others], Console())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("(30000 times): it may be ours; look at it there")
    assert lines[-1].endswith("shop lists 81 more that cannot be read")
    assert len(lines) == 21


class Shop:
    """An `Owner` whose list is what a test says."""

    name = "shop"
    listing_lag = 0.0
    unique = frozenset[str]()

    def __init__(self, listed: list[object]) -> None:
        self.listed = listed
        self.asked: list[str] = []

    def owned(self, kind: str = "") -> Iterable[Resource]:
        del kind
        yield from replies.read("instance", self.listed, machine_of)

    def destroy(self, resource: Resource) -> None:
        self.asked.append(resource.id)
        self.listed = [
            each for each in self.listed if not isinstance(each, dict) or each["id"] != resource.id
        ]

    def now(self) -> float | None:
        return 1.9e9


def leased(folder: Path, shop: Shop, clock: FakeClock) -> Leases:
    ledger = Ledger(folder / "ledger.db", now=clock.time)
    ledger.begin(Run(id=RUN, runner="shop", owner=me()))
    ledger.advance(RUN, RunState.LAUNCHING)
    leases = Leases(ledger, RUN, shop, Scope(clock))
    wanted = Resource(kind="instance", name=f"cvl-{RUN}", run_id=RUN)
    leases.acquire(wanted, lambda: "i-1")
    return leases


def test_what_cannot_be_read_is_not_gone(tmp_path: Path) -> None:
    """Nobody can say that the entry without an id is not the machine: its line stays open."""
    clock, shop = FakeClock(), Shop([None])
    leases = leased(tmp_path, shop, clock)
    with pytest.raises(StillOpen):
        leases.release(Scope(clock, seconds=300))
    shop.listed = []
    leases.release(Scope(clock, seconds=300))
    assert not leases.any_open()


def test_what_cannot_be_read_but_is_another_is_in_nobody_s_way(tmp_path: Path) -> None:
    clock, shop = FakeClock(), Shop([{"id": "i-2", "status": []}, dict(MACHINE)])
    leases = leased(tmp_path, shop, clock)
    leases.release(Scope(clock, seconds=300))
    assert not leases.any_open()
    assert "i-2" not in shop.asked


def test_what_carries_our_tag_ends_though_its_line_is_damaged(tmp_path: Path) -> None:
    """The ledger has the machine under another kind: it is found by its tag, and ends."""
    import sqlite3

    clock, shop = FakeClock(), Shop([dict(MACHINE)])
    leases = leased(tmp_path, shop, clock)
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("UPDATE leases SET kind = 'instancd', id = 'i-7'")
    db.close()
    leases.release(Scope(clock, seconds=300))
    assert "i-1" in shop.asked
    assert not leases.any_open()


def test_reap_ends_what_it_can_read(tmp_path: Path) -> None:
    late = {
        **MACHINE,
        "tags": [{"key": "cvl-run", "value": RUN}, 7, {"key": "cvl-deadline", "value": "1"}],
    }
    shop = Shop([7, {"id": None}, late, json.loads('{"id": "i-9", "tags": {}}')])
    (finding,) = reap_findings.overdue(shop, Ledger(tmp_path / "ledger.db"))
    assert finding.id == "i-1"
