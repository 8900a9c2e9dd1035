"""`-e` and `--env-file`: what is forwarded, in every way in which people write such files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cli.variables import environment
from cvl.core.errors import UsageError

TEXT = st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]))


def read(folder: Path, content: str | bytes) -> dict[str, str]:
    file = folder / "env"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return environment((), (file,))


@pytest.mark.parametrize(
    ("content", "means"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1\n", {"A": "1"}),
        ("# A=1\n\n  # more\nB=2\n", {"B": "2"}),
        ("export A=1\nexport\tB=2\n export  C=3\n", {"A": "1", "B": "2", "C": "3"}),
        ("export=1\n", {"export": "1"}),
        ("A=\nB=''\nC=\"\"\n", {"A": "", "B": "", "C": ""}),
        ("A='a b '\nB=\"it's\"\n", {"A": "a b ", "B": "it's"}),
        ('A=\'half\nB=a"b"\nC="\n', {"A": "'half", "B": 'a"b"', "C": '"'}),
        ("A=b=c#d # e\n", {"A": "b=c#d # e"}),
        ("A=x  \n", {"A": "x"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=x\u2028y\x0bz\x85\n", {"A": "x\u2028y\x0bz"}),
    ],
)
def test_the_forms_of_a_file(content: str, means: dict[str, str], tmp_path: Path) -> None:
    assert read(tmp_path, content) == means


@given(value=TEXT)
def test_what_stands_in_quotes_arrives_as_it_is(
    value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert read(tmp_path_factory.getbasetemp(), f'A="{value}"\nB=1\n') == {"A": value, "B": "1"}


@given(value=TEXT)
def test_what_stands_on_the_command_line_arrives_as_it_is(value: str) -> None:
    assert environment((f"A={value}",), ()) == {"A": value}


def test_a_bare_name_takes_its_value_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "v")
    assert read(tmp_path, "FROM_HERE\n") == {"FROM_HERE": "v"}
    assert environment(("FROM_HERE",), ()) == {"FROM_HERE": "v"}
    with pytest.raises(UsageError, match="env:2: NOT_SET_HERE is not set here"):
        read(tmp_path, "A=1\nNOT_SET_HERE\n")


def test_the_command_line_beats_a_file(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=1\nB=1\n")
    assert environment(("A=2",), (tmp_path / "env",)) == {"A": "2", "B": "1"}


@pytest.mark.parametrize("content", [b"A=\xff\n", b"A=s3cret\0\n", b"A B=s3cret\n", b"=s3cret\n"])
def test_what_is_wrong_is_said_without_a_value(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
