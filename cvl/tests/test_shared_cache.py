"""Many of ours look at one list: one asks, all know, and nobody sees anything older than that."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvl.providers.lambda_cloud.api import LambdaAPI
from cvl.rental.shared_cache import Answers
from cvl.testing.lambda_cloud import FAULTS, LambdaCloud, Settings

INTERVAL = 0.2


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaCloud]:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as cloud:
        yield cloud


def account(cloud: LambdaCloud) -> LambdaAPI:
    return LambdaAPI(cloud.key, cloud.base, interval=INTERVAL)


def test_twenty_that_look_ask_far_less_often(cloud: LambdaCloud) -> None:
    seen: list[float] = []

    def look() -> None:
        for _ in range(3):
            began = time.monotonic()
            assert account(cloud).listed("/instances") == []
            seen.append(time.monotonic() - began)

    lookers = [threading.Thread(target=look) for _ in range(20)]
    for each in lookers:
        each.start()
    for each in lookers:
        each.join(60)
    assert len(seen) == 60
    assert len(cloud.log) < 30, "sixty looks"


def test_an_answer_from_before_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    answers, now = Answers("list"), time.monotonic()
    assert answers.since(now) is None
    answers.keep(now, [{"id": "1", "jupyter_token": "s3cret"}])
    assert answers.since(now) is None
    assert answers.since(now - 1) == [{"id": "1"}]
    answers.keep(now, {"no": "list"})
    assert answers.since(now - 1) == [{"id": "1"}]
    (file,) = (tmp_path / "pace").glob("list*")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in file.read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"boot": "x", "asked": 9e9, "data": []}'])
def test_what_another_boot_or_chance_has_left_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    (tmp_path / "pace").mkdir()
    (tmp_path / "pace" / "list.json").write_text(text)
    assert Answers("list").since(0.0) is None


def test_what_went_wrong_for_one_is_not_passed_on(cloud: LambdaCloud, tmp_path: Path) -> None:
    cloud.inject(FAULTS["list-garbage"])
    assert account(cloud).listed("/instances") == []
    (file,) = (tmp_path / "pace").glob("*.json")
    assert json.loads(file.read_text())["data"] == []
    assert [each.fault for each in cloud.log] == ["garbage", ""]
