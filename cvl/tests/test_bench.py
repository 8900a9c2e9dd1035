"""The benchmarks: that they run, say what failed, and that the page says what was found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bench", reason="not a checkout: the benchmarks are not installed")

from bench import page, pairs
from bench.__main__ import main
from bench.values import Failed, Goal, Sample, Table, Topic, as_json, from_json, quartiles


def table(**changed: object) -> Table:
    given = {
        "title": "Time",
        "unit": "s",
        "base": "ssh",
        "samples": {"ssh": [1.0, 2.0, 4.0], "cvl": [1.0, 4.0, 6.0]},
        "goals": {"cvl": Goal(limit=1.2)},
    }
    return Table(**{**given, **changed})  # type: ignore[arg-type]


def written(tmp_path: Path, *topics: Topic) -> str:
    file = tmp_path / "page.md"
    results = page.Results(before="", machine={"cores": "2"}, topics=topics)
    page.write(results, file, {})
    return file.read_text()


def test_each_round_takes_every_measure_and_begins_with_another() -> None:
    calls: list[str] = []

    def measure(name: str) -> Sample:
        calls.append(name)
        return {"s": float(len(calls))}

    measures = {"a": lambda: measure("a"), "b": lambda: measure("b")}
    found = pairs.in_turns(measures, rounds=3, seconds=60, warm=False)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert found.samples == {"a": {"s": [1.0, 4.0, 5.0]}, "b": {"s": [2.0, 3.0, 6.0]}}


def test_no_more_rounds_than_there_is_time_for_but_some(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("bench.pairs.time.monotonic", lambda: next(clock))
    short = pairs.in_turns({"a": lambda: {"s": 1.0}}, rounds=100, seconds=9, warm=False)
    assert len(short.samples["a"]["s"]) == pairs.LEAST
    none = pairs.in_turns({"a": lambda: {"s": 1.0}}, rounds=100, seconds=1, warm=False)
    assert len(none.samples["a"]["s"]) == 1


def test_what_fails_is_left_out_with_its_reason_and_the_others_go_on() -> None:
    def broken() -> Sample:
        raise Failed("it is not installed")

    measures = {"a": broken, "b": lambda: {"s": 1.0}}
    found = pairs.in_turns(measures, rounds=2, seconds=60)
    assert found.missing == {"a": "it is not installed"}
    assert found.samples == {"b": {"s": [1.0, 1.0]}}


def test_a_ratio_is_of_the_same_round() -> None:
    assert table().ratios("cvl") == [1.0, 2.0, 1.5]
    assert table().missed() == ["cvl"]
    assert table(goals={"cvl": Goal(limit=1.5)}).missed() == []
    assert table(goals={"cvl": Goal(limit=5.0, ratio=False)}).missed() == []
    assert table(goals={"cvl": Goal(limit=1.6, at_least=True)}).missed() == ["cvl"]
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)


def test_the_page_says_what_was_missed_why_and_what_was_not_measured(tmp_path: Path) -> None:
    topic = Topic(
        name="x",
        title="First",
        question="How long?",
        tables=[table()],
        missing={"dstack": "cannot be installed"},
        reasons={"cvl": "It says more.", "fabric": "Nobody asked."},
        profiles={"imports": "12 ms  click"},
    )
    text = written(tmp_path, topic, Topic(name="y", title="Second", question="", error="no sshd"))
    plain = text.replace(page.TIMES, "x")
    assert "| cvl | 4.00 | 1.00-6.00 | 3 | 1.50 (1.00-2.00) | ≤ 1.20 x |" in plain
    assert "| First | Time: cvl | ≤ 1.20 x | 1.50 x | **no** |" in plain
    assert "- dstack: cannot be installed" in text
    assert "- It says more." in text
    assert "Nobody asked." not in text
    assert "12 ms  click" in text
    assert "not measured: no sshd" in text


def test_what_was_found_comes_back_from_json() -> None:
    topic = Topic(name="x", title="First", question="How long?", tables=[table()])
    again = from_json(json.loads(json.dumps(as_json(topic))))
    assert again == topic


def test_a_few_topics_from_end_to_end(tmp_path: Path) -> None:
    words = ["startup", "ledger", "--smoke", "--no-rivals", "--no-plots", "--minutes", "0.02"]
    file = tmp_path / "benchmarks.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words, "--before", "", "--page", str(file)],
        cwd=Path(page.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "benchmarks" / "results.json").read_text())
    assert [each["name"] for each in results["topics"]] == ["startup", "ledger"]
    for topic in results["topics"]:
        assert not topic["error"]
        assert not topic["missing"]
        for each in topic["tables"]:
            assert each["samples"]
            assert all(len(values) == 1 for values in each["samples"].values())
    text = file.read_text()
    assert "| python -c pass |" in text
    assert "## The ledger" in text
    assert results["machine"]["ssh"] in text


def test_a_topic_that_fails_is_said_and_the_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(work: object) -> Topic:
        raise OSError("no space left")

    monkeypatch.setattr("bench.startup.measure", broken)
    file = tmp_path / "page.md"
    words = ["startup", "--smoke", "--no-rivals", "--no-plots", "--before", "", "--page", str(file)]
    assert main(words) == 1
    assert "not measured: OSError: no space left" in file.read_text()


def test_the_page_can_be_written_again_from_the_json(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    words = ["ledger", "--smoke", "--no-rivals", "--no-plots", "--minutes", "0.01"]
    main([*words, "--before", "", "--page", str(file)])
    before = file.read_text()
    file.unlink()
    assert main(["--page-only", "--no-plots", "--page", str(file)]) == 0
    assert file.read_text() == before


def test_what_is_not_measured_again_stays(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    words = ["--smoke", "--no-rivals", "--no-plots", "--minutes", "0.01", "--before", ""]
    for topic in ("ledger", "startup"):
        assert main([topic, *words, "--page", str(file)]) == 0
    assert "## Start-up" in file.read_text()
    assert "## The ledger" in file.read_text()
