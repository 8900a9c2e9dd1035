"""What a person sees of a run where no status line can stand."""

from __future__ import annotations

import pytest

from cvl.console import PACE, Console
from cvl.scope import BACK, SILENT


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
