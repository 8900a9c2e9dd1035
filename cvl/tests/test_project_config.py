"""What a project's cvl.toml may say: a short list, whatever else stands in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cli.config import Config, load
from cvl.cli.config_file import display
from cvl.cli.options import Parameter, parameters
from cvl.cli.project_config import KEYS, NEVER, allowed
from cvl.cli.settings import configured_root
from cvl.core.errors import UsageError
from cvl.providers import BUILT_IN, arguments
from cvl.providers import load as runner_of
from cvl.providers.common import SETTINGS
from cvl.testing.cli_harness import Desk, Done
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.sshd import Sshd

MAY = {"root", "timeout", "max_cost", "runner"}
"""What may count at the top of a project's file."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path / "state"))
    for folder in ("home/.config/cvl", "home/.ssh", "work/deep"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def value(config: Config, name: str) -> object:
    found = config.find(name)
    return found.value if found else None


def read(home: Path, project: str, user: str = "", ssh: str = "") -> Config:
    (home / "home/.config/cvl/cvl.toml").write_text(user)
    (home / "home/.ssh/config").write_text(ssh)
    (home / "work/cvl.toml").write_text(project)
    return load(home / "work/deep", {"HOME": str(home / "home")})


def value_of(option: Parameter) -> object:
    """Return a value for an option, as a stranger might give it: not its default."""
    if option.option.is_flag:
        return not option.option.secondary_opts
    if option.option.type.name in {"integer", "float"}:
        return 7
    return ["evil=/evil"] if option.option.multiple else "evil"


def toml(value: object) -> str:
    return json.dumps(value)


EVERY = {
    runner: {each.name: value_of(each) for each in parameters(runner_of(runner))}
    for runner in BUILT_IN
}
SECRET = {"api_key": "evil", "ssh_key_path": "evil", "token": "evil", "timeout_minutes": 7}
"""What is no option, or must never become one."""


@pytest.mark.parametrize("runner", BUILT_IN)
def test_no_option_of_any_runner_is_a_projects_to_say(runner: str, home: Path) -> None:
    said = {**SECRET, **EVERY[runner]}
    text = "".join(f"{key} = {toml(value)}\n" for key, value in said.items())
    user = f'runner = "{runner}"'
    config = read(home, f"[runner.{runner}]\n{text}", user, "Host *\nHost other evi? !evil\n")
    assert config.runner(runner) == {}
    (warning,) = config.warnings
    assert "cvl trust " in warning
    named = re.findall(rf"runner\.{runner}\.(\w+)", warning)
    left = re.search(r" and (\d+) more", warning)
    assert len(named) + int(left[1] if left else 0) == len(said)


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - MAY))
def test_what_stands_at_the_top_is_not_a_projects_to_say(name: str, home: Path) -> None:
    config = read(home, f'{name} = "1"')
    assert value(config, name) is None
    assert [name in warning for warning in config.warnings] == [True]
    assert value(read(home, "", f'{name} = "1"'), name) == "1"


ATTACKS = [
    'output = "~"',
    'output = "out"',
    'state_dir = "/tmp/x"',
    'ssh_config = "evil_config"',
    "accept_new_host_key = true",
    'timeout_action = "touch /tmp/x"',
    'root = ".."',
    'root = "/"',
    'root = "~"',
    'root = "link"',
    'root = "deep/../../outside"',
    'root = "\\u0000"',
    "root = 3",
    "root = []",
    'runner = "lambda"',
    '[runner]\ndefault = "docker"\n[runner.docker]\nhost = "evil"',
    'runner.default = "sagemaker"',
    'runner = ""',
    '[runner.local]\ntimeout_action = "touch /tmp/x"',
    '[runner.k8s]\nkubeconfig = "evil"',
    '[runner.k8s]\nhost = "good"',
    "[runner.lambda]\nself_terminate = true",
    '[runner.sagemaker]\noutput_path = "s3://stranger"',
    '[runner.ssh]\naccept_new_host_key = true\nhost = "evil"',
    '[runner.ssh]\nhost = "good:2222"',
    '[runner.ssh]\nhost = "evil@good"',
    '[runner.ssh]\nhost = "*"',
    '[runner.ssh]\nhost = "-oProxyCommand=x"',
    '[runner.ssh]\nhost = ["good"]',
    '[runner.other]\nhost = "good"',
]


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_of_an_attack_counts(text: str, home: Path) -> None:
    (home / "outside").mkdir()
    (home / "work/link").symlink_to(home / "outside")
    config = read(home, text, ssh="Host good\nHost *\n")
    assert [each.values for each in config.layers[:-1]] == [{}]
    assert len(config.warnings) == 1
    assert config.warnings[0].isprintable()


