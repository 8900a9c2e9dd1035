import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.cli.config import Config, load
from cvl.cli.config_file import DOTS, LIMIT
from cvl.core.errors import UsageError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home/.config/cvl").mkdir(parents=True)
    (tmp_path / "work/deep/er").mkdir(parents=True)
    return tmp_path


def write(home: Path, *, user: str = "", project: str = "") -> None:
    if user:
        (home / "home/.config/cvl/cvl.toml").write_text(user)
    if project:
        (home / "work/cvl.toml").write_text(project)


def read(home: Path, environ: Mapping[str, str] | None = None) -> Config:
    return load(home / "work/deep/er", {"HOME": str(home / "home"), **(environ or {})})


def value(config: Config, name: str) -> object:
    found = config.find(name)
    return found.value if found else None


def path(config: Config, name: str) -> Path:
    found = config.find(name)
    assert found
    return found.path()


def test_nothing_said_is_nothing(home: Path) -> None:
    config = read(home)
    assert config.find("root") is None
    assert config.find("runner", "ssh", "host") is None
    assert dict(config.runner("ssh")) == {}
    assert config.warnings == ()


def test_the_environment_beats_the_project_beats_the_user(home: Path) -> None:
    write(
        home,
        user='timeout = "1h"\nroot = "u"\ngrace = "5s"',
        project='timeout = "2h"\nroot = "p"',
    )
    config = read(home, {"CVL_TIMEOUT": "3h", "CVL_ROOT": ""})
    assert [value(config, name) for name in ("timeout", "root", "grace")] == ["3h", "p", "5s"]


def test_each_setting_says_where_it_comes_from(home: Path) -> None:
    write(home, user='grace = "5s"', project='timeout = "2h"')
    config = read(home, {"CVL_ROOT": "/r"})
    origins = [
        found.origin for name in ("root", "timeout", "grace") if (found := config.find(name))
    ]
    assert origins == [
        "$CVL_ROOT",
        str(home / "work/cvl.toml"),
        str(home / "home/.config/cvl/cvl.toml"),
    ]
    assert config.configured("root") is None


def test_the_nearest_project_file_counts_alone(home: Path) -> None:
    write(home, project='root = "far"\ntimeout = "1s"')
    (home / "work/deep/cvl.toml").write_text('root = "near"')
    assert value(read(home), "root") == "near"
    assert value(read(home), "timeout") is None


def test_a_path_is_relative_to_the_file_that_says_it(home: Path) -> None:
    write(home, user='output = "out"', project='root = "deep/../repo"')
    config = read(home)
    assert path(config, "output") == home / "home/.config/cvl/out"
    assert path(config, "root") == home / "work/deep/../repo"
    assert path(read(home, {"CVL_OUTPUT": "my out"}), "output") == home / "work/deep/er/my out"
    write(home, user='output = "/abs"')
    assert path(read(home), "output") == Path("/abs")


def test_a_tilde_is_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    write(home, user='root = "~/x"\noutput = "~nobody-of-that-name/x"')
    assert path(read(home), "root") == home / "x"
    assert path(read(home), "output") == home / "home/.config/cvl/~nobody-of-that-name/x"


@pytest.mark.parametrize(
    "text", ['runner = "ssh"', '[runner]\ndefault = "ssh"\n[runner.ssh]\nhost = "h"']
)
def test_a_file_may_name_the_runner(text: str, home: Path) -> None:
    write(home, user=text)
    config = read(home)
    assert (value(config, "runner"), config.warnings) == ("ssh", ())
    assert config.runner("default") == {}
    assert value(read(home, {"CVL_RUNNER": "local"}), "runner") == "local"


