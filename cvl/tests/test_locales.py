"""Bytes of the system in every locale: they arrive as they are, and no command fails to speak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cvl.cli import COMMANDS
from cvl.core.octets import octets
from cvl.testing.cli_harness import Desk
from cvl.testing.sshd import Sshd
from cvl.tests.locales import NAMES, locale
from cvl.tests.test_extras import KUBECONFIG, WHERE

WORDS = ["é", "ÉÀ—日本", "plain"]
ODD = b"\xff\xe9"
"""Bytes that are no UTF-8, but an argument all the same."""
DOCUMENT = """\
name: étude
description: one — two 日本
presets:
  é:
    script: crème.sh
    description: é — ü
"""
SCRIPT = (
    'mkdir -p outputs; for word; do printf "%s\\0" "$word"; done >outputs/wörds\n'
    'printf %s "$VALUE" >outputs/välue; printf %s "$PWD" >outputs/pläce\n'
)


@pytest.fixture(scope="module", params=NAMES)
def spoken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    return locale(request.param, tmp_path_factory.mktemp("locale"))


@pytest.fixture
def desk(host: Sshd, tmp_path: Path, spoken: Mapping[str, str]) -> Desk:
    folder = tmp_path / "Ärger"
    folder.mkdir()
    desk = Desk(folder=folder, options=(), env={**host.env, **spoken})
    example = desk.repo / "examples/é/Ö"
    example.mkdir(parents=True)
    (example / "example.yaml").write_text(DOCUMENT, "utf-8")
    (example / "README.md").write_text("# é — 日本\n", "utf-8")
    (example / "crème.sh").write_text(SCRIPT, "utf-8")
    return desk


def called(
    desk: Desk, *words: str | bytes, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Call cvl with arguments that may be any bytes."""
    argv = [os.fsencode(sys.executable), b"-m", b"cvl"]
    argv += [word if isinstance(word, bytes) else word.encode() for word in words]
    env = {os.fsencode(name): os.fsencode(value) for name, value in desk.environment.items()}
    done = subprocess.run(argv, env=env, cwd=cwd or desk.repo, capture_output=True, check=False)
    assert b"defect" not in done.stderr, done
    assert b"Traceback" not in done.stderr, done
    return done


def brought(folder: Path, name: str) -> bytes:
    return next(each for each in folder.rglob("*") if each.name == name).read_bytes()


@pytest.mark.parametrize("where", [["--local"], ["--ssh", "testhost"], ["--docker", "testhost"]])
def test_every_byte_arrives_and_comes_back(desk: Desk, where: list[str]) -> None:
    file = desk.folder / "värs.env"
    file.write_text("OTHER=ü\n")
    into = os.fsencode(desk.folder) + b"/Ergebnisse/\xc3\xa9" + ODD
    options: list[str | bytes] = ["-e", "VALUE=é—日本", "--env-file", str(file), "-o", into]
    done = called(desk, "run", *where, *options, "étude", "é", *WORDS, ODD)
    assert done.returncode == 0, done
    results = Path(os.fsdecode(into))
    assert brought(results, "wörds") == b"\0".join([*(w.encode() for w in WORDS), ODD, b""])
    assert brought(results, "välue") == "é—日本".encode()
    assert brought(results, "pläce").endswith("examples/é/Ö".encode())


def test_a_root_and_an_example_by_its_path(desk: Desk, tmp_path: Path) -> None:
    options = ["--root", str(desk.repo), "-o", str(tmp_path / "ü")]
    for example in ("examples/é/Ö", "Ö", "étude"):
        done = called(desk, "run", *options, example, "é", cwd=tmp_path)
        assert done.returncode == 0, done
    assert brought(tmp_path / "ü", "pläce").endswith("examples/é/Ö".encode())


def test_what_one_locale_has_noted_another_can_read(desk: Desk) -> None:
    assert called(desk, "run", "--ssh", "testhost", "-d", "étude", "é", "ü").returncode == 0
    run = desk.runs()[0]
    plain = Desk(folder=desk.folder, options=(), env={**desk.env, "LC_ALL": "C.UTF-8"})
    done = called(plain, "attach", run)
    assert done.returncode == 0, done
    assert brought(desk.repo / "cvl-runs" / run, "wörds") == "ü\0".encode()
    for reader in (desk, plain):
        (shown,) = json.loads(called(reader, "ps", "--json").stdout)
        assert (shown["preset"], shown["args"]) == ("é", ["ü"])


def test_a_plan_says_it_as_it_is(desk: Desk) -> None:
    done = called(desk, "run", "--docker", "h", "--dry-run", "--json", "étude", "é", "ü")
    request = json.loads(done.stdout)["request"]
    assert request["argv"][-2:] == ["crème.sh", "ü"]
    assert request["example"].endswith("Ärger/repo/examples/é/Ö")


@pytest.mark.parametrize("args", [WORDS, [ODD]])
def test_an_api_gets_text_or_nothing(desk: Desk, args: list[str | bytes]) -> None:
    (desk.folder / "kubeconfig").write_text(KUBECONFIG)
    (desk.repo / ".env").unlink(missing_ok=True)
    reader = Desk(
        folder=desk.folder, options=(), env={**desk.env, "KUBECONFIG": f"{desk.folder}/kubeconfig"}
    )
    done = called(reader, "run", *WHERE["k8s"], "--dry-run", "--json", "étude", "é", *args)
    if args == [ODD] and "ISO" not in desk.env.get("LC_ALL", ""):
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"cvl: an argument is no text: it holds bytes that are not UTF-8" in done.stderr
        return
    assert done.returncode == 0, done
    if args == WORDS:
        request = json.dumps(json.loads(done.stdout)["request"], ensure_ascii=False)
        assert all(word in request for word in WORDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_command_fails_to_speak(desk: Desk, command: str) -> None:
    called(desk, "run", "étude", "é", "ü")
    assert called(desk, command, "--help").returncode == 0
    for words in (["é—日本"], [ODD], ["--json"]):
        called(desk, command, *words)


def test_what_is_listed_and_shown_is_all_there(desk: Desk) -> None:
    for words in (["list"], ["list", "-k", "é"], ["info", "étude"], ["info", "Ö"], ["doctor"]):
        assert called(desk, *words).returncode in {0, 125}


def test_text_of_python_has_bytes_or_is_refused() -> None:
    assert octets("é\udcff") == b"\xc3\xa9\xff"


FROM_PYTHON = """
from pathlib import Path
from cvl.runners import LocalRunner
here = {here}
LocalRunner().run("one", "sh", ["echo x >result"], root=Path(here), output_dir=here + "/out")
"""


def test_a_folder_that_python_names_is_that_folder_in_utf_8_and_nothing_runs_elsewhere(
    spoken: Mapping[str, str], tmp_path: Path
) -> None:
    desk = Desk(folder=tmp_path, options=(), env=spoken)
    desk.repo.rename(tmp_path / ".日本é")
    for env in ({**spoken, "PYTHONUTF8": "1"}, spoken):
        done = subprocess.run(
            [sys.executable, "-c", FROM_PYTHON.format(here=ascii(".日本é"))],
            env={**desk.environment, **env},
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        if env.get("PYTHONUTF8", "1") == "1":
            assert done.returncode == 0, done.stderr
        else:
            assert b"UsageError: Python reads the names of files here as " in done.stderr
    assert brought(tmp_path / ".日本é/out", "result") == b"x\n"
