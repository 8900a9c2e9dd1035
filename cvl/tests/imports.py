"""Which module imports which: all of it, also inside functions and for types only."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import cvl

HERE = Path(cvl.__file__).parent


@cache
def modules() -> Mapping[str, Path]:
    """Return the file of each module of cvl, by its full name."""
    return {name_of(path): path for path in sorted(HERE.rglob("*.py"))}


def name_of(path: Path) -> str:
    words = path.relative_to(HERE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules of cvl that this one imports."""
    tree = ast.parse(modules()[name].read_text("utf-8"))
    found = {each for node in ast.walk(tree) for each in _named(node) if each in modules()}
    return frozenset(found - {name})


def _named(node: ast.AST) -> Iterator[str]:
    """Yield the modules that one statement loads by name: a package only where no more is said."""
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        inner = [f"{node.module}.{each.name}" for each in node.names]
        yield from (each if each in modules() else node.module for each in inner)


def reached(starts: Iterable[str]) -> set[str]:
    """Return all modules that are loaded with these, themselves included."""
    seen: set[str] = set()
    ahead = set(starts)
    while ahead:
        seen.add(name := ahead.pop())
        ahead |= (imports(name) | _packages(name)) - seen
    return seen


def _packages(name: str) -> set[str]:
    words = name.split(".")
    return {".".join(words[:count]) for count in range(1, len(words))}


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return each set of nodes that all lead to one another: those where one would be too many."""
    ways = {name: _ahead(name, graph) for name in graph}
    found = {
        tuple(sorted({other for other in ways[name] if name in ways[other]}))
        for name in graph
        if name in ways[name]
    }
    return [list(each) for each in sorted(found)]


def _ahead(name: str, graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Return all that can be reached from there by one step or more."""
    seen: set[str] = set()
    ahead = set(graph[name])
    while ahead:
        seen.add(each := ahead.pop())
        ahead |= set(graph[each]) - seen
    return seen