def test_the_short_list_counts_and_says_nothing(home: Path) -> None:
    config = read(home, 'root = "deep"\ntimeout = "2h"\nmax_cost = 5\n')
    assert config.warnings == ()
    assert configured_root(config) == home / "work/deep"
    assert (value(config, "timeout"), value(config, "max_cost")) == ("2h", 5)
    assert configured_root(read(home, 'root = "."')) == home / "work"


@pytest.mark.parametrize("runner", ["ssh", "docker"])
@pytest.mark.parametrize(
    ("user", "ssh"),
    [
        ('[runner.ssh]\nhost = "box"', ""),
        ('[runner.docker]\nhost = "box"', ""),
        ("", "Host box\n"),
        ("", "host=other box # comment\n"),
        ("", '  HOST "box"\n'),
        ("", "Include more\n"),
        ("", "Match all\n  Include ~/.ssh/mor*\n"),
    ],
)
def test_a_host_that_the_users_files_name_counts(
    runner: str, user: str, ssh: str, home: Path
) -> None:
    (home / "home/.ssh/more").write_text("Include more\nHost box\n")
    config = read(home, f'runner.default = "{runner}"\nrunner.{runner}.host = "box"', user, ssh)
    assert (value(config, "runner"), config.runner(runner)) == (runner, {"host": "box"})
    assert config.warnings == ()


@pytest.mark.parametrize(
    "ssh",
    [
        "Host box*\n",
        "Host b?x\n",
        "Host !box\n",
        "# Host box\n",
        "Hostname box\n",
        "Host a # box\n",
    ],
)
def test_a_pattern_names_no_host(ssh: str, home: Path) -> None:
    assert read(home, '[runner.ssh]\nhost = "box"', ssh=ssh).runner("ssh") == {}


def test_the_ssh_config_that_names_hosts_is_the_one_that_ssh_is_given(home: Path) -> None:
    read(home, '[runner.ssh]\nhost = "box"', ssh="Host box\n")
    environ = {"HOME": str(home / "home"), "CVL_SSH_CONFIG": str(home / "mine")}
    assert load(home / "work", environ).runner("ssh") == {}
    (home / "mine").write_text("Host box\n")
    assert load(home / "work", environ).runner("ssh") == {"host": "box"}


def test_an_ssh_config_that_cannot_be_read_names_no_host(home: Path) -> None:
    config = home / "home/.ssh/config"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
        config.unlink(missing_ok=True)
        make(config)
        (home / "work/cvl.toml").write_text('[runner.ssh]\nhost = "box"')
        found = load(home / "work", {"HOME": str(home / "home")})
        assert found.runner("ssh") == {}


@pytest.mark.parametrize(
    ("user", "counts"),
    [
        ("[runner.lambda]\nregion = 'x'", True),
        ('runner = "lambda"', True),
        ("[runner.lambda]", True),
        ("[runner.k8s]", False),
        ("", False),
    ],
)
def test_a_runner_that_the_users_file_names_may_be_the_usual_one(
    user: str, counts: bool, home: Path
) -> None:
    config = read(home, 'runner = "lambda"', user)
    assert (value(config, "runner") == "lambda") is counts
    assert bool(config.warnings) is not counts


def test_here_counts_only_where_the_user_has_not_chosen_another_place(home: Path) -> None:
    assert read(home, 'runner = "local"').warnings == ()
    config = read(home, 'runner = "local"', 'runner.default = "docker"\nrunner.docker.host = "b"')
    assert value(config, "runner") == "docker"


def test_the_lowest_max_cost_counts(home: Path) -> None:
    for project, user, found in (("5", "10", [5, 10]), ("50", "10", [50, 10])):
        config = read(home, f"max_cost = {project}", f"max_cost = {user}")
        assert [each.value for each in config.every("max_cost")] == found
    environ = {"HOME": str(home / "home"), "CVL_MAX_COST": "7"}
    assert [each.value for each in load(home / "work", environ).every("max_cost")] == ["7"]


def test_even_trust_is_not_enough_for_keys_and_for_where_results_may_land(home: Path) -> None:
    folder = home / "work"
    (home / "elsewhere").mkdir()
    (folder / "out").symlink_to(home / "elsewhere")
    for place in (
        "~",
        "..",
        "/tmp",
        "out",
        "out/x",
        "",
        "deep/../..",
        ".git",
        "x/.GIT/hooks",
        ".vscode",
        "a/.Envrc",
        "~/x",
    ):
        assert not allowed(("output",), place, folder), place
    for place in ("results", "deep/../results", str(folder / "a/b"), "."):
        assert allowed(("output",), place, folder), place
    for name in (*NEVER, "accept_new_host_key"):
        assert not allowed((name,), True, folder)
    for runner, own in EVERY.items():
        for name in {**own, **SECRET}:
            never = {"ssh_key_path", "accept_new_host_key", "api_key", "token", *NEVER}
            assert allowed(("runner", runner, name), "x", folder) is (name not in never), name


