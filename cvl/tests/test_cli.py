"""The commands that start nothing: list, info, doctor, help; and what the command line is like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvl.cli import COMMANDS
from cvl.testing.cli_harness import FOLDER, Desk
from cvl.testing.sshd import Sshd

LISTED = ["name", "path", "capability", "stability", "tags", "description", "presets", "type"]


@pytest.fixture
def desk(host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=("--local",), env=host.env)


def test_list(desk: Desk) -> None:
    (row,) = json.loads(desk.cvl("list", "--json").out)
    assert sorted(row) == sorted(LISTED)
    assert (row["path"], row["presets"]) == (FOLDER, ["sh", "args", "gone"])
    assert desk.cvl("list").out.decode() == f"{FOLDER}  sh, args, gone\n"
    assert desk.cvl("list", "-k", "told").out != b""
    none = desk.cvl("list", "-k", "nowhere")
    assert (none.code, none.out, none.err) == (0, b"", "cvl: no example mentions 'nowhere'\n")


def test_a_broken_file_hides_no_other(desk: Desk) -> None:
    broken = desk.repo / "examples/broken"
    broken.mkdir()
    (broken / "example.yaml").write_text("name: [")
    done = desk.cvl("list")
    assert (done.code, FOLDER in done.out.decode()) == (0, True)
    assert "examples/broken/example.yaml" in done.err


def test_info(desk: Desk) -> None:
    facts = json.loads(desk.cvl("info", "one", "--json").out)
    assert set(facts["presets"]) == {"sh", "args", "gone"}
    assert set(facts["presets"]["sh"]) == {"script", "command", "args", "env", "description"}
    assert "sh: sh.sh" in desk.cvl("info", "one").out.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["list", "ps", "ps --json", "info one", "doctor", "--help"])
def test_output_that_cannot_be_written_is_no_defect_of_ours(words: str, desk: Desk) -> None:
    command = [sys.executable, "-m", "cvl", *words.split()]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            env=desk.environment,
            cwd=desk.repo,
            check=False,
        )
    assert done.returncode == 125
    assert done.stderr == b"cvl: cannot write the output here: No space left on device\n"


def test_the_bare_command_shows_its_help(desk: Desk) -> None:
    bare, asked = desk.cvl(), desk.cvl("--help")
    assert (bare.code, bare.out, bare.err) == (2, b"", asked.out.decode())


def test_every_locale(desk: Desk) -> None:
    example = desk.repo / FOLDER / "example.yaml"
    example.write_text(example.read_text().replace("told", "told, ça va? 好"), "utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for command in (("list",), ("info", "one"), ("list", "--json"), ("info", "one", "--json")):
        assert desk.cvl(*command, env=plain).code == 0
    done = desk.cvl("run", "one", "args", "é好", env=plain)
    assert (done.code, done.out) == (0, "é好\0".encode()), done.err
    assert desk.cvl("ps", env=plain).code == 0


def test_a_python_that_cannot_begin_again_says_what_to_set(desk: Desk) -> None:
    """An embedded one, as in a bundle, does not know by which program it runs."""
    code = "import sys; sys.executable = ''; from cvl.__main__ import main; sys.exit(main())"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "one", "args"],
        capture_output=True,
        env={**desk.environment, **plain},
        cwd=desk.repo,
        check=False,
    )
    assert done.returncode == 2, done
    assert b"hint: set PYTHONUTF8=1" in done.stderr


def test_doctor_looks_here_and_there(desk: Desk, tmp_path: Path) -> None:
    found = json.loads(desk.cvl("doctor", "--host", "testhost", "--json").out)
    by_name = {each["what"]: each for each in found}
    for what in ("ssh", "state folder", "testhost", "home there", "python there"):
        assert by_name[what]["ok"] is True, by_name[what]
    text = desk.cvl("doctor").out.decode()
    assert "LAMBDA_API_KEY" in text
    tools = tmp_path / "tools"
    tools.mkdir()
    done = desk.cvl("doctor", env={"PATH": str(tools)})
    assert done.code == 125
    assert "apt install openssh-client" in done.out.decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grase = 5\n", "there is no grase"),
        ("[runner.k8s]\nname_space = 'x'\n", "there is no runner.k8s.name_space"),
        ("[runner.nowhere]\n", "there is no runner.nowhere"),
        ("= 5\n", "cvl.toml:1: "),
    ],
)
def test_doctor_says_what_is_wrong_with_the_configuration(desk: Desk, text: str, says: str) -> None:
    (desk.repo / "cvl.toml").write_text(text)
    done = desk.cvl("doctor")
    (line,) = [each for each in done.out.decode().splitlines() if "configuration" in each]
    assert (done.code, line.startswith("FAILED  configuration: ")) == (125, True)
    assert says in line
    (desk.repo / "cvl.toml").write_text("timeout = '5m'\n")
    assert f"ok      configuration: {desk.repo}/cvl.toml" in desk.cvl("doctor").out.decode()


def test_the_time_limit_is_said_once_and_nothing_is_empty(desk: Desk) -> None:
    both = desk.cvl("run", "--timeout", "1m", "--timeout-minutes", "1", "one", "sh", "true")
    assert (both.code, both.err.count("\n")) == (2, 2)
    assert "--timeout and --timeout-minutes say the same" in both.err
    assert "--include is empty" in desk.cvl("run", "--include", "", "one", "sh", "true").err


def test_doctor_says_what_is_wrong_with_a_host(desk: Desk) -> None:
    done = desk.cvl("doctor", "--host", "nowhere.invalid")
    assert done.code == 125
    assert "no such host" in done.out.decode()
    assert "spelling" in done.out.decode()


def test_every_command_has_its_own_help(desk: Desk) -> None:
    text = desk.cvl("--help").out.decode()
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in text
        assert line in text
        own = desk.cvl(name, "--help")
        assert (own.code, own.out.startswith(b"Usage: cvl " + name.encode())) == (0, True)
    assert "_resolve" not in text


def test_the_version_loads_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cvl", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert done.stdout.startswith("cvl 0.")
    assert "click" not in done.stderr
    assert "subprocess" not in done.stderr


def test_ps_loads_neither_engine_nor_transport(desk: Desk) -> None:
    code = "import sys; from cvl.cli import main; main(['ps']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=desk.environment,
        cwd=desk.repo,
    )
    loaded = set(done.stdout.split())
    assert "cvl.cli.ps" in loaded
    assert not loaded & {
        "cvl.run",
        "cvl.cleanup",
        "cvl.host",
        "cvl.providers",
        "json",
        "subprocess",
        "rich",
        "yaml",
        "asyncio",
    }


def test_a_folder_that_is_gone(desk: Desk, tmp_path: Path) -> None:
    done = subprocess.run(
        f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone;"
        f"{sys.executable} -m cvl run one sh",
        shell=True,
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("cvl: the folder that you are in no longer exists\nhint: ")
