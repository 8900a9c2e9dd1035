"""What a person sees of a run where no status line can stand."""

from __future__ import annotations

import ast
from decimal import Decimal
from pathlib import Path

import pytest

import cvl
from cvl.cli.console import PACE, SHOWN, Console
from cvl.cli.plan_approval import agreement, price_lines
from cvl.core.errors import CvlError, UsageError
from cvl.core.scope import BACK, SILENT, WARNING
from cvl.core.spec import FREE, Cause, ExitStatus, Plan, Quote

PASSING = {"starting", "checking", "running", "fetching", "releasing"}
"""What is worth no line: only a status line tells it."""
TELLS = ("tell", "_tell", "phase")


def test_what_moves_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """A large upload tells each megabyte; a log is no place for that, nor for a short one."""
    now = 100.0
    console = Console(clock=lambda: now)
    for megabyte in range(1, 200):
        console.phase("upload", f"{megabyte} MB")
        now += PACE / 50
    console.phase("fetched", "1 file")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"cvl: upload: {n} MB" for n in (51, 101, 151)), "cvl: fetched: 1 file"]


def test_phases_that_move_keep_their_own_pace(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    console = Console(clock=lambda: now)
    console.phase("upload", "1 MB")
    console.phase("fetch", "1 MB")
    now += PACE
    console.phase("upload", "2 MB")
    console.phase("fetch", "3 MB")
    assert capsys.readouterr().err == "cvl: upload: 2 MB\ncvl: fetch: 3 MB\n"
    Console(quiet=True, clock=lambda: now).phase("fetched", "1 file")
    assert capsys.readouterr().err == ""


def test_a_silent_host_is_named_also_where_little_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet in (False, True):
        console = Console(quiet=quiet)
        console.phase("running", "one")
        console.phase(SILENT, "box has given no answer for 30 s")
        console.phase(BACK, "box answers again")
        told = capsys.readouterr().err.splitlines()
        assert [line.partition(": ")[2] for line in told] == [
            "silent: box has given no answer for 30 s",
            "back: box answers again",
        ]


def test_the_status_line_names_it_and_then_goes_on_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phases = list[tuple[str, str]]()

    class Line:
        def phase(self, name: str, text: str) -> None:
            phases.append((name, text))

    console = Console()
    monkeypatch.setattr(console, "_status", Line())
    console.phase("running", "one")
    console.phase(SILENT, "box is silent")
    console.phase(BACK, "box is back")
    assert phases == [("running", "one"), (SILENT, "box is silent"), ("running", "one")]


def test_no_phase_is_told_that_nobody_sees() -> None:
    """One that no list names would be told nowhere; what a person has to know is a warning."""
    package = Path(cvl.__file__).parent
    files = [p for p in package.rglob("*.py") if not {"tests", "testing"} & set(p.parts)]
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TELLS
    ]
    told = {
        str(call.args[0].value)
        for call in calls
        if call.args and isinstance(call.args[0], ast.Constant)
    }
    assert {"waiting", "fetched", "running"} <= told
    assert told <= {*SHOWN, *PASSING, WARNING}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ExitStatus(0, run_id="r"), ""),
        (ExitStatus(0, cause=Cause.DETACHED, run_id="r"), ""),
        (
            ExitStatus(0, run_id="r", detail="disk-full"),
            "cvl: r: exited, exit code 0 (disk-full)\n",
        ),
        (ExitStatus(3, run_id="r"), "cvl: r: exited, exit code 3\n"),
        (ExitStatus(0, cause=Cause.STOPPED, run_id="r"), "cvl: r: stopped, exit code 0\n"),
    ],
)
def test_only_what_simply_succeeded_needs_no_word(
    status: ExitStatus, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Console().ended(status)
    assert capsys.readouterr().err == words


def plan(quote: Quote) -> Plan:
    return Plan(runner="x", where="there", request={}, quote=quote)


@pytest.mark.parametrize("price", [None, Decimal(0), Decimal("0.00"), Decimal("1.5")])
def test_what_is_rented_is_agreed_to_at_any_price(price: Decimal | None) -> None:
    """None is a price that nobody could tell, and 0 a price."""
    agree = agreement({"dry_run": False, "yes": False}, Console())
    with pytest.raises(UsageError, match="nobody is there to ask"):
        agree(plan(Quote(price_per_hour=price, note="why")))
    agreement({"dry_run": False, "yes": True}, Console())(plan(Quote(price_per_hour=price)))


@pytest.mark.parametrize("quote", [FREE, Quote(rented=False, note="a cluster has no price list")])
def test_what_is_not_rented_is_not_asked_about(
    quote: Quote, capsys: pytest.CaptureFixture[str]
) -> None:
    agreement({"dry_run": False, "yes": False}, Console())(plan(quote))
    assert capsys.readouterr().err == ""
    assert price_lines(plan(quote)) == [f"price: {quote.note}"]


def test_no_price_is_told_as_the_price_that_it_is() -> None:
    (line,) = price_lines(plan(Quote(price_per_hour=Decimal(0), max_cost=Decimal(0))))
    assert line == "price: $0.00 an hour, at most $0.00 (there)"
    (line,) = price_lines(plan(Quote(note="no price: the list gives none")))
    assert line == "price: no price: the list gives none"


def test_what_a_plan_lacks_is_said_before_anybody_is_asked() -> None:
    lacking = Plan(
        runner="x", where="there", request={}, quote=Quote(), obstacle=CvlError("no key")
    )
    agreement({"dry_run": False, "yes": False}, Console())(lacking)