@given(name=st.text(min_size=1))
def test_a_setting_s_name_is_shown_without_control_characters(name: str) -> None:
    assert display((name, name)).isprintable()
    assert len(display((name,))) < 700


KEY = st.sampled_from(
    ["root", "output", "timeout", "runner", "ssh", "host", "default", "x", "\x1b[2J"]
)
VALUE = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=9).map(json.dumps)),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(rows=st.lists(st.tuples(st.lists(KEY, min_size=1, max_size=4), VALUE), max_size=6))
def test_whatever_a_project_says_only_the_list_counts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[str], object]]
) -> None:
    folder = tmp_path_factory.mktemp("weird")
    lines = [f"{'.'.join(map(json.dumps, keys))} = {written(value)}" for keys, value in rows]
    (folder / "cvl.toml").write_text("\n".join(lines), "utf-8", "replace")
    try:
        config = load(folder, {})
    except UsageError:
        return
    said = config.layers[0].values
    assert said.keys() <= {("root",), ("timeout",), ("runner",), ("max_cost",)}
    assert said.get(("runner",), "local") == "local"
    assert all(warning.isprintable() for warning in config.warnings)


def written(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


# Through the front door


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=(), env=host.env)


RANDOM = r'one-[a-z0-9-]*[a-z0-9]|\d{10}|"[A-Za-z0-9+/=]{40,}"'
"""What differs from one plan to the next: the run's id, the time, encoded files with a nonce."""


def told(done: Done) -> tuple[int, str]:
    """Return how a command ended and what it planned, whichever run it was."""
    return done.code, re.sub(RANDOM, "…", done.out.decode())


PLACES: Mapping[str, tuple[str, ...]] = {
    "local": ("--local",),
    "ssh": ("--ssh", "testhost"),
    "docker": ("--docker", "testhost"),
    "lambda": ("--remote", "lambda"),
    "k8s": ("--k8s", "--image", "x"),
    "sagemaker": (
        "--sagemaker",
        "--role-arn",
        "r",
        "--instance-type",
        "t",
        "--output-path",
        "s3://b/p",
    ),
}


@pytest.mark.parametrize("runner", BUILT_IN)
def test_a_hostile_file_changes_nothing_of_a_plan(runner: str, desk: Desk) -> None:
    command = ("run", *PLACES[runner], "--dry-run", "--json", "one", "sh", "exit 3")
    before = told(desk.cvl(*command))
    top = "".join(f'{name} = "evil"\n' for name in sorted(SETTINGS.keys() - MAY))
    tables = "".join(
        f"[runner.{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in own.items())
        for name, own in EVERY.items()
    )
    (desk.repo / "cvl.toml").write_text(f'{top}{tables}[runner]\ndefault = "docker"\n')
    after = desk.cvl(*command)
    assert told(after) == before
    assert "cvl trust ." in after.err


def test_nothing_of_a_hostile_file_is_done(desk: Desk) -> None:
    mark = desk.folder / "mark"
    (desk.repo / "cvl.toml").write_text(
        f'output = "~"\ntimeout = "0.5s"\nrunner.default = "docker"\nrunner.docker.host = "evil"\n'
        f'[runner.local]\ntimeout_action = "touch {mark}"\n'
    )
    done = desk.cvl("run", "--grace", "0s", "one", "sh", "echo x >$CVL_WORK_DIR/.bashrc; sleep 99")
    assert done.code == 124
    assert not mark.exists()
    assert not (desk.folder / "home/.bashrc").exists()
    assert desk.result(".bashrc") == b"x\n"


