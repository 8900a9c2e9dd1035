"""What Python callers give that makes no sense: one clear sentence before anything is started."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import pytest

from cvl.core.errors import CvlError, UsageError
from cvl.providers import BUILT_IN, load
from cvl.providers.arguments import COMMON
from cvl.providers.runner import Runner
from cvl.runners import LambdaLabsRunner, LocalRunner
from cvl.testing.cli_harness import Desk
from cvl.testing.lambda_cloud import LambdaCloud, Settings


@pytest.mark.parametrize(
    ("args", "more", "says"),
    [
        ("3", {}, "a list of texts"),
        (["--epochs", 3], {}, "no text but int: 3"),
        (["a\0b"], {}, "NUL"),
        ([], {"env": {"A;touch x": "1"}}, "name"),
        ([], {"env": {"A": 1}}, "the variable A is no text but int"),
        ([], {"env": {"A": "s3cret\0"}}, "the variable A holds a NUL"),
        ([], {"env": {"CVL_RUN_ID": "x"}}, "CVL_RUN_ID is set by cvl itself"),
        ([], {"timeout": -5}, "more than 0"),
        ([], {"timeout": float("nan")}, "nan"),
        ([], {"timeout": "1h"}, "timeout is a number of seconds, not '1h'"),
        ([], {"grace": "5s"}, "grace is a number of seconds, not '5s'"),
        ([], {"fetch_limit": []}, r"fetch_limit is a number of seconds, not \[\]"),
        ([], {"output_dir": 5}, "output_dir is a path, not 5"),
        ([], {"timeout_minutes": 0}, "more than 0"),
        ([], {"grace": -5}, "grace is not a number of seconds: -5"),
        ([], {"fetch_limit": float("inf")}, "fetch_limit"),
        ([], {"build": "sometimes"}, "build is one of auto, always, never, not 'sometimes'"),
        ([], {"nodes": 0}, "nodes is a number from 1 on, not 0"),
        ([], {"nodes": "2"}, "nodes is a number from 1 on, not '2'"),
        ([], {"max_cost": 0.1}, "max_cost is a Decimal from 0 on, not 0.1"),
        ([], {"max_cost": Decimal("nan")}, "max_cost is a Decimal from 0 on, not Decimal"),
        ([], {"max_cost": Decimal(-1)}, "max_cost is a Decimal from 0 on"),
        ([], {"include": "data"}, "include is a list of texts, not one text"),
        ([], {"include": 5}, "include is a list of texts, not 5"),
        ([], {"include": [5]}, "no text but int: 5"),
        ([], {"env": "A=s3cret"}, "env is a dict of texts, not str"),
        ([], {"env": ["A=s3cret"]}, "env is a dict of texts, not list"),
        ([], {"timeout": 10**400}, "timeout is a number of seconds, not int"),
        ([], {"timeout_minutes": "5"}, "timeout_minutes is a number, not '5'"),
        ([], {"timeout_minutes": True}, "timeout_minutes is a number, not True"),
        ([], {"timeout_action": 5}, "timeout_action is a text, not 5"),
        ([], {"fetch_limit": 0}, "fetch_limit is a number of seconds, more than 0"),
        ([], {"detach": "no"}, "detach is True or False, not 'no'"),
        ([], {"agree": 5}, "agree is a function, not 5"),
        ([], {"on_output": 5}, "on_output is a function, not 5"),
        ([], {"observer": print}, "observer is an Observer, not builtin"),
        ([], {"preset": b"sh"}, "preset is a text"),
        ([], {"output_dir": "a\0b"}, "output_dir holds a NUL"),
        ([], {"output_dir": Path("a\ud83d")}, "output_dir holds half a character"),
    ],
)
def test_what_makes_no_sense_is_said_and_nothing_starts(
    args: Any, more: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(folder=tmp_path, options=("--local",))
    monkeypatch.setenv("CVL_STATE_DIR", str(desk.state))
    with pytest.raises(UsageError, match=says) as caught:
        LocalRunner().run("one", **{"preset": "args", "args": args, "root": desk.repo, **more})
    assert "s3cret" not in str(caught.value)
    assert not desk.state.exists()


def test_a_keyword_that_nobody_knows_is_not_ignored(tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=("--local",))
    with pytest.raises(TypeError, match="'time_out'"):
        LocalRunner().run("one", "args", [], root=desk.repo, time_out=3)  # type: ignore[call-arg]


def test_none_stands_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(folder=tmp_path, options=("--local",))
    monkeypatch.setenv("CVL_STATE_DIR", str(desk.state))
    nothing: Any = None
    out = desk.folder / "out"
    status = LocalRunner().run(
        "one", "args", nothing, root=desk.repo, output_dir=out, env=nothing, include=nothing
    )
    assert status == 0


def taken(**given: object) -> dict[str, object]:
    """Return what a runner gets of what it is given."""

    class Told(Runner):
        def take(self, **common: Any) -> dict[str, object]:
            return common

    return Told().take(**given)


class Whole:
    """A whole number of another library."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


