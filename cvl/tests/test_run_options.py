"""The options of `cvl run`, one by one."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cvl.testing.cli_harness import FOLDER, Desk, wait_for
from cvl.testing.sshd import Sshd

RUNNERS = {"local": ("--local",), "ssh": ("--ssh", "testhost")}


@pytest.fixture(params=RUNNERS)
def desk(request: pytest.FixtureRequest, host: Sshd, tmp_path: Path) -> Desk:
    return Desk(folder=tmp_path, options=RUNNERS[request.param], env=host.env)


def place(desk: Desk, host: Sshd, run: str) -> Path:
    """Return the folder of a run, wherever it is."""
    there = [base / "runs" / run for base in (host.home / ".cvl", desk.state / "here")]
    return next(folder for folder in there if folder.is_dir())


def test_a_terminal_for_scripts_that_insist(desk: Desk) -> None:
    done = desk.sh("test -t 0 && test -t 1 && test -t 2 && stty size; exit 3", "-t")
    assert (done.code, done.out) == (3, b"24 80\r\n")
    assert desk.sh("test -t 0 || test -t 1 || exit 4").code == 4
    assert desk.sh("echo ready; sleep 1000", "-t", "--timeout", "1s", "--grace", "0s").code == 124
    assert desk.left(desk.runs()[0]) == []


def test_the_timeout_action_runs_only_after_a_timeout(desk: Desk) -> None:
    acted = desk.folder / "acted"
    action = ("--timeout-action", f"echo 'a b' >{acted}")
    assert desk.sh("exit 3", *action, "--timeout", "1h").code == 3
    assert desk.sh("exit 124", *action, "--timeout", "1h").code == 124
    assert not acted.exists()
    assert desk.sh("sleep 1000", *action, "--timeout", "0.5s", "--grace", "0s").code == 124
    assert wait_for(lambda: acted.exists() and acted.read_text()) == "a b\n"


def test_keep_leaves_the_workspace(desk: Desk, host: Sshd) -> None:
    desk.sh("echo x >$CVL_WORK_DIR/result")
    left = {file.name for file in place(desk, host, desk.runs()[0]).iterdir()}
    assert left == {"result", "meta.json"}
    desk.sh("echo x >$CVL_WORK_DIR/result", "--keep")
    kept = place(desk, host, desk.runs()[0])
    job = kept.parents[1] / "jobs" / kept.name
    assert (job / "work/result").read_text() == "x\n"
    assert not (kept / "env.sh").exists()


def test_include_sends_more_of_the_repository(host: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=RUNNERS["ssh"], env=host.env)
    (desk.repo / "data").mkdir()
    (desk.repo / "data/numbers").write_text("1 2 3\n")
    assert desk.sh("cat ../../../data/numbers").code != 0
    assert desk.sh("cat ../../../data/numbers", "--include", "data").out == b"1 2 3\n"


def test_quiet_says_nothing_of_its_own(desk: Desk) -> None:
    done = desk.sh("echo x >result; echo out; exit 3", "-q")
    assert (done.code, done.out, done.err) == (3, b"out\n", "")


def test_json_prints_the_end_on_stderr(desk: Desk) -> None:
    done = desk.sh("echo out; exit 3", "--json", "-q")
    end = json.loads(done.err)
    assert done.out == b"out\n"
    assert (end["exit_code"], end["cause"], end["state"]) == (3, "exited", "ended")
    assert end == desk.ps()[0]


def test_detach_prints_the_bare_id(desk: Desk) -> None:
    done = desk.sh("exit 3", "-d", "--json", "-q")
    run = desk.runs()[0]
    assert (done.code, done.out.decode()) == (0, f"{run}\n")
    assert json.loads(done.err)["id"] == run
    assert desk.cvl("attach", run).code == 3


def test_results_land_where_they_are_wanted(desk: Desk) -> None:
    desk.sh("echo x >$CVL_WORK_DIR/result", "-o", "a/b c")
    assert [file.read_text() for file in (desk.repo / "a/b c").rglob("result")] == ["x\n"]
    (desk.repo / "cvl.toml").write_text('output = "from-config"\n')
    assert desk.cvl("trust", "-y").code == 0
    desk.sh("echo y >$CVL_WORK_DIR/result")
    assert [file.read_text() for file in (desk.repo / "from-config").rglob("result")] == ["y\n"]


def test_a_plan_for_people(desk: Desk) -> None:
    done = desk.sh("exit 3", "--dry-run", "-e", "TOKEN=s3cret", "--timeout", "90m")
    text = done.out.decode()
    assert (done.code, done.err) == (0, "")
    assert "s3cret" not in text
    for words in ("<redacted:TOKEN>", "5400", "nothing is rented", "ends it: "):
        assert words in text
    assert desk.ps() == []


def test_a_plan_for_programs_has_exactly_these_keys(desk: Desk) -> None:
    plan = json.loads(desk.sh("exit 3", "--dry-run", "--json").out)
    assert list(plan) == ["runner", "request", "quote", "layers"]
    quote = {"price_per_hour": "0", "max_hours": None, "max_cost": "0", "currency": "USD"}
    assert plan["quote"] == {**quote, "note": "your own machine: nothing is rented"}
    assert plan["runner"] == desk.options[0].removeprefix("--")
    assert plan["request"]["argv"] == ["bash", "sh.sh", "exit 3"]


def test_a_dry_run_needs_no_host(host: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=("--ssh", "nowhere.invalid"), env=host.env)
    assert desk.sh("exit 3", "--dry-run").code == 0


def test_an_example_without_docker_needs_none(desk: Desk) -> None:
    example = desk.repo / FOLDER
    (example / "Dockerfile").write_text("FROM scratch\n")
    assert desk.sh("exit 3").code == 3


def test_help_names_each_runner_s_own_options(desk: Desk) -> None:
    text = desk.cvl("run", "--help").out.decode()
    for words in (
        "Only with --ssh HOST:",
        "--remote-workdir",
        "--setup-cvl / --no-setup-cvl",
        "-e, --env NAME[=VALUE]",
        "trust the host's key if it is unknown",
    ):
        assert words in text
    assert "api-key" not in text


def test_the_configured_runner_is_the_default(host: Sshd, tmp_path: Path) -> None:
    desk = Desk(folder=tmp_path, options=(), env={**host.env, "CVL_RUNNER": "ssh"})
    (desk.repo / "cvl.toml").write_text('[runner.ssh]\nhost = "testhost"\n')
    done = desk.sh('echo "$HOME"')
    assert (done.code, done.out.decode()) == (0, f"{host.home}\n"), done.err


def test_a_broken_pipe_does_not_end_the_run(desk: Desk) -> None:
    script = "seq 100000; echo x >result; exit 3"
    words = [sys.executable, "-m", "cvl", "run", *desk.options, "one", "sh", script]
    done = subprocess.run(
        f"{{ {shlex.join(words)}; echo $? >code; }} | head -n 1",
        shell=True,
        cwd=desk.repo,
        env=desk.environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"1\n"
    assert (desk.repo / "code").read_text() == "3\n"
    assert desk.result("result") == b"x\n"
    assert desk.cvl("logs", desk.runs()[0]).out.endswith(b"\n100000\n")
