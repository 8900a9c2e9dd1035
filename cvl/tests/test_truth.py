"""Zero is a result: what may be 0, or not be there at all, is never asked whether it is true.

`if status:` takes a run that exited 0 for one that has not ended, `price or DEFAULT` takes what is
free for what has no price. mypy knows the type of every expression, so it says where that is done.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mypy import build, nodes, types
from mypy.find_sources import create_source_list
from mypy.options import Options

import cvl

PACKAGE = Path(cvl.__file__).parent
NUMBERS = ("builtins.int", "builtins.float", "decimal.Decimal")
SKIPPED = ("type", "node", "info", "names", "type_annotation")
"""What leads from an expression to elsewhere."""

Place = tuple[int, int, int | None, int | None]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_nothing_that_may_be_zero_is_asked_whether_it_is_true() -> None:
    ours = [
        str(path) for path in PACKAGE.rglob("*.py") if not {"tests", "testing"} & set(path.parts)
    ]
    found = [
        f"{module.path}:{line}: {text}" for module in typed(ours) for line, text in wrong(module)
    ]
    assert found == []


EXAMPLES = {
    "status: ExitStatus": True,
    "status: ExitStatus | None": True,
    "price: Decimal": True,
    "price: Decimal | None": True,
    "seconds: float": True,
    "seconds: float | None": True,
    "port: int | None": True,
    "flag: bool": False,
    "flag: bool | None": False,
    "count: int": False,
    "name: str": False,
    "names: list[int] | None": False,
}


@pytest.mark.parametrize("test", ["if {0}: pass", "x = {0} or 1", "x = not {0}", "x = bool({0})"])
def test_it_is_found_where_it_is_done(test: str, tmp_path: Path) -> None:
    head = "from decimal import Decimal\nfrom cvl.core.spec import ExitStatus\n"
    for number, example in enumerate(EXAMPLES):
        line = test.format(example.partition(":")[0])
        head += f"def f{number}({example}) -> None:\n    {line}\n"
    file = tmp_path / "asks.py"
    file.write_text(head)
    (module,) = typed([str(file)])
    lines = {line for line, _ in wrong(module)}
    expected = {4 + 2 * at for at, bad in enumerate(EXAMPLES.values()) if bad}
    assert lines == expected


def typed(paths: list[str]) -> list[nodes.MypyFile]:
    """Return the modules at these paths; the types of their expressions are in `KNOWN`."""
    options = Options()
    options.export_types = options.preserve_asts = True
    options.incremental, options.cache_dir = False, "/dev/null"
    result = build.build(create_source_list(paths, options), options)
    KNOWN.update(result.types.items())
    trees = [state.tree for state in result.graph.values()]
    return [tree for tree in trees if tree is not None and tree.path in paths]


KNOWN: dict[object, types.Type] = {}


def wrong(module: nodes.MypyFile) -> Iterator[tuple[int, str]]:
    """Yield line and text of each truth test of a number that may be 0 where that matters."""
    source = Path(module.path).read_text("utf-8")
    at: dict[Place, types.Type] = {}
    for each in expressions(module):
        if each in KNOWN:
            at[each.line, each.column, each.end_line, each.end_column] = KNOWN[each]
    for asked in set(asked_in(ast.parse(source))):
        meant = asked.target if isinstance(asked, ast.NamedExpr) else asked
        place = meant.lineno, meant.col_offset, meant.end_lineno, meant.end_col_offset
        if place in at and may_mislead(at[place]):
            yield asked.lineno, str(ast.get_source_segment(source, asked))


def may_mislead(given: types.Type) -> bool:
    """Return whether 0 of this type is something else than nothing.

    A plain count may be asked so: it is 0 or not.
    """
    proper = types.get_proper_type(given)
    parts = proper.items if isinstance(proper, types.UnionType) else [proper]
    several = [types.get_proper_type(each) for each in parts]
    optional = any(isinstance(each, types.NoneType) for each in several)
    kinds = [each.type for each in several if isinstance(each, types.Instance)]
    numbers = {kind.fullname for kind in kinds if any(map(kind.has_base, NUMBERS))}
    numbers.discard("builtins.bool")
    return bool(numbers) and (optional or numbers != {"builtins.int"})


def asked_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield everything of which only the truth is asked."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            yield from parts_of(node.test)
        elif isinstance(node, ast.comprehension):
            for each in node.ifs:
                yield from parts_of(each)
        elif isinstance(node, ast.BoolOp):
            for each in node.values[:-1]:
                yield from parts_of(each)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield from parts_of(node.operand)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "bool":
            for each in node.args:
                yield from parts_of(each)


def parts_of(test: ast.expr) -> Iterator[ast.expr]:
    if isinstance(test, ast.BoolOp):
        for each in test.values:
            yield from parts_of(each)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from parts_of(test.operand)
    else:
        yield test


def expressions(module: nodes.MypyFile) -> Iterator[nodes.Expression]:
    """Yield every expression of a module."""
    todo: list[object] = [*module.defs]
    seen = set[int]()
    while todo:
        each = todo.pop()
        if isinstance(each, list | tuple):
            todo.extend(each)
        elif isinstance(each, nodes.Node) and id(each) not in seen:
            seen.add(id(each))
            if isinstance(each, (nodes.MypyFile, nodes.TypeInfo)):
                continue
            if isinstance(each, nodes.Expression):
                yield each
            for name in fields(each):
                with suppress(AssertionError):  # what only some nodes of its kind have
                    todo.append(getattr(each, name, None))


FIELDS: dict[str, list[str]] = {}


def fields(node: object) -> list[str]:
    """Return what a node of mypy's tree holds; looked up once for each kind."""
    kind = type(node)
    if kind.__name__ not in FIELDS:
        held = {"getset_descriptor", "member_descriptor", "property"}
        names = (name for name in dir(kind) if name[:2] != "__" and name not in SKIPPED)
        FIELDS[kind.__name__] = [
            name for name in names if type(getattr(kind, name, None)).__name__ in held
        ]
    return FIELDS[kind.__name__]
