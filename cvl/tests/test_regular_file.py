"""A file is read to a bound, and what lies in its place is refused, whenever it is put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvl.core import regular_file
from cvl.core.regular_file import start_of


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("put_there", ["before", "meanwhile"])
def test_what_is_no_file_is_refused_and_let_go(
    make: object, put_there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    make(place)  # type: ignore[operator]
    looks = iter([put_there == "before", True])
    check = regular_file._regular  # whose first look may come too early
    monkeypatch.setattr(
        regular_file, "_regular", lambda *each: check(*each) if next(looks) else None
    )
    held = open_files()
    with pytest.raises(OSError):
        start_of(place, 3, links=True)
    assert open_files() == held


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_bytes(b"abc" * 100_000)
    assert start_of(place, 100_001) == (b"abc" * 100_000)[:100_001]