Integral.register(Whole)


def test_what_is_as_good_as_the_kind_that_is_asked_for_is_taken() -> None:
    for words in ((each for each in "ab"), map(str, "ab"), {"a": 1, "b": 2}.keys(), iter("ab")):
        assert taken(include=words) == {"include": ("a", "b")}
    for number in (Fraction(5, 2), Decimal("2.5")):
        assert taken(timeout=number) == {"timeout": 2.5}
    got = taken(timeout=Whole(5), nodes=Whole(2), max_cost=Whole(3), detach=1, keep=0)
    assert list(map(repr, got.values())) == ["5", "2", "3", "True", "False"]
    for nonsense in (Fraction(10**400), Decimal("snan")):
        with pytest.raises(UsageError, match="timeout is a number of seconds, not "):
            taken(timeout=nonsense)
    with pytest.raises(UsageError, match="include is a list of texts, not dict"):
        taken(include={"a": "b"})


def test_a_runner_of_another_package_may_hand_on_what_it_is_given() -> None:
    class Mine(LocalRunner):
        def run(self, *args: Any, **options: Any) -> Any:
            return args, options

        def place(self, first: str = "a", /, second: str | None = None, *more: str) -> Any:
            return first, second, more

    mine, nothing = Mine(), cast("Any", None)
    assert mine.run("one", "sh", ["x"], grace=5, tty=None) == (("one", "sh", ["x"]), {"grace": 5})
    assert mine.place(nothing, nothing, "c", "d") == ("a", None, ("c", "d"))


def test_a_key_of_another_type_is_not_shown() -> None:
    for key in (["s3cret"], 53, b"s3cret"):
        with pytest.raises(UsageError, match=r"^api_key is a text, not (list|int|bytes)$"):
            LambdaLabsRunner(api_key=cast("Any", key))


def test_an_example_cannot_set_what_cvl_itself_sets(tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=("--local",))
    example = desk.repo / "examples/conformance/one/example.yaml"
    example.write_text(
        example.read_text().replace("{script: sh.sh}", "{script: sh.sh, env: {CVL_RUN_ID: x}}")
    )
    with pytest.raises(UsageError, match="CVL_RUN_ID"):
        LocalRunner().run("one", "sh", ["true"], root=desk.repo)


@pytest.mark.parametrize("root", ["a\0b", Path("a\ud83d")])
def test_a_root_that_no_folder_can_be_is_refused(root: str | Path) -> None:
    with pytest.raises(UsageError, match="root holds"):
        LocalRunner().run("one", "args", root=root)


JUNK: tuple[object, ...] = (
    None,
    5,
    -1,
    10**400,
    1.5,
    float("nan"),
    True,
    "x",
    "",
    b"x",
    [],
    [5],
    ["\0"],
    {},
    {"A": 5},
)


@pytest.fixture(scope="module")
def lambda_cloud() -> Iterator[LambdaCloud]:
    with LambdaCloud(Settings(request_interval=0)) as cloud:
        yield cloud


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_keyword_of_any_runner_ends_in_a_traceback(
    name: str, lambda_cloud: LambdaCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is given: a word that helps, or the plan, which nobody agrees to."""
    desk = Desk(folder=tmp_path, options=("--local",))
    monkeypatch.setenv("CVL_STATE_DIR", str(desk.state))
    for variable, text in {**lambda_cloud.env, "LAMBDA_API_RPS": "1000"}.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.chdir(desk.folder)
    runner, least = load(name), LEAST.get(name, {})
    mine = inspect.signature(runner.__init__).parameters
    keywords = {*inspect.signature(runner.run).parameters, *mine, *COMMON}
    for keyword in sorted(keywords - {"self", "args", "common", "kwargs", "agree", "on_event"}):
        for value in JUNK:
            given = {"root": desk.repo, "agree": refuse, **least, keyword: value}
            to_init = {key: each for key, each in given.items() if key in mine}
            words = {key: each for key, each in given.items() if key not in mine}
            with pytest.raises((CvlError, Refused)):
                runner(**to_init).run(**{"example": "one", "preset": "sh", **words})


LEAST: dict[str, dict[str, Any]] = {
    "ssh": {"host": "127.0.0.1:1"},
    "docker": {"host": "127.0.0.1:1"},
    "sagemaker": {
        "role_arn": "arn:aws:iam::111111111111:role/x",
        "instance_type": "ml.m5.large",
        "output_path": "s3://bucket/runs",
        "image_uri": "image",
    },
    "k8s": {"image": "image"},
}
"""What each has to be told."""


class Refused(Exception):
    """Nobody agrees."""


def refuse(_plan: object) -> None:
    raise Refused
