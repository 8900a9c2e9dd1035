"""Writes the page from the results alone: whoever has the JSON can write it again."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.values import Goal, Table, Topic, quartiles

TIMES = "\N{MULTIPLICATION SIGN}"
INTRO = """\
# Benchmarks

Written by `make bench`, never by hand; [bench/README.md](../bench/README.md) says how to add to it.
The raw samples are in [benchmarks/results.json](benchmarks/results.json).

All sides of a table do the same work in turns, in the same rounds. Seconds differ from machine to
machine and from minute to minute, the ratios hold: a ratio is the median over the rounds, of each
round's own ratio; the range behind it is from the least to the greatest. "IQR" is the range of the
middle half of the samples. What begins with `cvl` and has no `@` is this cvl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that one run of the suite has found."""

    before: str
    machine: Mapping[str, str]
    topics: Sequence[Topic]


def write(results: Results, page: Path, plots: Mapping[str, str]) -> None:
    """Write the page; `plots` maps a topic's name to its plot, relative to the page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(_lines(results, plots)) + "\n")


def _lines(results: Results, plots: Mapping[str, str]) -> Iterator[str]:
    yield INTRO
    yield ""
    if results.before:
        yield f"`@{results.before}` is cvl as it was at that commit, measured in the same rounds."
    yield from _goals(results.topics)
    yield "\n## The machine\n"
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {value} |" for name, value in results.machine.items())
    for topic in results.topics:
        yield from _topic(topic, plots.get(topic.name, ""))


def _goals(topics: Sequence[Topic]) -> Iterator[str]:
    """Yield what was aimed at, all in one table."""
    yield "\n## What was aimed at\n"
    yield "| | measured | goal | found | |\n|---|---|---|---|---|"
    for topic in topics:
        if topic.error:
            yield f"| {topic.title} | | | not measured: {_cell(topic.error)} | no |"
        for table in topic.tables:
            for name, goal in table.goals.items():
                value = table.value(name, goal) if name in table.samples else None
                found = "not measured" if value is None else _amount(value, goal, table)
                met = "yes" if value is not None and goal.met(value) else "**no**"
                words = f"{_cell(table.title)}: {_cell(name)}"
                yield f"| {topic.title} | {words} | {_goal(goal, table)} | {found} | {met} |"


def _topic(topic: Topic, plot: str) -> Iterator[str]:
    yield f"\n## {topic.title}\n"
    yield topic.question
    yield f"\nMeasured {topic.measured}, in {topic.seconds / 60:.0f} minutes."
    if topic.error:
        yield f"\nThis was not measured: {topic.error}"
    if plot:
        yield f"\n![{topic.title}]({plot})"
    for table in topic.tables:
        yield from _table(table)
    if topic.missing:
        yield "\nNot measured:\n"
        yield from (f"- {name}: {_cell(why)}" for name, why in topic.missing.items())
    if topic.notes:
        yield ""
        yield from (f"- {note}" for note in topic.notes)
    yield from _reasons(topic)


def _reasons(topic: Topic) -> Iterator[str]:
    """Yield why goals were missed, and the profiles that show it."""
    missed = {name for _, name in topic.missed()}
    reasons = [why for key, why in topic.reasons.items() if any(key in name for name in missed)]
    if reasons:
        yield "\nWhy goals were missed:\n"
        yield from (f"- {why}" for why in dict.fromkeys(reasons))
    for title, text in topic.profiles.items():
        yield f"\nProfile, {title}:\n"
        yield f"```text\n{text}\n```"


def _table(table: Table) -> Iterator[str]:
    yield f"\n### {table.title}\n"
    if table.note:
        yield f"{table.note}\n"
    ratio = f" {TIMES} {_cell(table.base)} |" if table.base in table.samples else ""
    yield f"| | {table.unit} | IQR | rounds |{ratio} goal |"
    yield "|---|---|---|---|" + ("---|" if ratio else "") + "---|"
    for name, samples in table.samples.items():
        low, high = quartiles(samples)
        cells = [
            _cell(name),
            _number(statistics.median(samples)),
            f"{_number(low)}-{_number(high)}",
            str(len(samples)),
        ]
        if ratio:
            cells.append(_spread(table.ratios(name)) if name != table.base else "1")
        cells.append(_goal(table.goals[name], table) if name in table.goals else "")
        yield f"| {' | '.join(cells)} |"


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _goal(goal: Goal, table: Table) -> str:
    sign = "≥" if goal.at_least else "≤"
    return f"{sign} {_amount(goal.limit, goal, table)}"


def _amount(value: float, goal: Goal, table: Table) -> str:
    return f"{value:.2f} {TIMES}" if goal.ratio else f"{_number(value)} {table.unit}"


def _number(value: float) -> str:
    """Return a value with about three digits."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
