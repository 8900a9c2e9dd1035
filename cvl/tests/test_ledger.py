"""The ledger as its callers see it: values in and out, and who wins."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl import ledger
from cvl.core.errors import Ambiguous, LedgerError, NotFound
from cvl.core.process import Life, me
from cvl.core.spec import Cause, ExitStatus, Resource, new_run_id
from cvl.ledger import Lease, LeaseState, Ledger, Run, RunState, ps_json

ROOT = Path(ledger.__file__).parent.parent.parent
MACHINE = Resource(
    kind="instance", name="cvl-r-1", deadline=99.5, price_per_hour=Decimal("1.290"), note="n"
)
OVER = ExitStatus(3, detail="as the script wants")


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state/ledger.db", now=lambda: 1000.0)


@pytest.fixture
def launched(book: Ledger) -> Ledger:
    """A ledger with one run `r` of the owner `me`, that is being launched."""
    book.begin(Run(id="r", owner="me"))
    assert book.advance("r", RunState.LAUNCHING)
    return book


def intended(book: Ledger, resource: Resource = MACHINE) -> Lease:
    lease = book.intend("r", resource, provider="cloud")
    assert lease is not None
    return lease


def only(book: Ledger) -> Lease:
    (lease,) = book.leases()
    return lease


# Values


ANY_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates, NUL and all
RUNS = st.builds(
    Run,
    id=st.builds(new_run_id, ANY_TEXT),
    example=ANY_TEXT,
    preset=ANY_TEXT,
    args=st.lists(
        ANY_TEXT | st.binary(max_size=9).map(lambda b: b.decode("utf-8", "surrogateescape"))
    ).map(tuple),
    runner=ANY_TEXT,
    where=ANY_TEXT,
    handle=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    room=st.none() | st.floats(0, 4e9),
    detail=ANY_TEXT,
    started=st.floats(0, 4e9),
    deadline=st.none() | st.floats(0, 4e9),
    price_per_hour=st.none() | st.decimals(0, 10**6, places=4),
    results=ANY_TEXT,
    detached=st.booleans(),
    owner=st.just(me()),
)


@given(RUNS)
def test_what_is_noted_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, run: Run
) -> None:
    book = Ledger(tmp_path_factory.getbasetemp() / "ledger-of-values.db")
    noted = book.begin(run)
    assert noted == book.run(run.id) == book.find(run.id)
    for name in Run.__slots__:
        if name != "seq":
            assert getattr(noted, name) == getattr(run, name), name


def test_money_keeps_its_digits_and_never_an_exponent(launched: Ledger) -> None:
    launched.note("r", price_per_hour=Decimal("1.290"), cost=Decimal("1E+2"))
    run = launched.run("r")
    assert (str(run.price_per_hour), str(run.cost)) == ("1.290", "100")
    assert only_price(launched) == "1.290"


def only_price(book: Ledger) -> str:
    intended(book)
    return str(only(book).price_per_hour)


def test_ps_json_has_exactly_its_keys_and_is_json(launched: Ledger) -> None:
    lease = intended(launched)
    launched.confirm(lease, "i-1")
    shown = ps_json(launched.run("r"), launched.leases("r"))
    assert list(shown) == [
        "id", "example", "preset", "args", "runner", "where", "state", "exit_code", "cause",
        "started", "ended", "price_per_hour", "cost", "resources",
    ]  # fmt: skip
    assert json.loads(json.dumps(shown))["resources"] == [
        {
            "provider": "cloud",
            "kind": "instance",
            "name": "cvl-r-1",
            "id": "i-1",
            "state": "live",
            "deadline": 99.5,
            "price_per_hour": "1.290",
        }
    ]
    assert shown["state"] == "launching"
    assert shown["started"] == 1000.0


def test_a_lease_gives_the_resource_back(launched: Ledger) -> None:
    lease = intended(launched)
    assert (lease.provider, lease.intended) == ("cloud", 1000.0)
    assert lease.resource.name == MACHINE.name
    assert lease.resource.price_per_hour == MACHINE.price_per_hour
    assert lease.resource.run_id == "r"
    assert lease.resource.alive


def test_a_cause_of_a_later_version_does_not_hide_the_run(launched: Ledger) -> None:
    import sqlite3

    launched.note("r", status=OVER)
    with sqlite3.connect(launched.path) as db:
        db.execute("UPDATE runs SET cause = 'of tomorrow'")
    db.close()
    status = launched.run("r").status
    assert (status, status and status.cause) == (3, Cause.LOST)


# Runs


def test_a_run_goes_its_way_and_ends_once(launched: Ledger) -> None:
    assert launched.advance("r", RunState.RUNNING, handle={"pid": "7"}, where="host")
    assert launched.advance("r", RunState.FETCHING, status=OVER)
    assert launched.run("r").status == 3
    assert launched.advance("r", RunState.RELEASING, fetched=True, results="/tmp/x")
    assert launched.finish("r", OVER, ended=7.0, cost=Decimal("0.10"))
    assert not launched.finish("r", ExitStatus(9))
    run = launched.run("r")
    assert (run.state, run.exit_code, run.cause) == (RunState.ENDED, 3, Cause.EXITED)
    assert (run.ended, run.cost, run.detail) == (7.0, Decimal("0.10"), OVER.detail)
    assert (run.handle, run.where, run.fetched, run.results) == (
        {"pid": "7"},
        "host",
        True,
        "/tmp/x",
    )
    assert (run.owner, run.guardian) == ("", "")


def test_an_ended_run_takes_nothing_but_what_comes_late(launched: Ledger) -> None:
    launched.finish("r", OVER)
    for state in set(RunState) - {RunState.ENDED, RunState.PLANNED}:
        assert not launched.advance("r", state)
    assert not launched.take("r", "me", "")
    assert not launched.note("r", handle={})
    assert not launched.note("r", fetched=True, where="x")
    assert launched.intend("r", MACHINE, provider="cloud") is None
    assert launched.note("r", fetched=True, results="/r", cost=Decimal(1))
    assert launched.run("r").fetched


def test_what_is_never_to_be_noted_is_an_error(launched: Ledger) -> None:
    assert launched.advance("r", RunState.FETCHING)
    with pytest.raises(ValueError):
        launched.advance("r", RunState.ENDED)
    with pytest.raises(ValueError):
        launched.begin(Run(id="x", state=RunState.RUNNING))
    with pytest.raises(TypeError):
        launched.note("r", owner="me")  # type: ignore[call-arg]


def test_who_was_taken_from_drives_no_more(launched: Ledger) -> None:
    assert not launched.take("r", "other", from_owner="nobody")
    assert launched.take("r", "guardian", from_owner="me")
    assert not launched.take("r", "me again", from_owner="me")
    assert not launched.advance("r", RunState.RUNNING, by="me")
    assert not launched.note("r", where="x", by="me")
    assert not launched.finish("r", OVER, by="me")
    assert launched.intend("r", MACHINE, provider="cloud", by="me") is None
    assert launched.intend("r", MACHINE, provider="cloud", by="guardian") is not None
    assert launched.advance("r", RunState.RUNNING, by="guardian")


def test_an_unknown_run_is_an_error_and_not_a_lost_race(launched: Ledger) -> None:
    for act in (
        lambda: launched.advance("x", RunState.RUNNING),
        lambda: launched.finish("x", OVER),
        lambda: launched.take("x", "a", "b"),
        lambda: launched.intend("x", MACHINE, provider="cloud"),
        lambda: launched.run("x"),
    ):
        with pytest.raises(LedgerError, match="the run x is not in the ledger"):
            act()
    with pytest.raises(LedgerError, match="r is noted already"):
        launched.begin(Run(id="r"))


def test_runs_are_listed_as_noted_whatever_the_clock_says(tmp_path: Path) -> None:
    times = iter([300.0, 200.0, 100.0, 50.0])
    book = Ledger(tmp_path / "l.db", now=lambda: next(times))
    for name in ("a", "b", "c"):
        book.begin(Run(id=name))
    book.finish("b", OVER)
    assert [run.id for run in book.runs()] == ["c", "b", "a"]
    assert [run.id for run in book.runs(2)] == ["c", "b"]
    assert [run.id for run in book.runs(active_only=True)] == ["c", "a"]
    assert [run.id for run in book.runs(1, active_only=True)] == ["c"]


def test_a_run_is_found_by_what_a_person_types(book: Ledger) -> None:
    for name in ("train-1", "train-1-a", "train-2", "eval-9", *(f"train-1-{n}" for n in range(9))):
        book.begin(Run(id=name))
    assert book.find("train-1").id == "train-1"
    assert book.find("train-2").id == book.find("train-2").id == "train-2"
    assert book.find("e").id == "eval-9"
    with pytest.raises(Ambiguous) as several:
        book.find("train-1-")
    assert "train-1-8" in several.value.hint
    with pytest.raises(NotFound) as near:
        book.find("al-9")
    assert "eval-9" in near.value.hint
    for nothing in ("", "-", "%", "_", "*", "zzz", "TRAIN-2", "é", "\udcff", "'", "train-2 "):
        with pytest.raises(NotFound):
            book.find(nothing)


# Resources


def test_a_resource_goes_its_way(launched: Ledger) -> None:
    lease = intended(launched)
    assert lease.state is LeaseState.INTENDED
    assert launched.confirm(lease, "i-1")
    assert launched.confirm(lease, "i-1")
    live = only(launched)
    assert (live.state, live.id, live.created) == (LeaseState.LIVE, "i-1", 1000.0)
    assert launched.releasing(live)
    assert not launched.releasing(live)
    assert launched.leases("r", open_only=True) == [only(launched)]
    assert launched.released(live)
    assert not launched.released(live)
    assert launched.leases("r", open_only=True) == []
    gone = only(launched)
    assert (gone.state, gone.id, gone.released) == (LeaseState.RELEASED, "i-1", 1000.0)
    assert not gone.resource.alive


def test_a_run_is_not_over_before_its_resources_are_seen_gone(launched: Ledger) -> None:
    lease = intended(launched)
    assert not launched.finish("r", OVER)
    launched.releasing(lease)
    launched.advance("r", RunState.RELEASING)
    assert not launched.finish("r", OVER)
    assert launched.released(lease)
    assert launched.finish("r", OVER)


def test_nothing_is_acquired_before_launch_or_after_it_is_given_up(book: Ledger) -> None:
    book.begin(Run(id="r"))
    assert book.intend("r", MACHINE, provider="cloud") is None
    book.advance("r", RunState.LAUNCHING)
    book.advance("r", RunState.RELEASING)
    assert book.intend("r", MACHINE, provider="cloud") is None
    assert book.leases() == []


def test_a_name_is_intended_once(launched: Ledger) -> None:
    lease = intended(launched)
    assert launched.intend("r", MACHINE, provider="cloud") is None
    launched.confirm(lease, "i-1")
    launched.released(only(launched))
    assert launched.intend("r", MACHINE, provider="cloud") is None
    assert launched.intend("r", MACHINE, provider="other") is not None


def test_a_late_reply_is_noted_though_the_intent_was_settled(launched: Ledger) -> None:
    """The client slept between intent and create; the guardian has found nothing and ended it."""
    lease = intended(launched)
    assert launched.released(lease)
    assert launched.finish("r", OVER)
    assert not launched.confirm(lease, "i-1")
    assert only(launched).released is None
    assert (only(launched).state, only(launched).id) == (LeaseState.LIVE, "i-1")
    (orphan,) = launched.orphans(lambda _: Life.ALIVE)
    assert [lease.id for lease in orphan.leases] == ["i-1"]
    assert launched.released(only(launched))
    assert launched.orphans() == []


def test_a_second_id_under_one_name_is_noted_too(launched: Ledger) -> None:
    lease = intended(launched)
    assert launched.confirm(lease, "i-1")
    assert not launched.confirm(lease, "i-2")
    assert not launched.confirm(lease, "i-2")
    assert launched.confirm(lease, "i-1")
    first, second = launched.leases("r", open_only=True)
    assert (first.id, second.id, second.name) == ("i-1", "i-2", first.name)
    assert second.price_per_hour == first.price_per_hour
    assert launched.released(first)
    assert not launched.finish("r", OVER)
    assert launched.released(second)
    assert launched.finish("r", OVER)


def test_an_id_learnt_meanwhile_is_not_released_by_who_looked_for_the_name(
    launched: Ledger,
) -> None:
    seen = intended(launched)
    launched.confirm(seen, "i-1")
    assert not launched.released(seen)
    assert not launched.releasing(seen)
    assert only(launched).state is LeaseState.LIVE


def test_an_id_learnt_while_it_is_released_is_kept_but_not_used(launched: Ledger) -> None:
    lease = intended(launched)
    launched.releasing(lease)
    assert not launched.confirm(lease, "i-1")
    assert (only(launched).state, only(launched).id) == (LeaseState.RELEASING, "i-1")
    with pytest.raises(ValueError):
        launched.confirm(lease, "")


def test_a_line_of_another_ledger_is_not_taken_for_ours(launched: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "other.db")
    other.begin(Run(id="s"))
    other.advance("s", RunState.LAUNCHING)
    foreign = other.intend("s", Resource(kind="instance", name="cvl-s-1"), provider="cloud")
    mine = intended(launched)
    assert foreign is not None
    assert foreign.key == mine.key
    with pytest.raises(LedgerError, match="cvl-s-1 is not in the ledger"):
        launched.released(foreign)
    assert only(launched) == mine


# Who looks after what


def test_orphans_are_what_only_the_dead_look_after(book: Ledger) -> None:
    keepers = {
        "alive": ("alive", ""),
        "dead": ("dead", ""),
        "elsewhere": ("elsewhere", ""),
        "nobody": ("", ""),
        "guarded": ("dead", "alive"),
        "both-dead": ("dead", "dead"),
        "guardian-dead": ("", "dead"),
        "over": ("dead", "dead"),
    }
    for name, (owner, guardian) in keepers.items():
        book.begin(Run(id=name, owner=owner, guardian=guardian))
    book.finish("over", OVER)
    orphans = book.orphans(Life)
    assert [orphan.run.id for orphan in orphans] == ["dead", "both-dead", "guardian-dead"]
    assert all(orphan.leases == () for orphan in orphans)


def test_orphans_come_with_what_is_open(launched: Ledger) -> None:
    lease = intended(launched)
    key = launched.intend("r", Resource(kind="ssh-key", name="k"), provider="cloud")
    assert key is not None
    launched.released(key)
    (orphan,) = launched.orphans(lambda _: Life.DEAD)
    assert orphan.leases == (lease,)


def test_our_own_runs_are_no_orphans(book: Ledger) -> None:
    book.begin(Run(id="r", owner=me()))
    assert book.orphans() == []


# Start-up


def test_nothing_heavy_is_loaded_for_an_empty_answer(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, cvl.ledger as l\n"
        f"book = l.Ledger(pathlib.Path({str(tmp_path / 'no.db')!r}))\n"
        "assert (book.runs(), book.orphans(), book.leases(), book.id()) == ([], [], [], '')\n"
        "heavy = {'sqlite3', 'subprocess', 'click', 'rich', 'yaml', 'asyncio', 'tempfile'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=30, check=True)
    assert list(tmp_path.iterdir()) == []
