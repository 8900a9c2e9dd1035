"""Everything waits by a scope's clock, so that a test can inject one and a stop reaches it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from cvl.tests.imports import HERE

CLOCKS = frozenset({"sleep", "monotonic", "monotonic_ns", "perf_counter", "clock_gettime"})
MOMENTS = frozenset({"time", "time_ns"})
WOKEN = frozenset({"Event", "Condition", "Semaphore", "Barrier"})
"""What `threading` offers to wait on for so many seconds; `Bell` does that by a clock."""

OWN = {
    "core/scope.py": "the clock itself",
    "operations/guardian_listener.py": "a guardian counts the seconds that a machine sleeps, too",
}
"""Files that wait by another clock, or none, and why."""
DATES = {
    "core/scope.py": "the clock itself",
    "core/replies.py": "what an answer calls a date",
    "core/staging.py": "how old a folder is on the disk",
    "catalog/index.py": "how old a file is on the disk",
    "host/upload/hashes.py": "how old a file is on the disk",
    "host/upload/payload.py": "the times of files that are sent",
    "host/download/landing.py": "the times of files that have come",
    "host/install.py": "how old a file is on the disk",
    "ledger/ledger.py": "what is noted; a test gives another",
    "operations/attach.py": "what the ledger has noted",
    "operations/list.py": "what the ledger has noted",
    "operations/reap_targets.py": "what the ledger has noted",
    "operations/takeover.py": "what the ledger has noted",
    "providers/kubernetes/credentials.py": "when a credential expires",
    "rental/provider.py": "a deadline by a cloud's clock, where the cloud tells no time",
}
"""Files that ask what time of day it is, to compare it with what others have written."""


def timed(source: str, names: frozenset[str]) -> Iterator[str]:
    """Yield what of `time` a module uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from {node.attr} & names if node.value.id == "time" else ()
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from {each.name for each in node.names} & names


def woken(source: str) -> Iterator[str]:
    """Yield the waits for so many seconds on what the module makes of `WOKEN`."""
    tree = ast.parse(source)
    made = {name for node in ast.walk(tree) for name in _made(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            seconds = node.args[0] if node.args else next(iter(node.keywords), None)
            if (
                node.func.attr in {"wait", "wait_for"}
                and seconds
                and _name(node.func.value) in made
            ):
                yield _name(node.func.value)


def _made(node: ast.AST) -> Iterator[str]:
    """Yield the names to which something of `WOKEN` is given."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
        calls = (each.func for each in ast.walk(node.value) if isinstance(each, ast.Call))
        if WOKEN & set(map(_name, calls)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (_name(each) for target in targets for each in ast.walk(target))


def _name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def waits(source: str) -> list[str]:
    return [*timed(source, CLOCKS), *woken(source)]


def product() -> Iterator[tuple[str, str]]:
    for path in sorted(HERE.rglob("*.py")):
        name = path.relative_to(HERE)
        if name.parts[0] not in {"tests", "testing"}:
            yield str(name), path.read_text("utf-8")


def test_everything_waits_by_a_scope() -> None:
    assert {name for name, source in product() if waits(source)} == OWN.keys()


def test_who_asks_for_the_time_of_day_compares_it_with_what_others_say() -> None:
    assert {name for name, source in product() if [*timed(source, MOMENTS)]} == DATES.keys()


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(1)",
        "until = time.monotonic() + 3",
        "from time import monotonic",
        "def f(clock=time.monotonic): ...",
        "self._shut = threading.Event(); self._shut.wait(2)",
        "a, b = (Event() for _ in range(2)); b.wait(timeout=PAUSE)",
        "news: Condition = Condition(); news.wait_for(done, 5.0)",
    ],
)
def test_what_would_be_found(line: str) -> None:
    assert waits(line)


@pytest.mark.parametrize(
    "line",
    [
        "scope.sleep(1)",
        "for attempt in scope.attempts(PAUSES, limit=3.0): ...",
        "clock.wait(bell, 5)",
        "process.wait(5)",
        "closed = threading.Event(); closed.wait()",
        "time.strftime('%Y')",
    ],
)
def test_what_would_not(line: str) -> None:
    assert not waits(line)
