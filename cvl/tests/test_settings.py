"""Every option of a run, from every place where it may be said, by what reaches the provider."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest

from cvl.cli import main, settings
from cvl.cli.options import Parameter, parameters
from cvl.cli.run import own_options
from cvl.core.spec import ExitStatus
from cvl.providers import BUILT_IN, HOSTED, load
from cvl.providers.common import OPTIONS, SETTINGS, Common, RunOption
from cvl.providers.local import LocalRunner
from cvl.run import lifecycle
from cvl.tests.pages import ROOT, section

TABLES = "[runner.docker]\n[runner.ssh]\n"
PLACES = ("user", "project", "environment", "flag")
"""Where an option may be said, the nearest last."""
EXAMPLE = """\
name: one
docker: true
presets:
  build: {script: sh.sh}
  sh: {script: sh.sh}
"""


@dataclass(frozen=True)
class Sample:
    """Two values as people write them, what each does, and what nothing said does."""

    said: tuple[Any, Any]
    means: tuple[Any, Any]
    default: Any
    effect: Callable[[Any, Any, Any], Any]
    python: tuple[Any, ...] = ()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in [name for name in os.environ if name.startswith("CVL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "home/.config/cvl").mkdir(parents=True)
    (tmp_path / "home/.config/cvl").chmod(0o700)
    for root in (tmp_path / "repo", *(tmp_path / f"repo/root{number}" for number in (0, 1))):
        example = root / "examples/test/one"
        example.mkdir(parents=True)
        (example / "example.yaml").write_text(EXAMPLE)
        (example / "sh.sh").write_text("IMAGE=one\n")
    monkeypatch.chdir(tmp_path / "repo")
    return Desk(folder=tmp_path, patch=monkeypatch)


@dataclass
class Desk:
    """A folder to call cvl in, and what reached the provider."""

    folder: Path
    patch: pytest.MonkeyPatch
    seen: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.patch.setattr(lifecycle, "run", self._record)

    def _record(self, spec: Any, provider: Any, _ledger: Any, options: Any) -> ExitStatus:
        self.seen.append((spec, options, provider))
        return ExitStatus(0, run_id=spec.run_id)

    def write(self, place: str, text: str) -> Path:
        """Write the user's or the project's file."""
        folder = {"user": "home/.config/cvl", "project": "repo"}[place]
        path = self.folder / folder / "cvl.toml"
        path.write_text(text)
        return path

    def run(self, *flags: str) -> int:
        settings.settings.cache_clear()
        return main(["run", *flags, "one", "sh", "x"])

    def trust(self) -> None:
        assert main(["trust", "-y"]) == 0

    def say(self, row: RunOption, said: Mapping[str, Any]) -> tuple[str, ...]:
        """Say an option in each of these places; return the flags."""
        if row.key == "root":  # what lies around comes before what a file says
            shutil.rmtree("examples", ignore_errors=True)
        for place in ("user", "project"):
            if place in said:
                far = place == "user" and row.kind == "path" and said[place]
                value = str(Path(said[place]).absolute()) if far else said[place]
                text = f"{row.key} = {json.dumps(value)}\n"
                if row.key == "runner" and place == "user":
                    text = f"[runner]\ndefault = {json.dumps(value)}\n{TABLES}"
                self.write(place, text)
        if "project" in said and row.said == "trusted":
            self.trust()
        if "environment" in said:
            self.patch.setenv(f"CVL_{row.key.upper()}", in_words(said["environment"]))
        return flags(row, said["flag"]) if "flag" in said else ()

    def effect(self, sample: Sample) -> Any:
        """Return what reached the provider of an option; nothing but that."""
        return sample.effect(*self.seen[-1])


def in_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else str(value)


def flags(row: RunOption, value: Any) -> tuple[str, ...]:
    flag = "--" + row.name.replace("_", "-")
    if isinstance(value, bool):
        return (flag if value else f"--no-{flag[2:]}",)
    values = value if isinstance(value, list) else [value]
    return tuple(word for each in values for word in (flag, str(each)))


def switch(effect: Callable[[Any, Any, Any], Any], *, default: bool = False) -> Sample:
    return Sample((not default, default), (not default, default), default, effect)


SAMPLES = {
    "root": Sample(
        ("root0", "root1"), ("root0", "root1"), "repo", lambda spec, *_: spec.source.root.name
    ),
    "runner": Sample(
        ("docker", "ssh"), ("docker", "ssh"), "local", lambda _spec, _options, to: to.name
    ),
    "timeout": Sample(("90m", "2h"), (5400.0, 7200.0), None, lambda spec, *_: spec.limits.timeout),
    "grace": Sample(
        ("0s", "1m"),
        (0.0, 60.0),
        10.0,
        lambda spec, options, _: options.grace if spec.limits.grace == options.grace else "two",
    ),
    "fetch_limit": Sample(
        ("45s", "1h30m"),
        (45.0, 5400.0),
        1800.0,
        lambda spec, options, _: (
            options.fetch_limit if spec.limits.fetch == options.fetch_limit else "two"
        ),
    ),
    "max_cost": Sample(
        (5, "$6.50"), (Decimal(5), Decimal("6.50")), None, lambda spec, *_: spec.limits.max_cost
    ),
    "output": Sample(
        ("a", "b/c"),
        ("a", "b/c"),
        None,
        lambda _spec, options, _to: (
            options.results and str(options.results.relative_to(Path.cwd()))
        ),
    ),
    "fetch": switch(lambda _, options, __: options.fetch, default=True),
    "keep": switch(lambda _, options, __: options.keep),
    "include": Sample(
        (["a", "b"], ["c"]), (("a", "b"), ("c",)), (), lambda spec, *_: spec.source.include
    ),
    "build": Sample(
        ("always", "never"),
        ("always", None),
        "auto",
        lambda spec, *_: spec.build and spec.build.when,
    ),
    "tty": switch(lambda spec, *_: spec.tty),
    "detach": switch(lambda spec, *_: spec.detach),
    "nodes": Sample((2, 3), (2, 3), 1, lambda spec, *_: spec.nodes),
}


def places_of(row: RunOption) -> dict[str, str]:
    """Return what the rest of a command line needs, whatever the option is."""
    return {"CVL_HOST": "box"} if row.key == "runner" else {}


@pytest.fixture(params=SETTINGS)
def row(request: pytest.FixtureRequest, desk: Desk) -> RunOption:
    found = SETTINGS[request.param]
    for name, value in places_of(found).items():
        desk.patch.setenv(name, value)
    if found.key == "runner":
        desk.write("user", TABLES)
    return found


def test_there_is_a_sample_of_every_option() -> None:
    assert SAMPLES.keys() == SETTINGS.keys()


def test_nothing_said_is_the_default(row: RunOption, desk: Desk) -> None:
    assert desk.run() == 0
    assert desk.effect(SAMPLES[row.key]) == SAMPLES[row.key].default


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("which", [0, 1])
def test_an_option_counts_wherever_it_is_said(
    place: str, which: int, row: RunOption, desk: Desk
) -> None:
    sample = SAMPLES[row.key]
    assert desk.run(*desk.say(row, {place: sample.said[which]})) == 0
    assert desk.effect(sample) == sample.means[which]


@pytest.mark.parametrize("nearer", [1, 2, 3])
@pytest.mark.parametrize("which", [0, 1])
def test_the_nearer_of_two_places_counts(
    nearer: int, which: int, row: RunOption, desk: Desk
) -> None:
    sample = SAMPLES[row.key]
    said = {PLACES[nearer]: sample.said[which], PLACES[nearer - 1]: sample.said[1 - which]}
    assert desk.run(*desk.say(row, said)) == 0
    wanted = sample.means[which]
    if row.key == "max_cost" and nearer == 1:  # money only downwards
        wanted = min(sample.means)
    assert desk.effect(sample) == wanted


@pytest.mark.parametrize("which", [0, 1])
def test_an_option_counts_as_a_keyword_in_python(which: int, row: RunOption, desk: Desk) -> None:
    if row.name not in Common.__annotations__:
        pytest.skip("Python names the class of the runner")
    sample = SAMPLES[row.key]
    value = sample.said[which] if row.kind == "path" else sample.means[which]
    value = sample.said[which] if row.choices else value
    common: Any = {row.name: value}
    LocalRunner().run("one", "sh", **common)
    assert desk.effect(sample) == sample.means[which]


def test_a_projects_file_says_what_the_table_lets_it(row: RunOption, desk: Desk) -> None:
    sample = SAMPLES[row.key]
    if row.key == "runner":
        desk.write("user", "")
    if row.key == "root":
        shutil.rmtree("examples")
    desk.write("project", f"{row.key} = {json.dumps(sample.said[0])}\n")
    assert desk.run() == 0
    wanted = sample.means[0] if row.said == "counts" else sample.default
    assert desk.effect(sample) == wanted


BROKEN: Mapping[str, tuple[object, str]] = {
    "duration": ("9", "has no unit"),
    "pause": (90.5, "has no unit"),
    "money": ("much", "say it in US dollars"),
    "count": (0, "0"),
    "switch": ("perhaps", "perhaps"),
    "path": ("", "a path"),
    "text": (["a"], "one table"),
    "texts": ([""], "empty"),
}


@pytest.mark.parametrize("place", ["user", "environment"])
def test_a_value_that_cannot_be_meant_names_its_origin(
    place: str, row: RunOption, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    value, why = ("sometimes", "always") if row.choices else BROKEN[row.kind]
    if place == "environment" and (row.kind == "path" or not isinstance(value, str | int | float)):
        pytest.skip("a variable holds text, and an empty one says nothing")
    desk.say(row, {place: value})
    assert desk.run() == 2
    origin = "/cvl.toml" if place == "user" else f"$CVL_{row.key.upper()}"
    said = capfd.readouterr().err
    assert f"{origin}: {row.key}" in said.splitlines()[0]
    assert why in said


UNKNOWN = [
    ("time-out = '2h'", "time-out", "did you mean timeout?"),
    ("zzzzzz = 1", "zzzzzz", ""),
    ("yes = true", "yes", "only a flag says it: --yes"),
    ("env = ['A=1']", "env", "only a flag says it: --env"),
    ("timeout_minutes = 3", "timeout_minutes", "did you mean timeout?"),
    ("output_dir = 'x'", "output_dir", "did you mean output?"),
    ("state_dir = '/x'", "state_dir", "set CVL_STATE_DIR"),
    ("ssh_config = '/x'", "ssh_config", "set CVL_SSH_CONFIG"),
    ("timeout_action = 'x'", "timeout_action", "[runner.local]"),
    ("[runner.local]\nmax_cost = 5", "runner.local.max_cost", "at the top"),
    ("[runner.local]\ntimeout-action = 'x'", "runner.local.timeout-action", "timeout_action"),
    ("[runner.local]\nhost = 'x'", "runner.local.host", ""),
    ("[runner.lamda]\nregion = 'x'", "runner.lamda", "did you mean lambda?"),
    ("[runner.zzzzzz]", "runner.zzzzzz", "there are: local, ssh"),
    ('[runner.local]\n"\\u001b[2J" = 1', "runner.local.'\\x1b[2J'", ""),
]


@pytest.mark.parametrize("place", ["user", "project"])
@pytest.mark.parametrize(("text", "name", "hint"), UNKNOWN)
def test_an_unknown_key_is_an_error_that_says_what_may_be_meant(
    place: str, text: str, name: str, hint: str, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    path = desk.write(place, text + "\n")
    assert desk.run() == 2
    said = capfd.readouterr().err
    assert said.startswith(f"cvl: {path}: there is no ")
    assert name in said.splitlines()[0]
    assert hint in said
    assert desk.seen == []


def test_thousands_of_unknown_keys_are_a_few_words(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.write("user", "".join(f"x{number} = 1\n" for number in range(3000)))
    assert desk.run() == 2
    said = capfd.readouterr().err
    assert "x1" in said
    assert "2987 more" in said
    assert len(said) < 1000


def test_a_table_of_another_runner_is_looked_at_when_that_one_is_chosen(desk: Desk) -> None:
    desk.write("user", "[runner.k8s]\nnamespce = 'x'\n")
    assert desk.run() == 0
    assert desk.run("--k8s", "--image", "x") == 2


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CVL_MAXCOST", "CVL_MAX_COST"),
        ("CVL_MAX_COSTS", "CVL_MAX_COST"),
        ("CVL_TIME_OUT", "CVL_TIMEOUT"),
        ("CVL_OUTPUT_DIR", "CVL_OUTPUT"),
    ],
)
def test_a_variable_that_is_nearly_one_of_ours_is_named(
    name: str, meant: str, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.patch.setenv(name, "5")
    assert desk.run() == 0
    assert f"${name} is not read: did you mean {meant}?" in capfd.readouterr().err


def test_a_variable_that_we_set_or_read_ourselves_is_no_near_miss(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    package = Path(settings.__file__).parent.parent
    sources = [
        path
        for kind in ("*.py", "*.sh", "*.md")
        for path in (*package.rglob(kind), *package.parent.glob("docs/**/*.md"))
        if package / "tests" not in path.parents
    ]
    names = {name for path in sources for name in re.findall(r"\bCVL_[A-Z_]+\b", path.read_text())}
    names -= {"CVL_MAXCOST", *(f"CVL_{key.upper()}" for key in SETTINGS)}  # a page's own example
    for name in names:
        desk.patch.setenv(name, "/x" if name.endswith("_DIR") else "1")
    assert len(names) > 20
    assert list(settings.nearly(os.environ)) == []


def test_the_keywords_of_python_are_those_of_the_table() -> None:
    rows = {row.name: row for row in OPTIONS if row.said not in {"named", "flag"}}
    assert rows.keys() == Common.__annotations__.keys() - CALLABLES
    for name, row in rows.items():
        assert (
            Common.__annotations__[name].__forward_arg__.split(" | None")[0]
            == KINDS["pairs" if name == "env" else row.kind]
        )


KINDS = {
    "path": "str | Path",
    "texts": "Sequence[str]",
    "pairs": "Mapping[str, str]",
    "duration": "float",
    "pause": "float",
    "switch": "bool",
    "text": "str",
    "count": "int",
    "money": "Decimal",
}
CALLABLES = {"agree", "on_output", "on_event", "observer", "ahead", "keep_rented"} | {
    *("configured_root", "configured_max_cost")
}


def test_the_page_has_the_whole_table() -> None:
    page = ROOT / "docs/configuration.md"
    rows = re.findall(r"^\| (`-.*) \|$", section(page, "The options"), re.MULTILINE)
    words = {"counts": "yes", "named": "if yours names it", "trusted": "if trusted"}
    assert [tuple(map(str.strip, row.split("|"))) for row in rows] == [
        (
            f"`--{row.name.replace('_', '-')}`",
            f"`{'runner.default' if row.key == 'runner' else row.key}`",
            f"`CVL_{row.key.upper()}`",
            f"`{row.name}`" if row.name in Common.__annotations__ else "the class",
            row.default or "",
            words[row.said],
        )
        for row in SETTINGS.values()
    ]
    each_run = section(page, "For each run alone")
    flags = {f"--{row.name.replace('_', '-')}" for row in OPTIONS if not row.key}
    assert flags <= set(re.findall(r"`(--[a-z-]+)`", each_run))
    assert {f"CVL_{name.upper()}" for name in settings.ALONE} <= set(
        re.findall(r"`(CVL_[A-Z_]+)`", page.read_text())
    )


OWN = [(name, each) for name in BUILT_IN for each in parameters(load(name))]


def own_value(option: Any) -> tuple[Any, Any]:
    """Return a value as a file has it, and what the runner is given."""
    if option.is_flag:
        return not option.secondary_opts, not option.secondary_opts
    if isinstance(option.type, click.Choice):
        return option.type.choices[-1], option.type.choices[-1]
    if option.type.name in {"integer", "float"}:
        return 7, 7
    if option.multiple:
        return ["a=b", "c=d"], ("a=b", "c=d")
    return "a", Path.cwd() / "a" if option.type.name == "path" else "a"


@pytest.mark.parametrize("place", ["user", "environment"])
@pytest.mark.parametrize(("name", "each"), OWN, ids=lambda value: getattr(value, "name", value))
def test_a_runners_own_option_counts_as_its_flag_would(
    name: str, each: Parameter, place: str, desk: Desk
) -> None:
    said, means = own_value(each.option)
    if place == "user":
        value = str(Path("a").absolute()) if isinstance(means, Path) else said
        desk.write("user", f"[runner.{name}]\n{each.name} = {json.dumps(value)}\n")
    else:
        desk.patch.setenv(f"CVL_{each.name.upper()}", in_words(said))
    settings.settings.cache_clear()
    required = {other.name: "x" for other in parameters(load(name)) if other.required}
    none = dict.fromkeys([*BUILT_IN, *(other.name for other in parameters(load(name)))])
    params = {**none, **required, each.name: None}
    assert own_options(load(name), name, params)[each.name] == means


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("k8s", "gpu = 'two'", "runner.k8s.gpu: 'two' is not a valid integer"),
        ("docker", "host = 'h'\nsync_outputs = 'perhaps'", "runner.docker.sync_outputs: 'perhaps'"),
        ("ssh", "host = ['a']", "runner.ssh.host must be text"),
        ("ssh", "host = ''", "runner.ssh.host is empty"),
        ("lambda", "request_template = 3", "runner.lambda.request_template must be a path"),
    ],
)
def test_a_runners_own_option_that_cannot_be_meant_names_its_origin(
    name: str, text: str, says: str, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    path = desk.write("user", f"[runner.{name}]\n{text}\n")
    assert desk.run("--runner", name) == 2
    assert capfd.readouterr().err.startswith(f"cvl: {path}: {says}")
    assert desk.seen == []


@pytest.mark.parametrize(
    "text",
    [
        "timeout = '1h'\ntimeout = '2h'",
        "runner = 'docker'\n[runner.docker]\nhost = 'h'",
        "[runner.docker]\n[runner.docker]",
        "runner = {default = 'docker'}\n[runner.docker]",
    ],
)
def test_what_is_said_twice_is_called_so(
    text: str, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    path = desk.write("user", text + "\n")
    assert desk.run() == 2
    said = capfd.readouterr().err
    assert said.startswith(f"cvl: {path}:2: Cannot ")
    assert "hint: say each name once; " in said


def test_a_default_runner_without_a_name_is_not_the_local_one(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    path = desk.write("user", "runner = ''\n")
    assert desk.run() == 2
    assert capfd.readouterr().err.startswith(f"cvl: {path}: there is no runner ''\nhint: ")
    assert desk.seen == []


@pytest.mark.parametrize("name", HOSTED)
def test_a_runner_without_its_host_says_how_to_name_one(
    name: str, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.write("user", f"runner = '{name}'\n")
    assert desk.run() == 2
    said = f"cvl: {name} needs a host\nhint: name one: --{name} HOST\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("place", ["user", "environment"])
def test_a_runner_that_there_is_not_is_said_with_its_origin(
    place: str, desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = desk.say(SETTINGS["runner"], {place: "lamda"})
    origin = "$CVL_RUNNER" if place == "environment" else "/cvl.toml"
    assert desk.run(*flags) == 2
    said = capfd.readouterr().err
    assert f"{origin}: there is no runner 'lamda'\nhint: did you mean lambda?" in said
