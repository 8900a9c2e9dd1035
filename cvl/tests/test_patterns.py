"""Regular expressions read what strangers write: none may take longer than its text is long."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

import cvl
from cvl.core.errors import UsageError
from cvl.host.upload.hashes import _mentions
from cvl.host.upload.selection import _matcher

METHODS = {"search", "match", "fullmatch", "findall", "finditer", "sub", "split"}
SIZES = (24, 256, 2048, 16_384, 131_072)
SECONDS = 1.0
"""What a linear one needs for the longest text is a hundredth of it."""
PIECES = ("a", "0", " ", "\t", "\n", ".", "/", "../", "$", "-", "_", "=", '"', "'", "\\", "x=y ")

Found = tuple[str, re.Pattern[str] | re.Pattern[bytes], str]


def modules() -> Iterator[str]:
    for info in pkgutil.walk_packages(cvl.__path__, "cvl."):
        if not info.name.startswith(("cvl.testing", "cvl.tests", "cvl.__main__")):
            yield info.name


def patterns() -> Iterator[Found]:
    """Yield every pattern of the product: where, compiled, and by which method it is used."""
    sources = {}
    for name in modules():
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        if "re." in (text := Path(spec.origin).read_text("utf-8")):
            sources[name] = text
    everything = "\n".join(sources.values())
    for name, text in sources.items():
        yield from _compiled(name, everything)
        yield from _inline(name, ast.parse(text))


def _compiled(name: str, everything: str) -> Iterator[Found]:
    for attribute, value in vars(importlib.import_module(name)).items():
        if isinstance(value, re.Pattern):
            uses = set(re.findall(rf"\b{attribute}\.(\w+)\(", everything)) & METHODS
            yield from ((f"{name}.{attribute}", value, method) for method in sorted(uses))


def _inline(name: str, tree: ast.AST) -> Iterator[Found]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(ast.Name("re"), method), [first, *_]) if method in METHODS:
                found = _text(name, first)
                if found is not None:
                    flags = re.MULTILINE if "MULTILINE" in ast.dump(node) else 0
                    yield f"{name}:{node.lineno}", re.compile(found, flags), method


def _text(name: str, node: ast.expr) -> str | bytes | None:
    match node:
        case ast.Constant(str(text) | bytes(text)):
            return text
        case ast.Name(attribute):
            value = getattr(importlib.import_module(name), attribute, None)
            return value if isinstance(value, str | bytes) else None
    return None


ALL = sorted({(where, method): (where, each, method) for where, each, method in patterns()}.items())


def nasty(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield beginnings and what to repeat after them, made of what the pattern itself names."""
    words = {word for word in re.findall(r"[A-Za-z0-9_./$:=\"'{}-]+", pattern) if len(word) < 30}
    plain = sorted({word.replace("\\", "") for word in words} - {""})[:8]
    for piece in (*PIECES, *plain):
        yield "", piece
        for start in plain[:3]:
            yield start, piece
            yield "", start + piece


@pytest.mark.parametrize(("where", "found"), [(f"{k[0]} {k[1]}", v) for k, v in ALL])
def test_no_pattern_takes_longer_than_its_text_is_long(where: str, found: Found) -> None:
    _, pattern, method = found
    source = pattern.pattern
    text = source if isinstance(source, str) else source.decode("latin-1")
    binary = isinstance(source, bytes)
    for start, piece in nasty(text):
        for size in SIZES:
            data = start + piece * (size // len(piece)) + "\x01"
            subject = data.encode("latin-1") if binary else data
            spent = time.process_time()
            _use(pattern, method, subject)
            spent = time.process_time() - spent
            assert spent < SECONDS, f"{where}: {size} bytes of {start!r} and {piece!r}: {spent} s"


def _use(pattern: re.Pattern[str] | re.Pattern[bytes], method: str, subject: str | bytes) -> None:
    if method == "sub":
        pattern.sub(lambda found: found[0], subject)  # type: ignore[arg-type]
    elif method == "finditer":
        list(pattern.finditer(subject))  # type: ignore[arg-type]
    else:
        getattr(pattern, method)(subject)


OLD_NAMES = rb"[\w.-]+(?:/[\w.-]+)*(?<!\.)"
OLD = re.compile(
    rb"(?<![\w.])((?:\.\./)+%b)" % OLD_NAMES
    + rb"|(?:\$\{?\w*(?:ROOT|REPO)\w*\}?\"?|/cvlization_repo)(/%b)" % OLD_NAMES
    + rb"|(?<![\w./-])((?:examples|benchmarks)/%b)" % OLD_NAMES
)
"""What mentions are, as a pattern that goes back: it may take for ever, but says what is meant."""
WORDS = st.lists(
    st.sampled_from(
        [
            *("../", "..", ".", "/", "//", "a", "b-c", ".x", "a.", " ", '"', "\n", "}"),
            *("$ROOT", "${REPO_ROOT}", "$DIR", "{ROOT", "$AROOTB", "/cvlization_repo"),
            *("examples", "benchmarks", "examples/"),
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=WORDS)
@example(text='cd "$DIR/../b"; ls ${ROOT}"/a.b./ ../../../c/../d.. examples/x/y, x../../e')
def test_mentions_are_what_a_slow_pattern_finds(text: str) -> None:
    data = b"../ " + text.encode()
    old = {a or b or b"/" + c for a, b, c in OLD.findall(data)}
    assert set(_mentions(b"x.sh", data).split()) == old


GLOBS = st.lists(
    st.sampled_from(["a", "b", "*", "?", "/", "**", "/**/", "[ab]", "[!a]", ".", "\\*", "!"]),
    min_size=1,
    max_size=7,
).map("".join)
PATHS = st.lists(st.sampled_from("aabb./*!"), min_size=1, max_size=9).map("".join)


@settings(max_examples=1000, deadline=None)
@given(globs=st.lists(GLOBS, max_size=3), path=PATHS)
@example(globs=["x*y/**/z*a*b"], path="xayby/q/zaabab")
def test_ignored_is_what_pathspec_says(globs: list[str], path: str) -> None:
    try:
        expected = GitIgnoreSpec.from_lines(globs).match_file(path)
    except ValueError:
        with pytest.raises(UsageError):
            _matcher("\n".join(globs).encode())
        return
    text = "\n".join(globs).encode()
    if any(line.count("/**/") > 2 for line in globs):
        return
    assert _matcher(text)(path) == expected


@pytest.mark.parametrize("glob", ["*a" * 40 + "b", "?*a" * 30 + "*b", "a/**/*a*a*b", "**a" * 9])
def test_no_ignore_file_makes_us_wait(glob: str) -> None:
    matches = _matcher(glob.encode())
    spent = time.process_time()
    for path in ("a" * 255, "/".join(["a" * 20] * 100), "a/" * 120 + "a" * 100):
        matches(path)
    assert time.process_time() - spent < SECONDS


def test_a_line_that_would_take_for_ever_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 3 times"):
        _matcher(b"a/**/b/**/c/**/d/**/e")
