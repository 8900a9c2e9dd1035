"""The copy of an example on a machine, from run to run: what is sent, and what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvl.core.scope import Scope
from cvl.core.spec import JobSpec, Source
from cvl.host import launch
from cvl.host.launch import Cargo, Setup
from cvl.host.rpc import FarSide
from cvl.host.upload.tree_sync import MANY, MUCH, SPARE_LIMIT, TreeSync
from cvl.tests.farside import wait_for
from cvl.transports.local import Local


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FarSide:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    return FarSide(Local(), str(tmp_path / "base"))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "root/ex").mkdir(parents=True)
    return Source(root=tmp_path / "root", folder="ex")


def run(far: FarSide, source: Source, number: int, script: str) -> bytes:
    spec = JobSpec(run_id=f"run-{number}", argv=("sh", "-c", script), source=source)
    job = launch.start(far, spec, {"run": spec.run_id}, Setup(), Scope())
    try:
        return b"".join(chunk.data for chunk in job.chunks())
    finally:
        job.close()


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_many_files_are_copied_beside_one_run_for_the_next(far: FarSide, source: Source) -> None:
    folder = source.root / "ex"
    for number in range(MANY + 5):
        (folder / f"f{number}").write_text(str(number))
    assert run(far, source, 1, "cat f7") == b"7"
    base = Path(far.base)
    [cache] = (base / "cache").iterdir()
    wait_for((cache / "spare/id").exists)
    inode = (cache / "spare/tree/ex/f7").stat().st_ino
    (folder / "f8").write_text("changed")
    (folder / "f9").unlink()
    assert run(far, source, 2, "cat f7 f8; ls | wc -l") == b"7changed%d\n" % (MANY + 4)
    assert (base / "jobs/run-2/ws/ex/f7").stat().st_ino == inode
    wait_for((cache / "spare/id").exists)
    assert run(far, source, 3, "cat f7 f8; ls | wc -l") == b"7changed%d\n" % (MANY + 4)


@pytest.mark.parametrize(
    ("files", "size", "asked"),
    [(3, 10, False), (MANY + 1, 10, True), (1, MUCH + 1, True), (1, SPARE_LIMIT + 1, False)],
)
def test_a_spare_is_asked_for_where_it_is_worth_it(
    files: int,
    size: int,
    asked: bool,
    far: FarSide,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cvl.host.upload.tree_sync.SPARE_LIMIT", MUCH + 100)
    if size > SPARE_LIMIT:
        size = MUCH + 101
    for number in range(files):
        sparse(source.root / f"ex/f{number}", size)
    headers = dict(TreeSync(far, source).spare())
    assert headers.get("spare") == (str(files * size >> 10) if asked else None)


@pytest.mark.parametrize("again", [True, False])
def test_a_machine_that_is_used_once_is_asked_for_none(
    again: bool, far: FarSide, source: Source
) -> None:
    sparse(source.root / "ex/big", MUCH + 1)
    spec = JobSpec(run_id="run-1", argv=("true",), source=source)
    headers = dict(Cargo(far, spec, Setup(again=again)).headers())
    assert ("spare" in headers) is again
    assert headers["tree"]
