"""Measures all topics, or those named, and writes the page: `python -m bench`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from bench import cvls, machine, page, rivals
from bench.cvls import CHECKOUT
from bench.values import Failed, Topic, as_json, from_json
from bench.work import SMOKE, Sizes, Work

TOPICS: Mapping[str, float] = MappingProxyType(
    {
        "startup": 0.14,
        "first_byte": 0.12,
        "streaming": 0.18,
        "files": 0.20,
        "fanout": 0.16,
        "rented": 0.10,
        "ledger": 0.10,
    }
)
"""Module -> its share of the time."""
BEFORE = "5bd27c3"
"""What is measured as "before" unless told otherwise: the last commit before the first of these
measurements made anything faster."""
MINUTES = 9.0
DEFAULT = CHECKOUT / "docs" / "benchmarks.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; return 1 if anything could not be measured."""
    options = _parser().parse_args(argv)
    kept = _json_of(options.page)
    results = _read(kept) if kept.exists() else page.Results(before="", machine={}, topics=())
    if not options.page_only:
        for newer in measured(results, options):
            results = newer
            _keep(results, kept)  # after each: what breaks off loses nothing
            page.write(results, options.page, _plots(kept, drawn=False))
    page.write(results, options.page, _plots(kept, drawn=not options.no_plots))
    for topic in results.topics:
        print(f"{topic.name:12} {topic.seconds:6.0f} s  {topic.error or _summary(topic)}")
    print(f"written: {options.page}")
    return int(any(topic.error for topic in results.topics))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("topics", nargs="*", choices=[*TOPICS, []], metavar="TOPIC")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="about, for all topics")
    parser.add_argument(
        "--before", metavar="REVISION", default=BEFORE, help='an earlier cvl, too; "": none'
    )
    parser.add_argument("--page", type=Path, default=DEFAULT)
    parser.add_argument("--page-only", action="store_true", help="write it again from the JSON")
    parser.add_argument("--no-rivals", action="store_true", help="install nothing")
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="next to no work: does it run?")
    return parser


def measured(earlier: page.Results, options: argparse.Namespace) -> Iterator[page.Results]:
    """Measure the topics that are asked for; yield all results after each.

    One that fails is reported, and the others go on; of those that are not asked for, the
    earlier results stay.
    """
    place, names, notes = machine.place(), options.topics or list(TOPICS), ""
    about = machine.described(place)
    revision = cvls.revision() or "outside of git"  # before the page itself changes
    found = {topic.name: topic for topic in earlier.topics}
    shares = sum(TOPICS[name] for name in names)
    with ExitStack() as stack:
        folder, disk = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvl-bench-", dir=where)))
            for where in (place, None)
        )
        cvl_list = [cvls.now(folder)]
        try:
            if options.before:
                cvl_list.append(cvls.before(options.before, folder))
                notes = cvl_list[1].name.removeprefix(" @")
        except Failed as why:
            about["an earlier cvl"] = f"not measured: {why}"
        if not options.no_rivals:
            _install()
        for each in names:
            work = Work(
                folder=_made(folder / each),
                disk=_made(disk / each),
                sizes=SMOKE if options.smoke else Sizes(),
                seconds=options.minutes * 60 * TOPICS[each] / shares,
                cvls=cvl_list,
                rivals=not options.no_rivals,
            )
            found[each] = _topic(each, work)
            if work.in_memory:
                shutil.rmtree(work.folder)
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            found[each].measured = f"on {now}, cvl {revision}"
            topics = [found[name] for name in TOPICS if name in found]
            yield page.Results(before=notes, machine=about, topics=topics)


def _topic(name: str, work: Work) -> Topic:
    print(f"bench: {name}, about {work.seconds:.0f} s", file=sys.stderr, flush=True)
    began = time.monotonic()
    measure: Callable[[Work], Topic] = import_module(f"bench.{name}").measure
    try:
        topic = measure(work)
    except Exception as error:  # noqa: BLE001 - said on the page; the others are measured
        traceback.print_exc()
        topic = Topic(name=name, title=name.replace("_", " ").capitalize(), question="")
        topic.error = f"{type(error).__name__}: {error}"[:300]
    topic.seconds = time.monotonic() - began
    return topic  # a folder on a disk goes in the end: some file systems are slow to remove


def _install() -> None:
    """Install what is compared before any clock runs; what fails is said where it is missed."""
    from bench.first_byte import SCRIPTS
    from bench.startup import RIVALS

    for package in (*SCRIPTS, *RIVALS.values()):
        try:
            rivals.rival(package)
        except Failed as why:
            print(f"bench: {why}", file=sys.stderr, flush=True)


def _summary(topic: Topic) -> str:
    goals = sum(len(table.goals) for table in topic.tables)
    return f"{goals - len(topic.missed())} of {goals} goals met"


def _json_of(page_file: Path) -> Path:
    return page_file.with_suffix("") / "results.json"


def _keep(results: page.Results, file: Path) -> None:
    data = {**asdict(results), "topics": [as_json(topic) for topic in results.topics]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_rounded(data), indent=1) + "\n")


def _rounded(value: object) -> object:
    """Six digits are more than any clock here gives; they keep the file small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _read(file: Path) -> page.Results:
    data = json.loads(file.read_text())
    return page.Results(**{**data, "topics": [from_json(each) for each in data["topics"]]})


def _plots(results: Path, *, drawn: bool) -> dict[str, str]:
    """Draw what can be drawn; return each topic's plot, relative to the page."""
    folder = results.parent
    if drawn:
        try:
            python = rivals.rival("matplotlib")
            argv = [python, str(CHECKOUT / "bench/plots.py"), str(results), str(folder)]
            subprocess.run(argv, check=True)
        except (Failed, subprocess.CalledProcessError) as error:
            print(f"bench: no plots: {error}", file=sys.stderr)
    return {file.stem: f"{folder.name}/{file.name}" for file in folder.glob("*.svg")}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
