"""The rules of the house: few rooms that say what lives there, imports one way, files that fit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cvl.tests.imports import HERE, circles, imports, modules

LEVELS = (
    ("core",),
    ("catalog", "ledger"),
    ("cleanup",),
    ("run",),
    ("transports",),
    ("host",),
    ("rental", "container"),
    ("providers",),
    ("operations", "runners"),
    ("cli",),
)
"""The rooms, from the ground up: each may import those below it, and nobody its neighbours."""

MOST_ROOMS = 14
LONGEST = 300
LINE = 100

LONG = {
    "core/interfaces.py": "all seams on one page, half of it their contracts",
    "core/scope.py": "deadline, stop and clock are one thing to whoever waits",
    "host/rpc.py": "every verb of the protocol",
    "host/stream.py": "one loop over three pipes, whose state is one",
    "host/upload/hashes.py": "the index, and the reading that it saves",
    "host/upload/selection.py": "the rules of what travels, side by side",
    "providers/kubernetes/manifest.py": "the objects of one run, field by field",
    "providers/lambda_cloud/api.py": "every request, and what each failure lets one conclude",
    "providers/lambda_cloud/cloud.py": "every verb of a cloud, and what its API lists, read",
}
"""Files that are longer, and why. The list only shrinks."""


def product() -> list[str]:
    return [name for name in modules() if room_of(name) not in {"tests", "testing"}]


def room_of(name: str) -> str:
    return f"{name}.".split(".")[1]


def rooms() -> set[str]:
    return {path.parent.name for path in HERE.glob("*/__init__.py")} - {"tests"}


def packages() -> list[Path]:
    return [path for path in sorted(HERE.rglob("__init__.py")) if path.parent != HERE / "tests"]


def test_the_rooms_are_few_and_known() -> None:
    assert rooms() == {*(room for level in LEVELS for room in level), "testing"}
    assert len(rooms()) <= MOST_ROOMS
    assert {path.name for path in HERE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", packages(), ids=lambda path: str(path.parent.relative_to(HERE)))
def test_each_room_says_in_a_line_what_lives_there(path: Path) -> None:
    words = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert words, "an __init__ without a docstring"
    line, *rest = words.splitlines()
    assert line.endswith(".")
    assert len(line) <= LINE
    assert rest == [] or rest[0] == ""


def test_imports_go_one_way() -> None:
    heights = {room: height for height, level in enumerate(LEVELS) for room in level}
    heights |= {"": -1, "__main__": len(LEVELS)}  # `cvl` itself is a version, and names of core
    wrong = {
        (name, other)
        for name in product()
        for other in imports(name)
        if room_of(name) != room_of(other) and room_of(name)
        if heights.get(room_of(other), len(LEVELS)) >= heights[room_of(name)]
    }
    assert wrong == set()


def test_cvl_itself_imports_only_the_core() -> None:
    assert {room_of(other) for other in imports("cvl")} == {"core"}


def test_no_module_leads_back_to_itself() -> None:
    graph = {name: imports(name) for name in product()}
    assert circles(graph) == []


def test_files_fit() -> None:
    lengths = {
        str(path.relative_to(HERE)): len(path.read_text("utf-8").splitlines())
        for path in [*(modules()[name] for name in product()), *HERE.glob("host/shell/*.sh")]
    }
    assert {name for name, lines in lengths.items() if lines > LONGEST} == {*LONG}


DRIVING = re.compile(
    r"cvl\.(run\.lifecycle|(cleanup|transports|host|rental)\.|providers\.(base|\w+\.))"
)
"""What drives and ends things: `cli/` leaves that to `operations/`, and each provider as well."""
HARMLESS = {
    "cvl.cleanup.reap_timer",
    "cvl.host.download.inert_names",
    "cvl.transports.ssh.aliases",
}
"""What only reads, or writes a timer."""


def test_the_command_line_opens_no_ledger_and_drives_nothing() -> None:
    for name in product():
        if room_of(name) == "cli":
            driving = set(filter(DRIVING.match, imports(name))) - HARMLESS
            assert (driving, "Ledger" in words_of(name)) == (set(), False), name


def test_operations_print_nothing_and_parse_no_command_line() -> None:
    for name in product():
        if room_of(name) == "operations":
            assert not words_of(name) & {"print", "click"}, name


def words_of(name: str) -> set[str]:
    """Return the names and attributes that a module's code uses, and those that it imports."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(modules()[name].read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            words |= {each.name for each in node.names}
        elif isinstance(node, ast.Attribute | ast.Name):
            words.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return words