def test_a_line_says_where_a_run_goes_if_no_flag_does(desk: Desk) -> None:
    (desk.repo / "cvl.toml").write_text(
        '[runner]\ndefault = "ssh"\n[runner.ssh]\nhost = "testhost"\n'
    )
    plan = ("run", "--dry-run", "one", "sh", "exit 3")
    assert desk.cvl(*plan).err == "cvl: on testhost (ssh), by ./cvl.toml\n"
    assert desk.cvl("run", "-q", *plan[1:]).err == ""
    assert desk.cvl("run", "--ssh", "testhost", *plan[1:]).err == ""
    assert desk.cvl("run", "--local", *plan[1:]).err == ""
    said = desk.cvl("run", "--runner", "ssh", *plan[1:]).err
    assert said == "cvl: on testhost (ssh), by ./cvl.toml\n"
    by_both = desk.cvl(*plan, env={"CVL_RUNNER": "docker", "CVL_HOST": "testhost"}).err
    assert by_both == "cvl: on testhost (docker), by $CVL_RUNNER and $CVL_HOST\n"
    assert desk.cvl(*plan, env={"CVL_RUNNER": "local"}).err == "cvl: here, by $CVL_RUNNER\n"
    done = desk.cvl("run", "--json", "one", "sh", "exit 3")
    assert done.err.startswith("cvl: on testhost (ssh), by ./cvl.toml\n")
    assert done.code == 3


def test_a_max_cost_of_a_file_or_the_environment_counts(desk: Desk) -> None:
    with LambdaCloud(Settings(hosts="none")) as cloud:
        _a_max_cost_counts(replace(desk, env=cloud.env))


def _a_max_cost_counts(desk: Desk) -> None:
    user = desk.folder / "home/.config/cvl/cvl.toml"
    user.parent.mkdir(parents=True)

    def why(**environ: str) -> str:
        done = desk.cvl(
            "run", "--remote", "lambda", "--dry-run", "--json", "one", "sh", env=environ
        )
        quote = json.loads(done.out)["quote"]
        return str(re.search(r"h: ([^;]*)", quote["note"])[1])  # type: ignore[index]

    assert why() == "no --timeout was given"
    user.write_text("max_cost = 9\n")
    assert why() == "--max-cost 9"
    (desk.repo / "cvl.toml").write_text('max_cost = "$6"\n')
    assert why() == "--max-cost 6"
    (desk.repo / "cvl.toml").write_text("max_cost = 60\n")
    assert why() == "--max-cost 9"
    assert why(CVL_MAX_COST="3") == "--max-cost 3"


def test_on_a_cluster_the_max_cost_of_a_file_is_only_warned_of(desk: Desk) -> None:
    (desk.repo / "cvl.toml").write_text("max_cost = 9\n")
    plan = ("run", "--k8s", "--image", "x", "--dry-run")
    done = desk.cvl(*plan, "one", "sh", "exit 3")
    assert (done.code, "max_cost = 9 cannot be kept" in done.err) == (0, True)
    assert desk.cvl(*plan, "--max-cost", "9", "one", "sh", "exit 3").code == 2


def test_a_limit_that_cannot_be_read_names_its_origin(desk: Desk) -> None:
    for text in ("max_cost = -1", "max_cost = nan", "max_cost = true", 'timeout = "5"'):
        (desk.repo / "cvl.toml").write_text(text)
        done = desk.cvl("run", "--local", "one", "sh", "exit 3")
        assert (done.code, done.out) == (2, b"")
        assert f"{desk.repo}/cvl.toml: {text.partition(' ')[0]}" in done.err


BROKEN: Mapping[str, Callable[[Path], object]] = {
    "no TOML": lambda path: path.write_text("root = = 1"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "huge": lambda path: path.write_bytes(b"#" * (1 << 20)),
    "a pipe": os.mkfifo,
    "without end": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a dead link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to("cvl.toml"),
    "deep": lambda path: path.write_text("a = " + "[" * 50000),
}


@pytest.mark.parametrize("whose", ["project", "user"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_cannot_be_read_stops_a_run_and_nothing_else(
    what: str, whose: str, desk: Desk
) -> None:
    assert desk.cvl("run", "--local", "one", "sh", "echo out; exit 3").code == 3
    run = desk.runs()[0]
    user = desk.folder / "home/.config/cvl/cvl.toml"
    user.parent.mkdir(parents=True)
    BROKEN[what](user if whose == "user" else desk.repo / "cvl.toml")
    refused = desk.cvl("run", "--local", "one", "sh", "exit 3")
    assert (refused.code, refused.out) == (2, b"")
    assert "cvl.toml" in refused.err
    assert desk.runs() == [run]
    for command, code in (
        (("ps",), 0),
        (("logs", run), 0),
        (("attach", run), 3),
        (("stop", run), 0),
        (("fetch", run), 0),
        (("reap", "-y"), 0),
        (("trust", "--list"), 0),
    ):
        done = desk.cvl(*command)
        assert done.code == code, (command, done)


def test_the_name_of_every_secret_option_is_known() -> None:
    for name in ("key", "api_key", "hf_token", "password", "client_secret"):
        assert KEYS.search(name), name
        assert arguments.SECRET.search(name), name
