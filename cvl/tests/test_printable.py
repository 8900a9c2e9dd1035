"""Text from outside does nothing to a terminal, whatever it is, and none is too much."""

from __future__ import annotations

import ast
import io
import json
import os
import sys
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cvl
from cvl.cli import terminal
from cvl.cli.console import Console, StatusLine
from cvl.cli.terminal import complain
from cvl.core.printable import LINE, TEXT, many_lines, one_line

ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")
HOSTILE = "a\x1b[2J\x07\x9b1m\r\ncvl: all is well\u202eb\u200b\u2028\udcff\x7f\t\U000e0041[red]z"
SHOWN = r"a\x1b[2J\x07\x9b1m\r\ncvl: all is well\u202eb\u200b\u2028\xff\x7f\t\U000e0041[red]z"
TEXTS = st.text(st.characters(exclude_categories=()))
PACKAGE = Path(cvl.__file__).parent


def acting(text: str) -> set[str]:
    return {each for each in text if unicodedata.category(each) in ACTING}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("gpu_1x: ça va 好 … — \xa0\u3000", "gpu_1x: ça va 好 … — \xa0\u3000"),
        (HOSTILE, SHOWN),
        (os.fsdecode(b"caf\xe9/\xff"), r"caf\xe9/\xff"),
        ("\ud800 half", r"\ud800 half"),
        ("\ufeff\u061c\u2066\u00ad", r"\ufeff\u061c\u2066\xad"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_lines_and_tabs_of_a_text_stay() -> None:
    assert many_lines("a\r\nb\n\n\tc\x1b\r\v\u2028d\n") == "a\nb\n\n\tc\\x1b\\r\\x0b\\u2028d\n"


@given(TEXTS)
def test_nothing_acts(text: str) -> None:
    assert not acting(one_line(text))
    assert acting(many_lines(text)) <= {"\n", "\t"}
    assert one_line(one_line(text)) == one_line(text)
    if not acting(text):
        assert one_line(text) == text


def test_what_is_too_long_loses_its_middle() -> None:
    shown = one_line("first" + "x" * 10_000_000 + "last")
    assert len(shown) < LINE + 10
    assert shown.startswith("firstxxx")
    assert " … " in shown
    assert shown.endswith("xxxlast")
    assert len(many_lines("\x1b\n" * 10_000_000)) < 5 * TEXT


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8", "cp1252"])
def test_no_encoding_is_a_reason_to_fail(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    told = f"{HOSTILE} — é 好"
    complain(told, told)
    terminal.show(told)
    terminal.show_text(told)
    terminal.show_table([["é", told], [told, "好"]])
    terminal.show_json({told: told})
    for stream in (out, err):
        assert isinstance(stream.buffer, io.BytesIO)
        text = stream.buffer.getvalue().decode(encoding)
        assert acting(text) <= {"\n", "\t"}
        assert r"\x1b[2J" in text


def test_a_stream_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.say("one")
    terminal.show("one")


def test_our_lines_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.phase("waiting", HOSTILE)
    console.warn(HOSTILE)
    complain(HOSTILE, HOSTILE)
    assert capsys.readouterr().err.splitlines() == [
        f"cvl: waiting: {SHOWN}",
        f"cvl: {SHOWN}",
        f"cvl: {SHOWN}",
        f"hint: {SHOWN}",
    ]


def test_a_table_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_table([["A", "B"], ["\x1b\n", "x" * 100], ["y" * 1_000_000, ""]])
    head, first, second = capsys.readouterr().out.splitlines()
    assert (head.split(), first.split()) == (["A", "B"], [r"\x1b\n", "x" * 100])
    assert len(second) < 300
    assert head.index("B") == first.index("x" * 100)


def test_json_is_exact_and_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_json({"name": HOSTILE})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": HOSTILE}
    assert out.isascii()
    assert acting(out) == {"\n"}


def test_the_status_line_neither_acts_nor_reads_markup() -> None:
    before = threading.active_count()
    line = StatusLine()
    try:
        line.phase("booting", f"{HOSTILE} [link=https://x.invalid]:bomb:" + "y" * 10_000)
        words = line._words(300)
    finally:
        line.close()
    assert threading.active_count() <= before + 1
    assert words.plain.startswith(f"booting {SHOWN} [link=https://x.invalid]:bomb:yyy")
    assert not words.spans
    assert len(words.plain) < 300


def test_lines_are_written_in_one_place() -> None:
    """Nothing else prints, asks, or writes to a standard file."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in {"tests", "testing"}
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and _writes(ast.unparse(node.func))
    ]
    assert [each for each in found if not each.startswith(EXEMPT)] == []


EXEMPT = (
    "__main__.py:",  # the version, before anything is loaded
    "operations/takeover.py:",  # a guardian's log
    "providers/kubernetes/login.py:",  # where nobody has said that he hears it
    "runners/example_usage.py:",  # a program of its own, to be copied
)


def _writes(name: str) -> bool:
    printing = name in {"print", "click.echo", "click.secho", "click.confirm", "click.prompt"}
    streams = ("sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer", "sys.stderr.buffer")
    return printing or name.startswith(streams)


@pytest.mark.parametrize("width", [4, 20, 80, 200])
@pytest.mark.parametrize(
    "text", ["a/long/path" * 30, "\u65e5\u672c" * 90, "e\u0301" * 150, "[red]" * 40]
)
def test_the_status_line_is_one_line_and_keeps_its_numbers(width: int, text: str) -> None:
    from rich.console import Console as RichConsole

    line = StatusLine()
    try:
        line.phase("fetching", text)
        words = line._words(width)
        shown = RichConsole(width=max(width - 2, 1)).render_lines(words, pad=False)
    finally:
        line.close()
    assert len(shown) == 1
    assert words.plain.endswith("s")
    assert width < 20 or words.cell_len <= width - 2