def test_a_runners_own_options_are_merged(home: Path) -> None:
    write(
        home,
        user='[runner.ssh]\nhost = "u"\nport = 22\nlabels = ["a", "b"]\n'
        '[runner.docker]\nhost = "p"\n[runner.k8s]\nnamespace = "ml"',
        project='[runner.ssh]\nhost = "p"\n',
    )
    config = read(home, {"CVL_PORT": "2222", "CVL_HOST": "env"})
    assert config.runner("ssh") == {"host": "p", "port": 22, "labels": ("a", "b")}
    port = config.find("runner", "ssh", "port")
    assert port
    assert (port.value, port.origin) == ("2222", "$CVL_PORT")
    assert config.runner("k8s") == {"namespace": "ml"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'root = "a"\nroot = \n', ":2: "),
        (b'root = "a"\n\n[runner', ":3: "),
        (b'root = "a"\n# \xff\n', ":2: not UTF-8 text"),
        (b"root = {a = 1}", ": root must be text"),
        (b"root = 2024-01-01", ": root must be text"),
        (b"root = [1]", ": root must be text"),
        (b"runner = 1", ": runner must hold one table"),
        (b"runner.default = 1", ": runner must hold one table"),
        (b"[runner]\nssh = 1", ": runner must hold one table"),
        (b"[runner.ssh]\nhost = {}", ": runner.ssh.host must be text"),
        (b'"\\u001b[2J" = {}', ": \x1b[2J must be text"),
        (b"a = " + b"9" * 5000, ":1: Exceeds the limit"),
        (b"a = " + b"[" * 20000, ": too many brackets"),
        (b"a" + b".a" * 20000 + b" = 1", f":1: more than {DOTS} dots"),
        (b"\n[a" + b".a" * 20000 + b"]", f":2: more than {DOTS} dots"),
        (b"a = '" + b"x" * LIMIT + b"'", ": cannot be read: more than 64 KiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_broken_file_is_named(home: Path, text: bytes, message: str) -> None:
    path = home / "work/cvl.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as raised:
        read(home)
    assert str(raised.value).startswith(f"{path}{message}")


@given(text=st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_config_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "cvl.toml").write_bytes(text)
    with suppress(UsageError):
        load(folder, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(home: Path) -> None:
    write(home, project="grace = 1")
    (home / "work/cvl.toml").chmod(0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        read(home)


def test_a_value_of_the_wrong_kind_names_its_origin(home: Path) -> None:
    write(home, user='output = ["a"]\nroot = 3\nrunner.ssh.x = true')
    config = read(home)
    for found, wanted in (
        (config.find("output"), "output must be text, not ('a',)"),
        (config.find("runner", "ssh", "x"), "runner.ssh.x must be text, not True"),
    ):
        assert found
        with pytest.raises(UsageError, match=re.escape(f"cvl.toml: {wanted}")):
            found.text()
    with pytest.raises(UsageError, match=r"cvl\.toml: root must be a path, not 3"):
        path(config, "root")


def test_a_number_is_also_text(home: Path) -> None:
    write(home, user="max_cost = 5.5")
    found = read(home).find("max_cost")
    assert found
    assert found.text() == "5.5"


def test_a_relative_xdg_folder_is_ignored(home: Path) -> None:
    write(home, user='grace = "5s"')
    assert read(home, {"XDG_CONFIG_HOME": "work"}).find("grace") is None
    config = read(home, {"XDG_CONFIG_HOME": str(home / "home/.config")})
    assert value(config, "grace") == "5s"
    assert load(home / "work", {}).layers == ()


def test_our_own_variable_names_the_folder_of_the_users_file(home: Path) -> None:
    write(home, user='grace = "5s"')
    (home / "other").mkdir()
    (home / "other/cvl.toml").write_text('grace = "7s"')
    for folder in (str(home / "other"), os.path.relpath(home / "other")):
        assert value(read(home, {"CVL_CONFIG_DIR": folder}), "grace") == "7s"
    assert value(read(home, {"CVL_CONFIG_DIR": ""}), "grace") == "5s"


def test_the_users_file_is_read_once_when_it_is_also_the_nearest(home: Path) -> None:
    write(home, user='output = "/s"')
    folder = home / "home/.config/cvl"
    config = load(folder, {"HOME": str(home / "home")})
    assert len(config.layers) == 1
    assert value(config, "output") == "/s"


def test_without_a_file_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cvl.cli.config import load\n"
        f"load(Path({str(tmp_path)!r}), {{}})\n"
        "print(sorted({'tomllib', 'difflib', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
