"""What a person sees of a run where no status line can stand."""

from __future__ import annotations

import pytest

from cvl.console import PACE, Console


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
